"""A recorded RGB-D stream sent to a policy server, as if the file were the robot.

Frames go out at the recorded pace; one that falls due while an answer is awaited is skipped, as a
robot would. The recorded arm does not obey: what is shown is that the whole chain answers, how
fast, and how far its chunks lie from what the arm then did.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

from bridgeact_jax.errors import UserError
from bridgeact_jax.serving.client import Client, read_token
from bridgeact_jax.serving.limiter import PERIOD
from bridgeact_jax.serving.recording import Recording, lifted, observation, read_recording
from bridgeact_jax.serving.rerun_log import RerunLog

PERCENTILES = (50, 95, 99)
LOGGED_POINTS = 20_000  # of a cloud in the log, at most


class Answer(NamedTuple):
    """What came back for a frame; seconds from sending to receiving."""

    frame: int
    seconds: float
    reply: dict

    @property
    def actions(self) -> np.ndarray | None:
        """(H, 8) poses to go to; None where the arm was told nothing but to hold."""
        return self.reply["actions"] if self.reply["status"] == "ok" else None


def define_flags() -> None:
    """Flags of `bridgeact play`."""
    flags.DEFINE_string("stream", None, "the recorded stream, .npz; `bridgeact record` makes one")
    flags.DEFINE_string("url", "ws://127.0.0.1:8000", "of the server")
    flags.DEFINE_string("token_file", None, "holds the server's token (or BRIDGEACT_TOKEN)")
    flags.DEFINE_float(
        "speed", 1.0, "of the playback; 0 sends each frame when the last is answered", lower_bound=0
    )
    flags.DEFINE_bool("plan", True, "send the recorded plan; else the server's planner is asked")
    flags.DEFINE_string("log", None, "write what was seen and answered for the Rerun viewer, .rrd")
    flags.mark_flag_as_required("stream")


def main(argv: list[str]) -> None:
    """Entry point of `bridgeact play`."""
    del argv
    args = flags.FLAGS
    recording = read_recording(args.stream)
    with RerunLog(args.log) if args.log else contextlib.nullcontext() as log:
        with Client(args.url, token=read_token(args.token_file)) as client:
            answers = list(play(recording, client.infer, speed=args.speed, planned=args.plan))
        if log is not None:
            write_log(log, Path(args.stream).stem, recording, answers)
    print(summary(recording, answers))
    if not any(answer.actions is not None for answer in answers):
        last = answers[-1].reply
        raise UserError(
            f"no frame was answered with actions; the last answer was '{last['status']}'"
            + (f": {last['message']}" if last.get("message") else "")
        )


def play(
    recording: Recording,
    infer: Callable[[dict], dict],
    *,
    speed: float = 1.0,
    planned: bool = True,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Answer]:
    """Send the frames to `infer` and yield what it answers.

    Args:
      speed: recorded seconds a second; 0 does not wait and skips nothing.
      planned: send the recorded plan. Without, the colours are sent for the server's planner.
    """
    began, first, frame = clock(), recording.time[0], 0
    while frame < len(recording):
        due = recording.time[frame] - first
        if speed:
            sleep(max(began + due / speed - clock(), 0.0))
        planned = planned and recording.plan_position is not None
        told = observation(recording, frame, planned=planned, pictured=not planned)
        told["time"] = float(recording.time[frame])
        sent = clock()
        reply = infer(told)
        received = clock()
        yield Answer(frame, received - sent, reply)
        frame += 1
        if speed:  # of the frames that are due, only the newest is of use
            passed = first + speed * (clock() - began)
            frame = max(frame, int(np.searchsorted(recording.time, passed, side="right")) - 1)


def deviations(recording: Recording, answer: Answer) -> np.ndarray:
    """(H,) metres from the chunk's positions to where the recorded arm then was.

    Rows after the recording's end are left out.
    """
    if answer.actions is None:
        return np.zeros(0)
    times = recording.time[answer.frame] + PERIOD * np.arange(1, len(answer.actions) + 1)
    times = times[times <= recording.time[-1] + 1e-6]
    went = [np.interp(times, recording.time, axis) for axis in recording.position.T]
    return np.linalg.norm(answer.actions[: len(times), :3] - np.stack(went, axis=1), axis=1)


def summary(recording: Recording, answers: list[Answer]) -> str:
    """The figures as lines of text."""
    counts = Counter(answer.reply["status"] for answer in answers)
    took = 1e3 * np.array([answer.seconds for answer in answers])
    lines = [
        f"{len(answers)} of {len(recording)} frames sent: '{recording.prompt}'",
        "answers: " + ", ".join(f"{status} {count}" for status, count in counts.most_common()),
        "round trip: " + _percentiles(took),
    ]
    for name in sorted({name for answer in answers for name in _timing(answer)}):
        spent = np.array([_timing(one)[name] for one in answers if name in _timing(one)])
        lines.append(f"  {name}: " + _percentiles(spent))
    limited = sum((Counter(answer.reply.get("limited", {})) for answer in answers), Counter())
    if limited:
        reasons = ", ".join(f"{reason} {count}" for reason, count in limited.most_common())
        lines.append(f"rows limited: {reasons}")
    off = [deviations(recording, answer) for answer in answers]
    next_rows = [1e3 * rows[0] for rows in off if len(rows)]
    if next_rows:
        lines.append(
            f"from the recorded motion: {np.mean(next_rows):.1f} mm at the next step, "
            f"{1e3 * np.mean(np.concatenate(off)):.1f} mm over the chunks, on average"
        )
    return "\n".join(lines)


def write_log(log: RerunLog, name: str, recording: Recording, answers: list[Answer]) -> None:
    """Log the frames that were sent and what came back, as the stream `name`."""
    curve = _curve(recording)
    for answer in answers:
        frame = answer.frame
        at = float(recording.time[frame])
        log.picture(
            name, frame, time=at, depth=recording.depth[frame],
            intrinsics=recording.intrinsics, camera_pose=recording.camera_pose[frame],
            image=None if recording.image is None else recording.image[frame],
        )
        points, colours = lifted(recording, frame)
        thin = slice(None, None, -(-len(points) // LOGGED_POINTS) or 1)
        log.step(
            name, frame, time=at, position=recording.position[frame], cloud=points[thin],
            colours=None if colours is None else colours[thin], guidance=curve,
            actions=answer.actions,
        )


def _curve(recording: Recording) -> np.ndarray | None:
    """(P, 3) points of the recorded plan's guidance, None without a plan."""
    if recording.plan_position is None:
        return None
    from bridgeact_jax.geometry.guidance import Waypoints  # JAX: for the log alone
    from bridgeact_jax.sim.follower import guidance_of

    position, rotation, gripper = (
        np.concatenate([np.asarray(start, np.float32)[None], np.asarray(rest, np.float32)])
        for start, rest in (
            (recording.position[0], recording.plan_position),
            (recording.rotation[0], recording.plan_rotation),
            (1.0, recording.plan_gripper),
        )
    )
    plan = Waypoints(position, rotation, gripper, np.int32(len(position)))
    return np.asarray(guidance_of(plan).position)


def _timing(answer: Answer) -> dict[str, float]:
    return answer.reply.get("policy_timing", {}) | answer.reply.get("server_timing", {})


def _percentiles(milliseconds: np.ndarray) -> str:
    values = np.percentile(milliseconds, PERCENTILES)
    return ", ".join(f"p{p} {value:.1f}" for p, value in zip(PERCENTILES, values, strict=True)) + (
        " ms"
    )
