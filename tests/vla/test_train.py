"""The stages as a user meets them: the command, one from another's checkpoint, and misused."""

import contextlib
import io
import json
import re
import runpy

import jax
import numpy as np
import pytest

from bridgeact_jax import cli
from bridgeact_jax.errors import UserError
from bridgeact_jax.geometry.cameras import Camera
from bridgeact_jax.geometry.poses import Pose
from bridgeact_jax.models.normalizer import identity
from bridgeact_jax.planning.learned import LearnedPlanner
from bridgeact_jax.planning.protocol import PlannedPose, PlanningError, PlanRequest, View
from bridgeact_jax.training.config import base_config as expert_config
from bridgeact_jax.vla import settings
from bridgeact_jax.vla.checkpoint import first_params, load_vla
from bridgeact_jax.vla.model import Vla
from bridgeact_jax.vla.speaker import Speaker
from bridgeact_jax.vla.tokenizer import WORDS, decode
from tests.vla.tiny import (
    FLAGS,
    pictures,
    random_params,
    tiny,
    tiny_config,
    write_imagetext,
    write_robot,
)

SHALLOW = (
    *FLAGS, "--config.batch_size=4", "--config.log_every=1", "--config.checkpoint_every=2",
    "--config.model.layers=1", "--config.model.head_layers=2", "--config.optimizer.warmup_steps=1",
    "--config.validation.windows=4", "--config.noise_draws=1",
)  # fmt: skip


def train(stage: str, *words: object) -> tuple[int, str, str]:
    """Exit status and what was said."""
    out, err = io.StringIO(), io.StringIO()
    named = {str(word).split("=")[0] for word in words}
    shallow = [flag for flag in SHALLOW if flag.split("=")[0] not in named]
    line = ["bridgeact", "train-vla", f"--config=configs/chatvla2.py:{stage}", *shallow]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main([*line, *map(str, words)])
    return status, out.getvalue(), err.getvalue()


def test_every_stage_extends_the_base():
    """A key that the base does not have would be read by nothing."""
    module = runpy.run_path("configs/chatvla2.py")
    for stage in module["STAGES"]:
        for size in ("", *(f":{size}" for size in settings.SIZES)):
            config = module["get_config"](stage + size)
            known = settings.base_config()
            assert config.keys() == known.keys() and config.model.keys() == known.model.keys()
            settings.check_config(config)
    limit = module["get_config"]("dense").model.text_length
    assert limit < module["get_config"]("cotrain").model.text_length


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """(image-text, robot)"""
    path = tmp_path_factory.mktemp("data")
    return write_imagetext(path / "questions"), write_robot(path / "episodes")


@pytest.fixture(scope="module")
def dense(data, tmp_path_factory):
    """A dense model after two steps."""
    workdir = tmp_path_factory.mktemp("runs") / "dense"
    status, said, wrong = train(
        "dense", f"--imagetext={data[0]}", f"--workdir={workdir}", "--config.steps=2",
        "--config.validation.share=0",
    )  # fmt: skip
    assert status == 0, wrong
    assert "checkpoint at step 2" in said
    return workdir


@pytest.mark.slow
def test_cotraining_starts_from_the_dense_model_and_is_resumed(data, dense, tmp_path):
    words = (
        f"--imagetext={data[0]}", f"--robot={data[1]}", f"--init={dense}",
        f"--workdir={tmp_path / 'both'}", "--config.steps=2", "--config.optimizer.learning_rate=0",
    )  # fmt: skip
    status, said, wrong = train("cotrain", *words)
    assert status == 0, wrong
    assert "held out for validation: 1 image-text samples" in said
    lines = (tmp_path / "both" / "metrics.jsonl").read_text().splitlines()
    names = json.loads(lines[-1]).keys()
    assert {"loss/action", "loss/reasoning", "loss/imagetext", "validation_loss"} <= names
    assert {"validation_position_mm", "validation_reasoning_right"} <= names

    before, after = load_vla(dense), load_vla(tmp_path / "both")
    assert before.model.mlp == "dense" and after.model.mlp == "dynamic"
    experts, mlp = (one.params["vlm"]["blocks_0"]["mlp"]["inner"] for one in (after, before))
    np.testing.assert_allclose(experts, np.stack([mlp] * 4), atol=1e-6)
    tables = [one.params["vlm"]["table"]["embedding"] for one in (before, after)]
    np.testing.assert_allclose(*tables, atol=1e-6)
    assert all(jax.tree.map(lambda a, b: bool((a == b).all()), before.normalizer, identity()))
    assert np.any(after.normalizer.scale != 1)

    assert "was there already" in train("cotrain", *words)[1]
    status, _, wrong = train("cotrain", *words, "--config.weight.action=2")
    assert status == 2 and "config.weight.action was 1.0, is 2.0" in wrong


