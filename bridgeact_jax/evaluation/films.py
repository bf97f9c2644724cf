"""Episodes filmed by sending their commands again: what the policy worked with, and a picture."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from bridgeact_jax.errors import UserError
from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.evaluation.drawing import draw_scene, draw_words
from bridgeact_jax.evaluation.episodes import act, cloud, environment
from bridgeact_jax.evaluation.kept import VIDEOS
from bridgeact_jax.evaluation.media import Media, encode
from bridgeact_jax.evaluation.statistics import succeeded
from bridgeact_jax.files import write_bytes
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.sim.environment import Environment
from bridgeact_jax.sim.follower import guidance_of

FRAMES = 40  # of a video, at most
CONTROL_RATE = 10  # Hz


class Film(NamedTuple):
    """An episode to film: its record, (T, 8) commands and plans, for the file `name`."""

    out: Path
    name: str
    label: str
    condition: Condition
    record: dict
    commands: np.ndarray
    plans: list[tuple[int, Waypoints]]
    rendered: bool


def choose(records: list[dict], number: int) -> list[int]:
    """Indices of the first `number` failures and the first `number` successes of each task."""
    taken: dict[tuple[str, bool], int] = {}
    chosen = []
    for index, record in enumerate(records):
        kind = record["task"], succeeded(record)
        taken[kind] = taken.get(kind, 0) + 1
        if taken[kind] <= number:
            chosen.append(index)
    return chosen


def film(order: Film) -> Media:
    """The video, from its file if it has been made before, else made and kept there."""
    record = order.record
    path = order.out / VIDEOS / f"{order.name}.webp"
    if not path.exists():
        every = max(1, -(-len(order.commands) // FRAMES))
        frames = _frames(order, every)
        write_bytes(path, encode(frames, frames_per_second=CONTROL_RATE / every))
    caption = f"{record['task']}, episode {record['episode']}"
    if not succeeded(record):
        blame = f" (to blame: {record['cause']})" if record.get("cause") else ""
        caption += f": {record['failure_kind']}{blame}"
    return Media(
        caption.replace("_", " "),
        path.read_bytes(),
        "image/webp",
        order.label,
        succeeded(record),
    )


def _frames(order: Film, every: int) -> list[np.ndarray]:
    condition, episode = order.condition, order.record["episode"]
    env = environment(condition, order.record["task"])
    observation = env.reset(condition.seed, episode)
    waypoints = curve = observation.position[None]  # until there is a plan
    issued = dict(order.plans)
    path, frames = [], []
    for step in range(len(order.commands) + 1):
        if step in issued:
            plan = issued[step]
            waypoints = plan.position[: int(plan.count)]
            curve = np.asarray(guidance_of(plan).position)
        path.append(observation.position)
        if step % every == 0 or step == len(order.commands):
            drawn = draw_scene(
                cloud(env, condition, episode),
                waypoints,
                curve,
                np.array(path),
                observation.gripper_width,
            )
            sides = [env.render(), drawn] if order.rendered else [drawn]
            if condition.reasons:
                sides.append(draw_words(env.front(), env.instruction, order.record["words"]))
            frames.append(np.concatenate(sides, axis=1))
        if step < len(order.commands):
            observation = act(env, order.commands[step])
    return frames


def can_render() -> str | None:
    """None if pictures can be made here, else what to do about it."""
    try:
        env = Environment("lift")
        env.reset(0, 0)
        env.render(64, 48)
    except UserError as error:
        return str(error)
    return None
