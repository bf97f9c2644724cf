"""An exported checkpoint is the checkpoint: the same function, read without Orbax."""

import json
import re
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridgeact_jax import cli
from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.evaluation import conditions
from bridgeact_jax.evaluation.checkpoints import check_checkpoint, latest_step
from bridgeact_jax.models.action_expert import example_inputs, sample_chunks
from bridgeact_jax.models.normalizer import Normalizer
from bridgeact_jax.models.observation import Observation
from bridgeact_jax.training import exported
from bridgeact_jax.training.checkpoint import Checkpoints, describe, load_expert
from bridgeact_jax.training.config import base_config, expert_config
from bridgeact_jax.training.export import export
from bridgeact_jax.training.exported import CARD, CONFIG, WEIGHTS, shipped_expert
from bridgeact_jax.training.jax_export import PLATFORMS
from bridgeact_jax.training.state import state_shapes

SCORES = {"validation_loss": 0.25, "validation_position_mm": 4.5}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run's folder with one checkpoint, of an expert of random weights that sees clouds."""
    path = tmp_path_factory.mktemp("runs") / "expert"
    config = base_config()
    config.use_cloud = True
    config.model.update(widths=(16, 32), condition=32, point_widths=(16, 32), points=32)
    rng = np.random.default_rng(0)
    state = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(0.0, 0.2, x.shape), x.dtype),
        state_shapes(config, expert_config(config)),
    )
    normalizer = Normalizer(*jnp.asarray(rng.uniform(0.5, 1.5, (2, 10)), jnp.float32))
    state = state._replace(normalizer=normalizer)
    source = {
        "store": None,
        "init": "/home/somebody/runs/blind",
        "mixture": {
            "name": "pair",
            "datasets": {
                "bridge": {"probability": 0.75, "episodes": 1200, "steps": 34567},
                "home_made": {"probability": 0.25, "episodes": 8, "steps": 90},
            },
        },
    }
    with Checkpoints(path, keep=1) as checkpoints:
        checkpoints.save(7, state, config, source, SCORES)
    return path


@pytest.fixture(scope="module")
def directory(workdir, tmp_path_factory):
    """The checkpoint exported, with serialised functions."""
    out = tmp_path_factory.mktemp("exported") / "expert"
    added = out.with_name("more.md")
    added.write_text("## Results\n\nlift 97 %\n")
    export(workdir, out, card=added, jax_export=True)
    return out


def observations(model, batch: int) -> Observation:
    """Random observations with half of the points there."""
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(batch, *x.shape[1:])) for x in example_inputs(model)[0]]
    return Observation(*(jnp.asarray(x, jnp.float32) for x in parts[:4]), parts[4] > 0)


def chunks(path, batch: int = 3) -> np.ndarray:
    """What the expert at `path` samples for the same observations and keys."""
    config, model, params, normalizer = load_expert(path)
    keys = jax.random.split(jax.random.key(5), batch)
    arguments = params, normalizer, observations(model, batch), keys
    sample = jax.jit(partial(sample_chunks, model, use_cloud=config.use_cloud))
    return np.asarray(sample(*arguments))


def test_it_loads_as_the_run_does(workdir, directory):
    config, model, *saved = load_expert(workdir)
    read_config, read_model, *read = load_expert(directory)
    assert read_config.to_json() == config.to_json() and read_model == model
    assert jax.tree.structure(read) == jax.tree.structure(saved)
    jax.tree.map(np.testing.assert_array_equal, read, saved)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(read))
    run_, read_ = describe(workdir), describe(directory)
    assert read_.step == run_.step == latest_step(directory) == 7
    assert read_.scores == run_.scores == SCORES
    assert read_.source == {**run_.source, "init": "blind"}


def test_bfloat16_rounds_each_weight_and_nothing_else(workdir, directory, tmp_path):
    files = export(workdir, tmp_path / "half", dtype="bfloat16")
    whole, half = load_expert(directory)[2:], load_expert(tmp_path / "half")[2:]
    jax.tree.map(np.testing.assert_array_equal, whole[1], half[1])
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), whole[0])
    jax.tree.map(np.testing.assert_array_equal, rounded, half[0])
    sizes = {path.name: path.stat().st_size for path in files}
    assert sizes[WEIGHTS] < 0.6 * (directory / WEIGHTS).stat().st_size
    # An exported directory can be exported again, and rounding twice is rounding once.
    export(tmp_path / "half", tmp_path / "again", dtype="bfloat16")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / "half" / WEIGHTS).read_bytes()


def test_safetensors_own_reader_finds_the_same_tensors(directory):
    from safetensors.numpy import load_file

    params, normalizer = load_expert(directory)[2:]
    expected = exported.tensors_of(params, normalizer, "float32")
    found = load_file(directory / WEIGHTS)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_the_serialised_function_is_the_sampler(workdir, directory):
    from safetensors.flax import load_file

    assert {p.name for p in directory.glob("*.jaxexport")} == {
        f"expert.{name}.jaxexport" for name in PLATFORMS
    }
    function = jax.export.deserialize(bytearray((directory / "expert.cpu.jaxexport").read_bytes()))
    tensors = load_file(directory / WEIGHTS)
    model = load_expert(directory)[1]
    keys = jax.random.key_data(jax.random.split(jax.random.key(5), 3))
    found = function.call(tensors, *(part[:2] for part in observations(model, 3)), keys[:2])
    np.testing.assert_allclose(found, chunks(workdir)[:2], atol=1e-5)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_each_function_is_for_its_platform_and_any_batch(platform, directory):
    content = (directory / f"expert.{platform}.jaxexport").read_bytes()
    function = jax.export.deserialize(bytearray(content))
    assert function.platforms == (platform,)
    (out,) = function.out_avals
    assert str(out.shape[0]) == "batch" and out.shape[1:] == (8, 10)


