"""What disturbs the world during an episode: clutter, a target that drifts, a post that rises."""

from collections.abc import Callable, Sequence

import mujoco
import numpy as np

from bridgeact_jax.sim.disturbances import Disturbance
from bridgeact_jax.sim.objects import CONTACT, FRICTION
from bridgeact_jax.sim.tasks.base import Layout, Step, Task
from bridgeact_jax.sim.world import DENSITY, World

OBSTACLE = "obstacle"
OBSTACLE_HALF, OBSTACLE_HEIGHT, RISE_TIME = 0.02, 0.45, 0.3  # metres, metres, seconds
_SUNK = -0.05  # metres; height of the obstacle's top before it rises
_ABOVE_PATH = 0.03  # metres by which it blocks the path: the fingers' way, not the hand's
_FROM_START, _FROM_END = 0.10, 0.06  # metres along the path, horizontally, at least
_SET_OUT = 0.02  # metres after which the arm counts as on its way
_NEVER_UNDER = 0.06  # metres from the tool, horizontally, within which it does not begin to rise

CLUTTER_HALVES = (  # metres, half sizes; all low enough to pass under a carried object
    (0.020, 0.020, 0.020), (0.030, 0.014, 0.012), (0.016, 0.016, 0.025), (0.024, 0.018, 0.016),
)
_CLUTTER_COLOUR = (0.50, 0.42, 0.36, 1)
_CLUTTER_GAP = 0.03  # metres to the room that things need
_LOW_PATH, _BESIDE_PATH = 0.15, 0.09  # metres: height of a path that clutter leaves free, distance

_DRIFT_LOW, _DRIFT_HIGH = np.array([0.32, -0.28]), np.array([0.68, 0.28])
_DRIFT_SECONDS = 10.0  # of free way that a drifting target's direction should have
_DRIFT_GAP = 0.02


def clutter_names(distractors: int) -> tuple[str, ...]:
    """Names of the additional objects' bodies."""
    return tuple(f"clutter{i}" for i in range(distractors))


def add_bodies(spec: mujoco.MjSpec, distractors: int, obstacle: int) -> None:
    """Add additional objects and the obstacle to a model under construction, after all else."""
    box = mujoco.mjtGeom.mjGEOM_BOX
    for name, half in zip(clutter_names(distractors), CLUTTER_HALVES, strict=False):
        body = spec.worldbody.add_body(name=name)
        body.add_freejoint(name=name)
        body.add_geom(
            name=name, type=box, size=half, density=DENSITY, condim=4, friction=FRICTION,
            solref=CONTACT, rgba=_CLUTTER_COLOUR,
        )
    if obstacle:
        body = spec.worldbody.add_body(name=OBSTACLE, mocap=True, pos=(0, 0, _SUNK))
        body.add_geom(
            name=OBSTACLE, type=box, size=(OBSTACLE_HALF, OBSTACLE_HALF, OBSTACLE_HEIGHT / 2),
            pos=(0, 0, -OBSTACLE_HEIGHT / 2), contype=0, solref=CONTACT, rgba=(0.15, 0.15, 0.17, 1),
        )


class Events:
    """The disturbances of one episode that happen in the world.

    Make it when the task's things have been placed and the physics is up to date; then `substep`
    before every physics step.

    Args:
      plan: what a perfect planner says at the start; clutter leaves its low parts free, and the
        obstacle stands on it.
      rng: (axis name) -> generator of that axis for this episode.
    """

    def __init__(
        self, disturbance: Disturbance, task: Task, layout: Layout, world: World,
        plan: Sequence[Step], rng: Callable[[str], np.random.Generator],
    ):
        self._world = world
        self._circles = [
            (placed.xy, task.things[name].radius(placed.size))
            for name, placed in layout.things.items()
        ]
        path = np.array([layout.start, *(step.position for step in plan)])
        if disturbance.distractors:
            self._scatter(disturbance.distractors, path, rng("distractors"))
        self.drift = self.obstacle = None
        # What a target is part of; what begins inside another thing stays there.
        things = [_root(world, name) for name in task.targets]
        movable = [name for name in things if name not in task.inside]
        if disturbance.target_speed and movable:
            first = list(layout.things).index(movable[0])
            self.drift = Drift(
                world, movable[0], disturbance.target_speed, self._circles[first][1],
                self._circles[:first] + self._circles[first + 1 :], rng("target_speed"),
            )
        if disturbance.obstacle:
            grippers = [1.0, *(step.gripper for step in plan)]
            self.obstacle = Obstacle(world, path, grippers, self._circles, rng("obstacle"))

    def substep(self, seconds: float) -> None:
        """Move what moves by itself."""
        if self.drift is not None:
            self.drift.substep(seconds)
        if self.obstacle is not None:
            self.obstacle.substep(seconds)

    @property
    def struck(self) -> bool:
        """Whether the robot touches the obstacle."""
        return self.obstacle is not None and self._world.touched(OBSTACLE)

    def _scatter(self, count: int, path: np.ndarray, rng: np.random.Generator) -> None:
        """Clutter beside the things and beside the low parts of the path."""
        low = np.minimum(path[:-1, 2], path[1:, 2]) < _LOW_PATH
        segments = list(zip(path[:-1][low, :2], path[1:][low, :2], strict=True))
        for name, half in zip(clutter_names(count), CLUTTER_HALVES, strict=False):
            radius, reach = np.hypot(*half[:2]), 0.0
            while True:
                reach += 0.001  # ever wider around the table's middle until there is room
                xy = rng.uniform([0.33 - reach / 3, -0.27 - reach], [0.67 + reach, 0.27 + reach])
                apart = all(
                    np.linalg.norm(xy - there) > radius + room + _CLUTTER_GAP
                    for there, room in self._circles
                )
                if apart and all(_to_segment(xy, *ends) > _BESIDE_PATH for ends in segments):
                    break
            self._circles.append((xy, radius))
            self._world.put(name, np.array([*xy, half[2]]), rng.uniform(-np.pi, np.pi))