@pytest.mark.parametrize("words, status, message", [
    (["cotrane"], 2, "unknown stage 'cotrane': did you mean 'cotrain'"),
    (["dense:XL"], 2, "unknown model size 'XL'"),
    (["cotrain", "--imagetext=I"], 2, r"robot_share = 0.75 needs --robot=FOLDERS"),
    (["dense", "--imagetext=I", "--robot=R"], 2, "has no use for --robot"),
    (["head", "--robot=R"], 2, "config.trained = head freezes the rest: --init=WORKDIR"),
    (["dense", "--imagetext=R"], 1, "episodes: holds 'robot' data: must be 'imagetext'"),
    (["dense", "--imagetext=nowhere"], 1, "nowhere: no folder of `bridgeact vla-data`"),
    (["dense", "--imagetext=I", "--config.model.picture=(16,32)"], 1,
     r"pictures of \(16, 24\): the model takes config.model.picture = \(16, 32\)"),
    (["dense", "--imagetext=I", "--config.model.picture=(16,20)"], 2,
     r"config.model.picture = \(16, 20\) must be rows and columns of pixels that"),
    (["dense", "--imagetext=I", "--config.model.picture=(16,24,8)"], 2, "must be rows and columns"),
    (["dense", "--imagetext=I", "--config.model.text_length=8"], 1,
     r"questions: '.*' with its answer: 12 tokens of at most config.model.text_length = 8"),
    (["dense", "--imagetext=I", "--config.model.top_k=9"], 2, "config.model.top_k = 9 must be"),
    (["cotrain", "--imagetext=I", "--robot=R", "--config.model.mlp=static"], 2,
     "config.model.mlp = static must be one of dense, dynamic"),
    (["dense", "--imagetext=I", "--config.batch_size=3", "--config.accumulate=2"], 2, "divisor"),
])  # fmt: skip
def test_misuse_is_one_line(words, status, message, data, tmp_path):
    folders = {"=I": f"={data[0]}", "=R": f"={data[1]}"}
    stage, *words = (re.sub("=[IR]$", lambda m: folders[m[0]], word) for word in words)
    found, _, said = train(stage, *words, f"--workdir={tmp_path / 'new'}")
    assert found == status, said
    assert len(said.splitlines()) == 1 and re.search(message, said), said
    assert not (tmp_path / "new").exists()


def test_the_knowledge_test_is_kept_from_training(tmp_path):
    path = write_imagetext(tmp_path / "questions", kind="knowledge")
    status, _, said = train("dense", f"--imagetext={path}", f"--workdir={tmp_path / 'new'}")
    assert status == 1 and "the knowledge test, which no training may see" in said


@pytest.mark.parametrize("damage, message", [
    ({"question": "3 @ 4"}, "the sign '@'"), ({"question": f"{WORDS[0]}q"}, "the word"),
    ({"question": 3}, "line 2: 'question' must be of type str"),
])  # fmt: skip
def test_what_cannot_be_read_in_a_folder_is_named(damage, message, tmp_path):
    path = write_imagetext(tmp_path / "questions", count=2)
    lines = (path / "samples.jsonl").read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | damage)
    (path / "samples.jsonl").write_text("\n".join(lines))
    status, _, said = train("dense", f"--imagetext={path}", f"--workdir={tmp_path / 'new'}")
    assert status == 1 and str(path) in said and message in said and said.count("\n") == 1


@pytest.mark.parametrize("saved, changes, message", [
    ({"mlp": "dynamic"}, {"mlp": "shared_dynamic"}, "config.model.mlp was dynamic, is shared"),
    ({"mlp": "dynamic"}, {"experts": 2}, "config.model.experts was 4, is 2"),
    ({"mlp": "dense"}, {"width": 32}, "config.model.width was 16, is 32"),
    ({"injection": "latter"}, {"injection": "all"}, "config.model.injection was latter, is all"),
    ({"mlp": "dense"}, {"experts": 2, "text_length": 30}, None),
])  # fmt: skip
def test_a_checkpoint_of_another_variant_is_refused(saved, changes, message, monkeypatch):
    """What a stage may change over the one before it does not count as another variant."""
    old = tiny(layers=1, **saved)
    vla = Vla(old, random_params(old), identity()._replace(scale=np.full(10, 0.1)))
    monkeypatch.setattr("bridgeact_jax.vla.checkpoint.load_vla", lambda path: vla)
    monkeypatch.setattr(  # which takes long to compile
        "bridgeact_jax.vla.checkpoint.initial_params", lambda model, key: random_params(model)
    )
    config, model = tiny_config(), tiny(layers=1, **changes)
    if message is None:
        params, normalizer = first_params(config, model, "W")
        assert params["vlm"]["blocks_0"]["mlp"]["inner"].shape == (2, 16, 24)
        assert params["head"] is vla.params["head"] and normalizer is vla.normalizer
    else:
        with pytest.raises(UserError, match=f"--init=W: .*another variant: {message}"):
            first_params(config, model, "W")


