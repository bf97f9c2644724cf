"""Recorded streams: written, read, refused, sent as a robot would, and logged."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bridgeact_jax import cli
from bridgeact_jax.errors import UserError
from bridgeact_jax.evaluation.films import can_render
from bridgeact_jax.serving import play as player
from bridgeact_jax.serving.client import Client, ServerError
from bridgeact_jax.serving.play import Answer, deviations, play, summary, write_log
from bridgeact_jax.serving.record import record
from bridgeact_jax.serving.recording import (
    FIELDS,
    Recording,
    lifted,
    observation,
    read_recording,
    write_recording,
)
from bridgeact_jax.serving.rerun_log import RerunLog
from bridgeact_jax.serving.server import serving
from bridgeact_jax.serving.settings import Settings

HEIGHT, WIDTH, FRAMES = 6, 8, 12
ABOVE = 0.8  # metres of the camera above a table at height zero
HORIZON = 4


@pytest.fixture
def recording() -> Recording:
    """A tool that moves 1 cm a frame along x, seen from straight above a bare table."""
    down = np.array([[1.0, 0, 0, 0.5], [0, -1, 0, 0.1], [0, 0, -1, ABOVE], [0, 0, 0, 1]])
    rng = np.random.default_rng(0)
    return Recording(
        time=5.0 + 0.1 * np.arange(FRAMES),
        position=np.array([0.4, 0.0, 0.2]) + 0.01 * np.arange(FRAMES)[:, None] * [1.0, 0.0, 0.0],
        rotation=np.tile([0.0, 1.0, 0.0, 0.0], (FRAMES, 1)),
        gripper_width=np.full(FRAMES, np.nan),
        depth=np.full((FRAMES, HEIGHT, WIDTH), round(1e3 * ABOVE), np.uint16),
        intrinsics=np.array([[50.0, 0, 3.5], [0, 52.0, 2.5], [0, 0, 1]]),
        camera_pose=np.tile(down, (FRAMES, 1, 1)),
        prompt="lift the cube",
        image=rng.integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), np.uint8),
        plan_position=np.array([[0.45, 0.0, 0.1], [0.5, 0.0, 0.2]]),
        plan_rotation=np.tile([0.0, 1.0, 0.0, 0.0], (2, 1)),
        plan_gripper=np.array([1.0, 0.0]),
    )


class Robot:
    """A clock that only sleeping and answering advance, and a server that follows the motion."""

    def __init__(self, answering: float = 0.0, lead: float = 0.01):
        self.now, self.sent = 100.0, []
        self._answering, self._lead = answering, lead

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds

    def infer(self, told: dict) -> dict:
        self.sent.append((self.now, told))
        self.now += self._answering
        ahead = self._lead * np.arange(1, HORIZON + 1)[:, None] * [1.0, 0.0, 0.0]
        rotation = np.tile(told["rotation"], (HORIZON, 1))
        actions = np.concatenate([told["position"] + ahead, rotation, np.ones((HORIZON, 1))], 1)
        timing = {"sample_ms": 7.0}
        return {"status": "ok", "actions": actions, "policy_timing": timing, "limited": {}}

    def play(self, recording, **options) -> list[Answer]:
        return list(play(recording, self.infer, clock=self.clock, sleep=self.sleep, **options))


def test_a_stream_comes_back_as_it_was_written(recording, tmp_path):
    write_recording(tmp_path / "s.npz", recording)
    read = read_recording(tmp_path / "s.npz")
    assert read.prompt == recording.prompt and read.gripper is None and len(read) == FRAMES
    for name in FIELDS.keys() - {"prompt", "gripper"}:
        np.testing.assert_array_equal(getattr(read, name), getattr(recording, name), err_msg=name)


def test_one_camera_pose_holds_for_all_frames(recording, tmp_path):
    write_recording(tmp_path / "s.npz", replace(recording, camera_pose=recording.camera_pose[0]))
    read = read_recording(tmp_path / "s.npz")
    np.testing.assert_array_equal(read.camera_pose, recording.camera_pose)


def test_a_pixel_lifted_is_where_the_camera_model_says(recording):
    depth = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint16)
    depth[0, 1, 6] = 700
    points, colours = lifted(replace(recording, depth=depth), 0)
    beside = np.array([(6 - 3.5) / 50.0, -(1 - 2.5) / 52.0, 0]) * 0.7  # y of the picture is down
    np.testing.assert_allclose(points, [[0.5, 0.1, ABOVE - 0.7] + beside], atol=1e-9)
    np.testing.assert_array_equal(colours, recording.image[:1, 1, 6])
    metres = np.where(depth, depth * 1e-3, np.nan)
    np.testing.assert_allclose(lifted(replace(recording, depth=metres), 0)[0], points)


def test_an_observation_holds_what_was_measured_and_planned(recording):
    told = observation(recording, 3)
    np.testing.assert_array_equal(told["position"], recording.position[3])
    assert np.isnan(told["gripper_width"]) and told["prompt"] == "lift the cube"
    assert set(told["plan"]) == {"position", "rotation", "gripper"} and "image" not in told
    told = observation(recording, 3, planned=False, pictured=True)
    assert "plan" not in told
    np.testing.assert_array_equal(told["image"], recording.image[3])


WRONG = {
    "no depth": ({"depth": None}, "no array 'depth'"),
    "plan in part": ({"plan_gripper": None}, "no array 'plan_gripper'"),
    "another name": ({"positions": np.zeros(3)}, "unknown array 'positions': .*'position'"),
    "frames missing": ({"position": np.zeros((3, 3))}, r"'position' is \(3, 3\) .*T = 12"),
    "depth as int": (
        {"depth": np.ones((FRAMES, HEIGHT, WIDTH), np.int32)}, "'depth' is .* int32: must be"
    ),
    "depth as byte": (
        {"depth": np.ones((FRAMES, HEIGHT, WIDTH), np.uint8)}, "'depth' is .* uint8: must be"
    ),
    "other picture": ({"image": np.zeros((FRAMES, 5, 5, 3), np.uint8)}, "'image' is"),
    "xyzw length": ({"rotation": np.full((FRAMES, 4), 0.6)}, "'rotation' row 0 has not length 1"),
    "nowhere": ({"position": np.full((FRAMES, 3), np.nan)}, "'position' is not finite"),
    "width in metres": ({"gripper_width": np.full(FRAMES, 80.0)}, "'gripper_width' is not within"),
    "time stands": ({"time": np.zeros(FRAMES)}, "'time' must rise"),
    "pickled": ({"prompt": np.array(["x", None], object)}, "no recorded stream"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_what_is_no_stream_is_named(fault, recording, tmp_path):
    change, message = WRONG[fault]
    arrays = vars(recording) | change
    np.savez(tmp_path / "s.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(UserError, match=message):
        read_recording(tmp_path / "s.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text", b"\x93NUMPY\x01\x00v\x00{}"])
def test_a_file_of_something_else_is_refused(content, tmp_path):
    (tmp_path / "s.npz").write_bytes(content)
    with pytest.raises(UserError, match="no recorded stream"):
        read_recording(tmp_path / "s.npz")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_recording(tmp_path / "none.npz")


@settings(
    max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read(data, recording, tmp_path):
    path = tmp_path / "s.npz"
    whole = tmp_path / "whole.npz"
    if not whole.exists():
        write_recording(whole, recording)
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    path.write_bytes(content)
    try:
        read = read_recording(path)
    except UserError:
        return
    assert len(read) > 0


@pytest.mark.parametrize("speed", [0.5, 1.0, 4.0])
def test_frames_go_out_at_the_recorded_pace(speed, recording):
    robot = Robot()
    answers = robot.play(recording, speed=speed)
    assert [answer.frame for answer in answers] == list(range(FRAMES))
    sent = np.array([at for at, _ in robot.sent])
    np.testing.assert_allclose(sent - 100.0, 0.1 * np.arange(FRAMES) / speed, atol=1e-9)
    clocks = [told["time"] for _, told in robot.sent]
    np.testing.assert_array_equal(clocks, recording.time)


def test_frames_that_a_slow_answer_makes_old_are_skipped(recording):
    robot = Robot(answering=0.25)
    frames = [answer.frame for answer in robot.play(recording)]
    assert frames[0] == 0 and frames[-1] == FRAMES - 1 and len(frames) < FRAMES / 2 + 1
    for (at, told), frame in list(zip(robot.sent, frames, strict=True))[:-1]:
        age = (at - 100.0) - (recording.time[frame] - recording.time[0])
        assert told["time"] == recording.time[frame] and -1e-9 <= age < 0.1
    assert len(Robot(answering=0.25).play(recording, speed=0)) == FRAMES


def test_a_server_that_says_what_the_arm_did_is_off_by_nothing(recording):
    answers = Robot().play(recording, speed=0)
    for answer in answers:
        rows = min(HORIZON, FRAMES - 1 - answer.frame)
        np.testing.assert_allclose(deviations(recording, answer), np.zeros(rows), atol=1e-9)
    farther = Robot(lead=0.03).play(recording, speed=0)
    np.testing.assert_allclose(deviations(recording, farther[0]), 0.02 * np.arange(1, 5))
    text = summary(recording, farther)
    for part in ("12 of 12 frames", "ok 12", "sample_ms: p50 7.0", "20.0 mm at the next step"):
        assert part in text, text


def test_an_answer_without_actions_has_no_deviation(recording):
    answer = Answer(0, 0.01, {"status": "planning", "actions": np.zeros((4, 8)), "limited": {}})
    assert answer.actions is None and not len(deviations(recording, answer))
    assert "planning 1" in summary(recording, [answer])


class FakeClient:
    """In the place of the light client."""

    reply: dict = {}

    def __init__(self, url, *, token=None):
        del url, token

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def infer(self, told):
        return Robot().infer(told) | self.reply


@pytest.mark.parametrize(
    ("reply", "status", "shown"),
    [
        ({}, 0, "12 of 12 frames sent"),
        ({"status": "no_plan", "message": "none"}, 1, "last answer was 'no_plan': none"),
    ],
)
def test_the_command_tells_what_was_answered(
    reply, status, shown, recording, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(player, "Client", FakeClient)
    monkeypatch.setattr(FakeClient, "reply", reply)
    write_recording(tmp_path / "s.npz", recording)
    words = ["bridgeact", "play", f"--stream={tmp_path / 's.npz'}", "--speed=0"]
    assert cli.main(words) == status
    assert shown in "".join(capsys.readouterr())


def test_the_whole_chain_answers_a_file(recording, engine):
    patient = Settings(port=0, deadline=60.0)
    with serving(engine, patient) as server, Client(f"ws://127.0.0.1:{server.port}") as client:
        answers = list(play(recording, client.infer, speed=0))
        assert [answer.reply["status"] for answer in answers] == ["ok"] * FRAMES
        assert all(answer.actions.shape == (engine.horizon, 8) for answer in answers)
    assert f"ok {FRAMES}" in summary(recording, answers)
    with serving(engine, patient) as server, Client(f"ws://127.0.0.1:{server.port}") as client:
        with pytest.raises(ServerError, match="no plan"):
            list(play(recording, client.infer, speed=0, planned=False))


def test_a_log_holds_cloud_guidance_chunk_and_path(recording, tmp_path):
    chunks = pytest.importorskip("rerun.chunk")
    answers = Robot().play(recording, speed=0)
    with RerunLog(tmp_path / "log.rrd") as log:
        write_log(log, "robot:1", recording, answers)
    found = {}
    for chunk in chunks.RrdReader(tmp_path / "log.rrd").stream():
        found.setdefault(chunk.entity_path, []).append(chunk.to_record_batch())
    logged = {path.rsplit("/", 1)[-1] for path in found}
    assert {"cloud", "guidance", "chunk", "path", "tool", "depth", "image"} <= logged
    (tool,) = [path for path in found if path.endswith("/tool")]
    positions = np.array([
        row[0] for batch in found[tool] for row in batch["Points3D:positions"].to_pylist()
    ])
    np.testing.assert_allclose(positions, recording.position, atol=1e-6)
    (path,) = [path for path in found if path.endswith("/path")]
    trail = found[path][-1]["LineStrips3D:strips"].to_pylist()[-1][0]
    np.testing.assert_allclose(trail, recording.position, atol=1e-6)


def test_a_log_without_the_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(UserError, match=r"rerun-sdk: .*\[rerun\]"):
        RerunLog(tmp_path / "log.rrd")


def test_a_log_must_be_writable_and_be_called_rrd(tmp_path):
    pytest.importorskip("rerun")
    with pytest.raises(UserError, match="must end in .rrd"):
        RerunLog(tmp_path / "log.txt")
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        RerunLog(tmp_path / "taken" / "log.rrd")


@pytest.mark.slow
@pytest.mark.skipif(can_render() is not None, reason="no graphics library")
def test_an_episode_recorded_is_what_the_camera_saw(tmp_path):
    from bridgeact_jax.sim.environment import Environment

    env = Environment("lift")
    taken = record(env, 0, 1, size=96)
    assert env.success and taken.prompt == env.instruction
    write_recording(tmp_path / "s.npz", taken)
    read = read_recording(tmp_path / "s.npz")
    np.testing.assert_allclose(np.diff(read.time), 0.1)
    # The table is at height zero, and the cube stands where the plan closes the gripper.
    points, _ = lifted(read, 0)
    assert np.mean(np.abs(points[:, 2]) < 0.003) > 0.3
    grasp = read.plan_position[np.argmin(read.plan_gripper)]
    nearest = np.linalg.norm(points - grasp, axis=1).min()
    assert nearest < 0.03
    # The robot is cut out: nothing is left where the hand is, above the tool that points down.
    for frame in range(len(read)):
        points, _ = lifted(read, frame)
        hand = read.position[frame] + np.linspace(0.06, 0.2, 8)[:, None] * [0.0, 0.0, 1.0]
        assert np.linalg.norm(points[:, None] - hand, axis=-1).min() > 0.04
    assert read.gripper[0] == 1 and read.gripper[-1] == 0
    tool = Rotation.from_quat(read.rotation, scalar_first=True).apply([0, 0, 1])
    assert np.all(tool[:, 2] < -0.9)