class Drift:
    """A thing that slides over the table in one direction until the robot touches it.

    It takes along what hangs on it, keeps `radius` metres clear of `circles` ((2,) centre and
    radius) and stops where its free way ends.
    """

    def __init__(self, world: World, thing: str, speed: float, radius, circles, rng) -> None:
        self._world, self._body = world, thing
        names = [world.model.body(i).name for i in range(1, world.model.nbody)]
        self._parts = [name for name in names if _root(world, name) == thing]
        start = world.position(thing)[:2]
        best, radius = -1.0, radius + _DRIFT_GAP
        for angle in rng.uniform(-np.pi, np.pi, 24):
            direction = np.array([np.cos(angle), np.sin(angle)])
            way = _free_way(start, direction, radius, circles)
            if way > best:
                best, self.velocity = way, speed * np.array([*direction, 0.0])
            if way >= speed * _DRIFT_SECONDS:
                break
        self._seconds_left = best / speed

    def substep(self, seconds: float) -> None:
        """Move on, unless it has been touched or has reached the end of its way."""
        if self._seconds_left <= 0:
            return
        if any(self._world.touched(name) for name in self._parts):
            self._seconds_left = 0.0
            return
        self._seconds_left -= seconds
        self._world.shift(self._body, self.velocity * seconds)


class Obstacle:
    """A post that rises on the first stretch of the path that has room for it, if one has.

    It waits under the table until the arm has set out on that stretch. `grippers` are the plan's,
    so that a stretch after a grasp counts only after the hand has closed.
    """

    def __init__(self, world: World, path, grippers, circles, rng) -> None:
        self._world, self._risen, self._rising = world, 0.0, False
        self.spot, start, along = _free_spot(path, circles, rng)
        if self.spot is None:
            return
        a, b = path[start], path[start + 1]
        share = along / np.linalg.norm(b[:2] - a[:2])
        self._height = min(a[2] + share * (b[2] - a[2]) + _ABOVE_PATH, OBSTACLE_HEIGHT)
        self._yaw = float(np.arctan2(*(b - a)[1::-1]))
        self._within = along - _SET_OUT
        self._changes_to_come = int(np.abs(np.diff(np.round(grippers[: start + 1]))).sum())
        self._open = world.gripper_open

    def substep(self, seconds: float) -> None:
        """Rise to full height within `RISE_TIME` once the arm is on its way."""
        if self.spot is None or self._risen == 1:
            return
        if not self._rising:
            self._rising = self._on_its_way()
            return
        self._risen = min(self._risen + seconds / RISE_TIME, 1.0)
        top = _SUNK + self._risen * (self._height - _SUNK)
        self._world.put(OBSTACLE, np.array([*self.spot, top]), self._yaw)

    def _on_its_way(self) -> bool:
        if self._world.gripper_open != self._open:
            self._open = self._world.gripper_open
            self._changes_to_come -= 1
        distance = np.linalg.norm(self._world.tool[:2] - self.spot)
        return self._changes_to_come <= 0 and bool(_NEVER_UNDER < distance < self._within)


def _root(world: World, body: str) -> str:
    """Name of the body on the table that a body is part of."""
    model = world.model
    return model.body(model.body_rootid[model.body(body).id]).name


def _free_spot(path, circles, rng) -> tuple[np.ndarray | None, int, float]:
    """A point (2,) clear of the circles, the number of its stretch and metres from its start."""
    for i, (a, b) in enumerate(zip(path[:-1, :2], path[1:, :2], strict=True)):
        length = np.linalg.norm(b - a)
        if length < _FROM_START + _FROM_END:
            continue
        # In the second half, so that there is time to go round it.
        for along in rng.uniform(max(_FROM_START, length / 2), length - _FROM_END, 10):
            spot = a + (b - a) * along / length
            if all(
                np.linalg.norm(spot - there) > room + OBSTACLE_HALF * np.sqrt(2)
                for there, room in circles
            ):
                return spot, i, along
    return None, 0, 0.0


def _free_way(start, direction, radius, circles) -> float:
    """Metres that a disc can go before it meets a circle or leaves the drift's region."""
    with np.errstate(divide="ignore"):
        walls = np.where(direction > 0, _DRIFT_HIGH - start, _DRIFT_LOW - start) / direction
    way = max(float(walls.min()), 0.0)
    for there, room in circles:
        offset = there - start
        ahead, reach = offset @ direction, room + radius
        aside_squared = offset @ offset - ahead**2
        if ahead > 0 and aside_squared < reach**2:
            way = min(way, max(ahead - np.sqrt(reach**2 - aside_squared), 0.0))
    return way


def _to_segment(point, a, b) -> float:
    """Distance of a point (2,) to a line segment."""
    along = b - a
    share = np.clip((point - a) @ along / max(along @ along, 1e-12), 0, 1)
    return float(np.linalg.norm(point - a - share * along))
