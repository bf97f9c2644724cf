"""Training as a user meets it: the commands, killed, resumed and misused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from bridgeact_jax import cli
from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.training.checkpoint import load_expert, open_checkpoints
from bridgeact_jax.training.config import SIZES, base_config, check_config
from bridgeact_jax.training.mesh import make_mesh, state_sharding
from tests.devices import emulated
from tests.training.conftest import CONFIG, TINY, command, figures, run

CLOUDS = "--config=configs/demo.py:finetune"


def leaves(workdir, step: int | None = None) -> dict[str, np.ndarray]:
    """Every array of the checkpoint of `step`, by default the latest, by its path."""
    import orbax.checkpoint as ocp

    checkpoints = open_checkpoints(workdir)
    path = workdir / "checkpoints" / str(step or checkpoints.latest) / "state"
    checkpoints.close()
    checkpointer = ocp.PyTreeCheckpointer()
    plain = jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
        checkpointer.metadata(path.resolve()).item_metadata.tree,
    )
    state = checkpointer.restore(path.resolve(), restore_args=plain)
    flat = jax.tree_util.tree_flatten_with_path(state)[0]
    return {jax.tree_util.keystr(key): np.asarray(value) for key, value in flat}


def assert_identical(a, b, step: int | None = None):
    a, b = leaves(a, step), leaves(b, step)
    assert a.keys() == b.keys() and len(a) > 20
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.slow
def test_killed_and_resumed_ends_bit_identical(tiny_store, pretrained, tmp_path):
    workdir = tmp_path / "killed"
    words = "pretrain", CONFIG, f"--store={tiny_store}", f"--workdir={workdir}", "--config.steps=12"
    process = subprocess.Popen(command(*words), stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if any(path.name.isdigit() for path in workdir.glob("checkpoints/*")):
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert open_checkpoints(workdir).latest < 12
    run(*words)
    assert_identical(workdir, pretrained)
    steps = [line["step"] for line in figures(workdir)]
    assert steps == sorted(set(steps)) and steps[-1] == 12


@pytest.mark.slow
def test_stage_two_starts_from_stage_ones_averages(tiny_store, pretrained, tmp_path):
    workdir = tmp_path / "finetuned"
    result = run(
        "finetune", CLOUDS, f"--store={tiny_store}", f"--init={pretrained}",
        f"--workdir={workdir}", "--config.steps=2", "--config.optimizer.learning_rate=0.0",
    )  # fmt: skip
    assert "checkpoint at step 2" in result.stdout
    before, after = leaves(pretrained), leaves(workdir)
    compared = 0
    for name, value in before.items():
        if name.startswith(("['ema']", "['normalizer']")):
            np.testing.assert_allclose(after[name], value, atol=1e-6, err_msg=name)
            compared += 1
    assert compared > 20
    gate = after["['params']['cloud_gate']"]
    assert np.all(gate == 0)


@pytest.mark.slow
def test_stage_two_starts_on_many_devices(tiny_store, pretrained, tmp_path):
    workdir = tmp_path / "finetuned"
    run(
        "finetune", CLOUDS, f"--store={tiny_store}", f"--init={pretrained}",
        f"--workdir={workdir}", "--config.steps=3", "--config.optimizer.learning_rate=0.0",
        "--config.fsdp=2", env=emulated(4),
    )  # fmt: skip
    before, after = load_expert(pretrained)[2:], load_expert(workdir)[2:]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), before, after)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut off", "missing"])
def test_reading_a_damaged_state_names_it_and_changes_nothing(damage, pretrained, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(pretrained, workdir)
    state = workdir / "checkpoints" / "12" / "state"
    if damage == "missing":
        shutil.rmtree(state)
    else:
        files = [path for path in state.rglob("*") if path.is_file()]
        os.truncate(max(files, key=lambda path: path.stat().st_size), 100)
    before = sorted(workdir.rglob("*"))
    with pytest.raises(UserError, match=r"checkpoints/12: cannot be restored .*remove this folder"):
        load_expert(workdir)
    assert sorted(workdir.rglob("*")) == before


@pytest.mark.slow
def test_metrics_go_to_tensorboard_too(pretrained):
    assert [line["step"] for line in figures(pretrained)] == [2, 4, 6, 8, 10, 12]
    assert list((pretrained / "tensorboard").glob("events*"))


def wrong(tiny_store, pretrained, tmp_path):
    """(words, exit status, what the one line must say)."""
    store, workdir = f"--store={tiny_store}", f"--workdir={tmp_path / 'new'}"
    started = f"--workdir={pretrained}"
    return {
        "unknown config key": (
            ["pretrain", CONFIG, store, workdir, "--config.optimizer.learning_rat=1"],
            2, r"learning_rat.*did you mean 'learning_rate'",
        ),
        "no store": (["pretrain", CONFIG, "--store=nowhere", workdir], 1, "nowhere"),
        "no data": (["pretrain", CONFIG, workdir], 2, "either --store=STORE, or --mixture=NAME"),
        "two kinds of data": (
            ["pretrain", CONFIG, store, "--mixture=demo", "--stores=x", workdir], 2, "give either"
        ),
        "a mixture without its stores": (
            ["pretrain", CONFIG, "--mixture=demo", "--stores=nowhere", workdir], 1,
            r"nowhere lacks the stores of 1 of its 1 datasets: demonstrations",
        ),
        "unknown stage": (
            ["pretrain", "--config=configs/demo.py:pretain", store, workdir], 2, "pretrain"
        ),
        "wrong stage": (["pretrain", CLOUDS, store, workdir], 2, "bridgeact finetune"),
        "another run's workdir": (
            ["pretrain", CONFIG, store, started, "--config.steps=14"], 2,
            r"config\.steps was 12, is 14",
        ),
        "a checkpoint of another shape": (
            ["finetune", CLOUDS, store, workdir, f"--init={pretrained}",
             "--config.model.horizon=16"], 2, r"config\.model\.horizon was 8, is 16",
        ),
        "no checkpoint": (
            ["finetune", CLOUDS, store, workdir, f"--init={tmp_path}"], 1, "no checkpoints here"
        ),
        "another --init": (
            ["pretrain", CONFIG, store, started, "--config.steps=12", f"--init={pretrained}"], 2,
            "--init was None, is",
        ),
        "no --init": (["finetune", CLOUDS, store, workdir], 2, "--init=WORKDIR"),
        "an impossible horizon": (
            ["pretrain", CONFIG, store, workdir, "--config.model.horizon=7"], 2,
            "config.model.horizon = 7 must be divisible by 2",
        ),
        "no noise draws": (
            ["pretrain", CONFIG, store, workdir, "--config.noise_draws=0"], 2,
            "config.noise_draws = 0 must be positive",
        ),
        "indivisible batch": (
            ["pretrain", CONFIG, store, workdir, "--config.fsdp=3"], 2, "fsdp = 3 does not divide"
        ),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", wrong("", "", Path()))
def test_bad_input_is_one_clear_line(case, tiny_store, pretrained, tmp_path, capsys):
    words, status, message = wrong(tiny_store, pretrained, tmp_path)[case]
    assert cli.main(["bridgeact", *words, *TINY]) == status
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and re.search(message, lines[0]), said
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_other_data_is_not_resumed_and_a_damaged_checkpoint_is_named(
    tiny_store, pretrained, tmp_path
):
    workdir = tmp_path / "copy"
    shutil.copytree(pretrained, workdir)
    other = tmp_path / "store"
    shutil.copytree(tiny_store, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["columns"]["position"]["sha256"] = "0" * 64
    (other / "manifest.json").write_text(json.dumps(manifest))
    words = "pretrain", CONFIG, f"--workdir={workdir}", "--config.steps=12"
    result = run(*words, f"--store={other}", check=False)
    assert result.returncode == 2 and "--store holds other data" in result.stderr

    latest = workdir / "checkpoints" / "12"
    for part in latest.glob("config/*"):
        part.write_bytes(part.read_bytes()[:5])
    result = run(*words, f"--store={tiny_store}", check=False)
    assert result.returncode == 1 and f"{latest}: cannot be restored" in result.stderr
    shutil.rmtree(latest)
    run(*words, f"--store={tiny_store}")
    assert_identical(workdir, pretrained)


MIXTURE = """
name = "two"
title = "Two"
citation = ""
weights = "given"
[datasets]
bridge = 1.0
demonstrations = 3.0
"""


@pytest.mark.slow
def test_a_mixture_is_trained_on_and_recorded(tiny_store, tmp_path):
    mixture, stores = tmp_path / "two.toml", tmp_path / "stores"
    mixture.write_text(MIXTURE)
    for name, recorded in (("bridge", "none"), ("demonstrations", "full")):
        shutil.copytree(tiny_store, stores / name)
        facts = {"card": name, "recorded": {"rotation": recorded, "gripper": True}}
        edit_manifest(stores / name, facts)
    words = f"--mixture={mixture}", f"--stores={stores}"
    blind, expert = tmp_path / "blind", tmp_path / "expert"
    result = run("pretrain", CONFIG, *words, f"--workdir={blind}", "--config.steps=4")
    assert re.search(r"bridge +1 +25\.000% +6 +120 +114", result.stdout), result.stdout
    run(
        "finetune", CLOUDS, *words, f"--workdir={expert}", f"--init={blind}", "--config.steps=2"
    )
    for workdir in (blind, expert):
        datasets = json.loads((workdir / "mixture.json").read_text())["datasets"]
        assert [one["probability"] for one in datasets.values()] == [0.25, 0.75]
        checkpoints = open_checkpoints(workdir)
        assert checkpoints.config()[1]["mixture"]["datasets"] == datasets
        checkpoints.close()
    again = "pretrain", CONFIG, f"--workdir={blind}", "--config.steps=4"
    assert "was there already" in run(*again, *words).stdout
    result = run(*again, f"--store={tiny_store}", check=False)
    assert "--store was not given; --mixture was given" in result.stderr
    mixture.write_text(MIXTURE.replace("3.0", "2.0"))
    result = run(*again, *words, check=False)
    assert result.returncode == 2 and "--mixture holds other data" in result.stderr


def edit_manifest(store: Path, facts: dict) -> None:
    path = store / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def test_large_parameters_are_sharded_and_small_ones_copied():
    mesh = jax.sharding.AbstractMesh((2, 4), ("data", "fsdp"))
    shapes = {
        "kernel": jax.ShapeDtypeStruct((384, 128), np.float32),
        "odd": jax.ShapeDtypeStruct((383, 127), np.float32),
        "bias": jax.ShapeDtypeStruct((128,), np.float32),
    }
    specs = jax.tree.map(lambda s: tuple(s.spec), state_sharding(mesh, shapes))
    assert specs == {"kernel": ("fsdp",), "odd": (), "bias": ()}


def test_a_mesh_that_does_not_divide_is_refused():
    with pytest.raises(UsageError, match="does not divide"):
        make_mesh(jax.device_count() + 1)


def test_every_shipped_config_extends_the_base():
    """A key that the base does not have would be read by nothing. tests/vla has the other base."""
    import runpy

    known = base_config()
    for path in set(Path("configs").glob("*.py")) - {Path("configs/chatvla2.py")}:
        module = runpy.run_path(str(path))
        for word in module.get("STAGES") or module.get("TASKS") or SIZES:
            config = module["get_config"](word)
            assert set(config.keys()) == set(known.keys())
            assert config.use_cloud == ("pretrain" not in (word, path.stem))
            check_config(config)


_IMPORTS = """
import sys
from bridgeact_jax import cli
for words in {commands!r}:
    assert cli.main(["bridgeact", *words]) == 0
