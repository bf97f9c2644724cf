"""Things that move on joints, and holes that things fit into: button, cabinet, socket.

All of them stand on the table, the origin of their body in the middle of their foot.
"""

from typing import NamedTuple

import mujoco
import numpy as np

from bridgeact_jax.sim.objects import BOX, COLOURS, CONTACT, Thing, scale

_WOOD, _GREY, _DARK = (0.66, 0.50, 0.34, 1), (0.72, 0.74, 0.77, 1), (0.30, 0.32, 0.36, 1)
_PART_MASS = 0.08  # kg
_SLIDE = mujoco.mjtJoint.mjJNT_SLIDE


class _Part(NamedTuple):
    """A box between two corners (3,), metres, the fixed body's frame; no colour: the thing's."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    colour: tuple[float, ...] | None = None


class _Mechanism(Thing):
    """A fixed body and one that slides in it, joint `NAME`. Size: one factor (1,) of all parts.

    Attributes:
      mover: the sliding body is `NAME_mover`.
      origin: (3,) metres, of the sliding body's frame while the joint is at zero.
    """

    mover: str
    origin: tuple[float, float, float]

    def fixed_parts(self, factor: float) -> dict[str, _Part]:
        """Boxes of the fixed body by name."""
        raise NotImplementedError

    def moving_parts(self, factor: float) -> dict[str, _Part]:
        """Boxes of the sliding body by name, where they are while the joint is at zero."""
        raise NotImplementedError

    def add_joint(self, body, name: str) -> None:
        """Give the sliding body its joint."""
        raise NotImplementedError

    def build(self, spec, name):
        fixed = spec.worldbody.add_body(name=name, mocap=True)
        moving = fixed.add_body(name=f"{name}_{self.mover}", pos=self.origin)
        self.add_joint(moving, name)
        for part, (centre, half, _) in self._boxes(1.0).items():
            body = moving if part in self.moving_parts(1.0) else fixed
            body.add_geom(
                name=f"{name}_{part}", type=BOX, pos=centre, size=half, contype=0, solref=CONTACT,
                mass=_PART_MASS,
            )

    def draw_size(self, rng):
        return np.array([scale(rng)])

    def place(self, world, name, placed):
        for part, (centre, half, colour) in self._boxes(placed.size[0]).items():
            world.resize(f"{name}_{part}", half, centre)
            world.paint(f"{name}_{part}", colour or COLOURS[placed.colour])
        world.put(name, np.array([*placed.xy, 0.0]), placed.yaw)
        world.set_joint(name, 0.0)

    def _boxes(self, factor: float) -> dict[str, tuple]:
        """Centre in its body's frame, half sizes and colour of each part."""
        boxes = {}
        for parts, origin in (
            (self.fixed_parts(factor), np.zeros(3)),
            (self.moving_parts(factor), np.array(self.origin)),
        ):
            for name, part in parts.items():
                low, high = np.array(part.low), np.array(part.high)
                boxes[name] = ((low + high) / 2 - origin, (high - low) / 2, part.colour)
        return boxes


class Button(_Mechanism):
    """A cap that a spring pushes out of its base. The joint's value: metres that it is in.

    The frame of the body `NAME_cap` lies in the middle of the nominal cap's top.
    """

    travel = 0.016
    mover, origin = "cap", (0.0, 0.0, 0.050)
    _stiffness, _preload, _damping = 400.0, 0.006, 8.0  # N/m; m, squeezed at rest; N s/m

    def add_joint(self, body, name):
        body.add_joint(
            name=name, type=_SLIDE, axis=(0, 0, -1), limited=1, range=(0, self.travel),
            stiffness=self._stiffness, springref=-self._preload, damping=self._damping,
            solref_limit=CONTACT,
        )

    def fixed_parts(self, factor):
        half, height = 0.036 * factor, 0.030 * factor
        return {"base": _Part((-half, -half, 0), (half, half, height), _DARK)}

    def moving_parts(self, factor):
        half = 0.019 * factor
        return {"top": _Part((-half, -half, 0.018), (half, half, self.cap_top(factor)))}

    def cap_top(self, factor: float) -> float:
        """Height of the cap's top when nothing presses it."""
        return self.origin[2] * factor

    def radius(self, size):
        return float(0.036 * size[0] * np.sqrt(2))


