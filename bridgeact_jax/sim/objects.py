"""Kinds of things that lie or stand on the table, with sizes and colours that vary by episode."""

import mujoco
import numpy as np

from bridgeact_jax.sim.world import World

BOX = mujoco.mjtGeom.mjGEOM_BOX
CONTACT = (0.006, 1.0)  # solref: firm, yet three timesteps long, so that pressing stays stable
FRICTION = (0.8, 0.005, 0.0001)
SMOOTH = (0.3, 0.005, 0.0001)
WORKSPACE_LOW, WORKSPACE_HIGH = (0.35, -0.25), (0.65, 0.25)
VARIATION = 0.12  # of every size, as a factor

COLOURS = {
    "red": (0.86, 0.20, 0.16, 1),
    "blue": (0.16, 0.42, 0.80, 1),
    "yellow": (0.95, 0.76, 0.18, 1),
    "green": (0.25, 0.58, 0.36, 1),
    "purple": (0.52, 0.30, 0.66, 1),
    "orange": (0.93, 0.50, 0.16, 1),
    "white": (0.90, 0.90, 0.88, 1),
    "grey": (0.42, 0.45, 0.50, 1),
}


class Thing:
    """A kind of thing: how it is built, what size it may have and how it is placed.

    Args:
      low: (2,) metres, least x and y of its centre.
      high: (2,) metres, likewise the largest.
      turn: radians, largest yaw to either side.
    """

    def __init__(
        self, *, low: tuple = WORKSPACE_LOW, high: tuple = WORKSPACE_HIGH, turn: float = 0.7
    ):
        self.low, self.high, self.turn = np.array(low), np.array(high), turn

    def build(self, spec: mujoco.MjSpec, name: str) -> None:
        """Add body `name` at its nominal size; the names of all its geoms begin with `name`."""
        raise NotImplementedError

    def draw_size(self, rng: np.random.Generator) -> np.ndarray:
        """An episode's sizes, metres; their meaning is the kind's own."""
        raise NotImplementedError

    def radius(self, size: np.ndarray) -> float:
        """Radius in metres of the circle it needs on the table."""
        raise NotImplementedError

    def place(self, world: World, name: str, placed) -> None:
        """Write pose, size and colour of a `Placed` into the world, all that episodes vary."""
        raise NotImplementedError


class Box(Thing):
    """A free box. Size: half sizes (3,); one random factor for all three.

    A smooth box slides on whatever touches it, the fingers too.
    """

    def __init__(
        self, half: tuple = (0.0225, 0.0225, 0.0225), *, smooth: bool = False, **region
    ):
        super().__init__(**region)
        self.half = np.array(half)
        self._surface = {"friction": SMOOTH, "priority": 2} if smooth else {"friction": FRICTION}

    def build(self, spec, name):
        body = spec.worldbody.add_body(name=name)
        body.add_freejoint(name=name)
        body.add_geom(
            name=name, type=BOX, size=self.half, mass=0.1, condim=4, solref=CONTACT,
            **self._surface,
        )

    def draw_size(self, rng):
        return self.half * scale(rng)

    def radius(self, size):
        return float(np.hypot(*size[:2]))

    def place(self, world, name, placed):
        world.resize(name, placed.size)
        world.paint(name, COLOURS[placed.colour])
        world.put(name, np.array([*placed.xy, placed.size[2]]), placed.yaw)


class Post(Thing):
    """A fixed square post. Size: half width and height (2,); its frame is at the foot."""

    half, height = 0.015, 0.12

    def build(self, spec, name):
        body = spec.worldbody.add_body(name=name, mocap=True)
        _add_fixed_box(body, name, (0, 0, self.height / 2), (self.half, self.half, self.height / 2))

    def draw_size(self, rng):
        return np.array([self.half * scale(rng), self.height * scale(rng)])

    def radius(self, size):
        return float(size[0] * np.sqrt(2))

    def place(self, world, name, placed):
        half, height = placed.size
        world.resize(name, np.array([half, half, height / 2]), np.array([0, 0, height / 2]))
        world.paint(name, COLOURS[placed.colour])
        world.put(name, np.array([*placed.xy, 0.0]), placed.yaw)


class Bay(Thing):
    """Three fixed rims around a part of the table, open towards the body's own -x.

    Size: half length along x, half width along y (both inside the rims), height of the rims (3,).
    """

    thickness, sides = 0.01, ((1, 0), (0, 1), (0, -1))

    def __init__(self, inner: tuple = (0.042, 0.044), height: float = 0.03, **region):
        super().__init__(**region)
        self.inner, self.height = np.array(inner), height

    def build(self, spec, name):
        body = spec.worldbody.add_body(name=name, mocap=True)
        for i, (position, half) in enumerate(self._walls(np.array([*self.inner, self.height]))):
            _add_fixed_box(body, f"{name}_wall{i}", position, half)

    def draw_size(self, rng):
        return np.array([*self.inner * scale(rng), self.height * scale(rng)])

    def radius(self, size):
        return float(np.hypot(*size[:2] + self.thickness))

    def place(self, world, name, placed):
        for i, (position, half) in enumerate(self._walls(placed.size)):
            world.resize(f"{name}_wall{i}", half, position)
            world.paint(f"{name}_wall{i}", COLOURS[placed.colour])
        world.put(name, np.array([*placed.xy, 0.0]), placed.yaw)

    def _walls(self, size: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Centre and half sizes of each wall; those along x are longer by the corners."""
        inner, height, half = size[:2], size[2], self.thickness / 2
        walls = []
        for side in self.sides:
            across = np.array(side) != 0
            centre = np.array(side) * (inner + half)
            extent = np.where(across, half, inner + (self.thickness if across[1] else 0))
            walls.append((np.array([*centre, height / 2]), np.array([*extent, height / 2])))
        return walls


class Bin(Bay):
    """Four walls; the table is the floor. Size: half lengths inside (equal) and height (3,)."""

    sides = ((1, 0), (-1, 0), (0, 1), (0, -1))

    def __init__(self, inner: tuple = (0.07, 0.07), height: float = 0.05, **region):
        super().__init__(inner, height, **region)


def scale(rng: np.random.Generator) -> float:
    """A random factor of size."""
    return rng.uniform(1 - VARIATION, 1 + VARIATION)


def _add_fixed_box(body, name: str, position: np.ndarray, half: np.ndarray) -> None:
    body.add_geom(name=name, type=BOX, pos=position, size=half, contype=0, solref=CONTACT)