def test_an_action_experts_checkpoint_is_refused(monkeypatch):
    class Expert:
        def config(self):
            return expert_config(), {}

        def close(self):
            pass

    monkeypatch.setattr("bridgeact_jax.vla.checkpoint.open_checkpoints", lambda path: Expert())
    with pytest.raises(UserError, match="W: no checkpoint of `bridgeact train-vla`.*widths"):
        load_vla("W")


def test_a_speaker_refuses_what_its_model_cannot_take():
    model = tiny(layers=1)
    speaker = Speaker(Vla(model, {}, identity()))
    with pytest.raises(UserError, match=r"\(1, 8, 24, 3\) uint8: must be \(1, 16, 24, 3\)"):
        speaker.say(np.zeros((1, 8, 24, 3), np.uint8), ["1"], robot=True)
    with pytest.raises(UserError, match="float64: must be"):
        speaker.say(np.zeros((1, 16, 24, 3)), ["1"], robot=True)
    with pytest.raises(UserError, match="32 tokens of at most 23"):
        speaker.say(pictures(1, model), ["1" * 30], robot=True)


@pytest.mark.slow
def test_a_speaker_answers_in_batches_as_one_by_one():
    model = tiny(layers=1)
    vla = Vla(model, random_params(model), identity())
    shown, asked = pictures(3, model), ["1 + 2", "(3)", "4"]
    together = Speaker(vla, batch=2).say(shown, asked, robot=False, temperature=1.0, seed=3)
    for row in range(3):
        alone = Speaker(vla, batch=4).speak(shown, asked, robot=False, temperature=1.0, seed=3)
        said = alone.tokens[row, alone.prompt_length[row] : alone.length[row]]
        assert decode(said.tolist()) == together[row]


REASONING = (
    "on the whiteboard is 14 - 6. 14 - 6 = 8. there are 8 (left), 13 (middle), 2 (right). "
    "i should pick 8 from left. over 31, 40: 145 open, 045 close, 245 close."
)


class Scripted:
    """Says what it is told to, and remembers how it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def say(self, pictures, prompts, **how):
        self.asked.append((prompts, how["temperature"], how["seed"]))
        return [self.answers.pop(0)]


@pytest.fixture
def planner(tmp_path):
    """A planner that says what it is told to."""
    return lambda *answers: LearnedPlanner(Scripted(*answers), tmp_path / "said.jsonl")


def request(**changes) -> PlanRequest:
    down = np.array([0.0, 1.0, 0.0, 0.0])
    camera = Camera(Pose(np.array([0.5, 0.0, 1.0]), down), 50.0, 50.0, 48.0, 32.0)
    view = View(np.zeros((64, 96, 3), np.uint8), camera)
    fields = {"position": [0.4, 0, 0.3], "rotation": down, "gripper": 1.0, "key": "math/0"}
    return PlanRequest((view,), "pick the card that answers it", **fields | changes)


def test_a_thought_becomes_the_plan_of_its_waypoints(planner):
    from bridgeact_jax.planning.protocol import waypoints_of
    from bridgeact_jax.vla.reasoning import parse_waypoints

    asked = request()
    plan = planner(REASONING).plan(asked)
    assert plan.words == REASONING and isinstance(plan.target, PlannedPose)
    assert (plan.usage["queries"], plan.usage["unparsable"]) == (1, 0)
    found, expected = waypoints_of(plan, asked), parse_waypoints(REASONING)
    np.testing.assert_allclose(found.position[1:], expected.position, atol=1e-5)
    np.testing.assert_allclose(found.gripper[1:], expected.gripper)
    dots = np.abs(np.sum(found.rotation[1:] * expected.rotation, axis=1))
    np.testing.assert_allclose(dots, 1, atol=1e-5)


def test_what_cannot_be_parsed_is_counted_and_asked_once_more(planner, tmp_path):
    plans = planner("there are 8.", REASONING)
    plan = plans.plan(request())
    assert (plan.usage["queries"], plan.usage["unparsable"]) == (2, 1)
    lines = map(json.loads, (tmp_path / "said.jsonl").read_text().splitlines())
    assert [(one["words"], one["request"]) for one in lines] == [
        ("there are 8.", "math/0"), (REASONING, "math/0"),
    ]  # fmt: skip
    first, second = plans._speaker.asked
    assert first[1] == 0 < second[1] and first[0] == second[0] and second[2] == first[2]

    plans = planner("there are 8.", "", REASONING)
    with pytest.raises(PlanningError, match="gave no plan, asked twice") as caught:
        plans.plan(request())
    assert caught.value.usage["unparsable"] == 2 and len(plans._speaker.asked) == 2
    assert caught.value.words == ""

    other = planner("", REASONING)
    other.plan(request(key="math/1"))
    assert other._speaker.asked[1][2] != second[2]  # another draw for another request