def test_the_card_tells_data_figures_and_what_is_added(directory):
    card = (directory / CARD).read_text()
    for part in ("step 7 of", "bridge | 75.00%", "1,200", "34,567", "4.5", "lift 97 %"):
        assert part in card, part
    assert re.search(r"home_made .* see its source", card)
    assert not re.search(r"/(home|tmp|work)", card + (directory / CONFIG).read_text())


def test_a_policy_is_checked_against_it_as_against_a_run(directory):
    check_checkpoint("expert", str(directory), ["lift"])
    with pytest.raises(UsageError, match="serve: --checkpoint=.* has learned from plans"):
        check_checkpoint("cloud_only", str(directory), ["lift"], command="serve")


def test_a_run_of_another_version_is_named(workdir, monkeypatch):
    config = describe(workdir).config
    config.model.breadth = 1
    monkeypatch.setattr(Checkpoints, "config", lambda self: (config, {}))
    with pytest.raises(UserError, match=r"expert: written by another version .*\(breadth\)"):
        load_expert(workdir)


def test_a_run_that_lacks_a_weight_is_named(workdir, tmp_path):
    saved = describe(workdir)
    _, model, params, normalizer = load_expert(workdir)
    del params["cloud_gate"]
    state = state_shapes(saved.config, model)._replace(ema=params, normalizer=normalizer)
    state = state._replace(step=jnp.zeros((), jnp.int32), params={}, opt_state=())
    with Checkpoints(tmp_path / "older", keep=1) as checkpoints:
        checkpoints.save(7, state, saved.config, saved.source)
    with pytest.raises(UserError, match="older: written by another version.*'ema/cloud_gate'"):
        load_expert(tmp_path / "older")


def edited(change):
    def damage(copy):
        content = json.loads((copy / CONFIG).read_text())
        change(content)
        (copy / CONFIG).write_text(json.dumps(content))

    return damage


DAMAGES = {
    "cut off": (
        lambda copy: (copy / WEIGHTS).write_bytes((copy / WEIGHTS).read_bytes()[:-1]),
        "model.safetensors: damaged, or of another export",
    ),
    "no weights": (lambda copy: (copy / WEIGHTS).unlink(), "model.safetensors: cannot be read"),
    "not JSON": (lambda copy: (copy / CONFIG).write_text("{"), "config.json: not the config"),
    "not an object": (lambda copy: (copy / CONFIG).write_text("[]"), "config.json: not the config"),
    "later format": (edited(lambda c: c.update(format=9)), "format is 9, this version reads 1"),
    "no config": (edited(lambda c: c.pop("config")), "config.json: not the config .*'config'"),
    "other options": (
        edited(lambda c: c["config"]["model"].update(depth=3)), r"other options \(depth\)"
    ),
    "no sizes": (edited(lambda c: c["config"]["model"].update(widths=3)), "makes no model: "),
    "no dtype": (edited(lambda c: c["config"]["model"].update(dtype="mixed")), "makes no model: "),
    "other sizes": (
        edited(lambda c: c["config"]["model"].update(condition=16)), "tensors are not those of"
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_named(damage, directory, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    change, message = DAMAGES[damage]
    change(copy)
    with pytest.raises(UserError, match=message):
        load_expert(copy)


def test_the_command_writes_it_whole_and_overwrites_nothing(workdir, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    words = ["bridgeact", "export", f"--checkpoint={workdir}", f"--out={out}"]
    assert cli.main(words) == 0
    assert {path.name for path in out.iterdir()} == {WEIGHTS, CONFIG, CARD}
    printed = capsys.readouterr().out
    assert all(str(path) in printed for path in out.iterdir())
    assert cli.main(words) == 2
    assert "holds something already" in capsys.readouterr().err
    assert cli.main([*words[:2], "--checkpoint=nowhere", f"--out={tmp_path / 'x'}"]) == 1
    assert "no checkpoints here" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_without_a_checkpoint_the_shipped_expert_is_taken(directory, tmp_path, monkeypatch):
    monkeypatch.setattr(exported, "_SHIPPED", tmp_path / "none")
    with pytest.raises(UserError, match="no expert comes with this installation"):
        shipped_expert()
    monkeypatch.setattr(exported, "_SHIPPED", directory)
    assert shipped_expert() == directory
    for policy, expected in [("expert", directory), ("expert_blind", directory), ("spline", None)]:
        found = conditions.checkpoint_of(policy, None)
        assert found == (expected and str(expected))
    assert conditions.checkpoint_of("expert", "mine") == "mine"
    assert conditions.checkpoint_of("cloud_only", None) is None