assert not [name for name in sys.modules if name.split(".")[0] == "tensorflow"]
"""


@pytest.mark.slow
def test_training_and_evaluating_never_import_tensorflow(tiny_store, pretrained, tmp_path):
    seeing = tmp_path / "seeing"
    commands = [
        ["finetune", CLOUDS, f"--store={tiny_store}", f"--workdir={seeing}",
         f"--init={pretrained}", "--config.steps=2", "--config.optimizer.learning_rate=0.0", *TINY],
        ["evaluate", f"--checkpoint={seeing}", "--suite=reach", "--episodes=1", "--videos=0",
         "--workers=1", f"--out={tmp_path / 'results'}"],
    ]  # fmt: skip
    program = _IMPORTS.format(commands=commands)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_several_stores_are_drawn_from_by_their_steps(tiny_store, tmp_path):
    parts = [tmp_path / name for name in ("bridge", "demonstrations")]  # compiled above already
    for part in parts:
        shutil.copytree(tiny_store, part)
    workdir = tmp_path / "run"
    words = "pretrain", CONFIG, f"--workdir={workdir}", "--config.steps=4"
    run(*words, f"--store={parts[0]},{parts[1]}")
    datasets = json.loads((workdir / "mixture.json").read_text())["datasets"]
    assert {name: one["probability"] for name, one in datasets.items()} == {
        "bridge": 0.5, "demonstrations": 0.5
    }  # fmt: skip
    result = run(*words, f"--store={parts[0]},{parts[0]}", check=False)
    assert result.returncode == 2 and "every store needs another folder name" in result.stderr