class Cabinet(_Mechanism):
    """A cabinet with one drawer, which slides out along the body's -x, `travel` metres at most.

    The frame of the body `NAME_drawer` lies in the handle, where a hand from above grips it. The
    handle is an upright bar in front of the drawer.
    """

    travel = 0.11
    depth = 0.14
    reach = 0.055  # from the drawer's front to the middle of the bar
    panel = 0.01
    mover, origin = "drawer", (-(depth / 2 + panel + reach), 0.0, 0.055)
    _friction, _damping = 2.0, 6.0  # N; N s/m

    def __init__(self, *, turn: float = 0.3, **region):
        super().__init__(turn=turn, **region)

    def add_joint(self, body, name):
        body.add_joint(
            name=name, type=_SLIDE, axis=(-1, 0, 0), limited=1, range=(0, self.travel),
            frictionloss=self._friction, damping=self._damping, solref_limit=CONTACT,
        )

    def fixed_parts(self, factor):
        x, y, z, t = self.depth / 2, 0.076 * factor, 0.085 * factor, self.panel
        return {
            "roof": _Part((-x, -y, z - t), (x, y, z), _WOOD),
            "left": _Part((-x, y - t, 0), (x, y, z - t), _WOOD),
            "right": _Part((-x, -y, 0), (x, t - y, z - t), _WOOD),
            "back": _Part((x - t, t - y, 0), (x, y - t, z - t), _WOOD),
        }

    def moving_parts(self, factor):
        low, high = self.inside(np.array([factor]))
        t, front, handle = self.panel, -self.depth / 2, self.origin[0]
        across, along, stem = 0.014 * factor, 0.017 * factor, 0.007 * factor
        y = high[1] + t
        return {
            "floor": _Part((low[0], -y, 0.002), (high[0] + t, y, low[2]), _GREY),
            "side0": _Part((low[0], high[1], low[2]), (high[0] + t, y, high[2]), _GREY),
            "side1": _Part((low[0], -y, low[2]), (high[0] + t, low[1], high[2]), _GREY),
            "rear": _Part((high[0], low[1], low[2]), (high[0] + t, high[1], high[2]), _GREY),
            "front": _Part((front - t, -y, 0.002), (front, y, 0.068 * factor)),
            "stem": _Part((handle + along, -stem, 0.03), (front - t, stem, 0.03 + 2 * stem)),
            "handle": _Part(
                (handle - along, -across, 0.02), (handle + along, across, 0.082 * factor)
            ),
        }

    def inside(self, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Corners (3,) and (3,) of the room inside the closed drawer, the cabinet's frame."""
        x, y = self.depth / 2, 0.055 * size[0]
        return (
            np.array([-x, -y, 0.012 * size[0]]),
            np.array([x - 0.02, y, 0.05 * size[0]]),
        )

    def radius(self, size):
        return float(np.hypot(self.depth / 2, 0.076 * size[0]))


class Socket(Thing):
    """A fixed block with a square hole down to the table, its edge chamfered.

    Size: half width of the hole, half width of the block, height of its walls (3,), metres.
    """

    _chamfer, _thickness, _lean = 0.006, 0.003, np.pi / 4  # half sizes of its plates, m; rad
    _slippery = dict(friction=(0.3, 0.005, 0.0001), priority=1)
    _nominal = np.array([0.0155, 0.036, 0.035])

    def build(self, spec, name):
        body = spec.worldbody.add_body(name=name, mocap=True)
        for part, (centre, half, turn) in self._parts(self._nominal).items():
            body.add_geom(
                name=f"{name}_{part}", type=BOX, pos=centre, size=half, quat=turn, contype=0,
                solref=CONTACT, **self._slippery,
            )

    def draw_size(self, rng):
        return np.array([self._nominal[0], *self._nominal[1:] * scale(rng)])

    def radius(self, size):
        return float(size[1] * np.sqrt(2))

    def place(self, world, name, placed):
        for part, (centre, half, _) in self._parts(placed.size).items():
            world.resize(f"{name}_{part}", half, centre)
            world.paint(f"{name}_{part}", COLOURS[placed.colour])
        world.put(name, np.array([*placed.xy, 0.0]), placed.yaw)

    def _parts(self, size: np.ndarray) -> dict[str, tuple]:
        """Centre, half sizes and rotation of the four walls and the plates that lean on them."""
        hole, outer, height = size
        wall = (outer - hole) / 2
        across, along = np.cos(self._lean), np.sin(self._lean)
        plate_out = hole + self._chamfer * along + self._thickness * across
        plate_up = height + self._chamfer * across - self._thickness * along
        plate = np.array([
            self._thickness, hole + 2 * self._chamfer * along, self._chamfer,
        ])
        parts = {}
        for i in range(4):
            yaw = i * np.pi / 2
            out = np.array([np.cos(yaw), np.sin(yaw)])
            turn = np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])
            parts[f"wall{i}"] = (
                np.array([*out * (hole + wall), height / 2]),
                np.array([wall, outer if i % 2 else hole, height / 2]), turn,
            )
            lean = np.array([np.cos(self._lean / 2), 0.0, np.sin(self._lean / 2), 0.0])
            tilted = np.empty(4)
            mujoco.mju_mulQuat(tilted, turn, lean)
            parts[f"edge{i}"] = (np.array([*out * plate_out, plate_up]), plate, tilted)
        return parts
