"""A parallel gripper for arms without a hand: it opens 85 mm and its faces are 22 mm wide."""

import mujoco

from bridgeact_jax.sim.arms.arm import (
    LEFT_FINGER,
    RIGHT_FINGER,
    TCP_SITE,
    add_finger,
    add_finger_box,
    couple_fingers,
)

MAX_WIDTH = 0.085  # metres between the fingers when open
TOOL_LENGTH = 0.150  # metres from the flange to the tool frame
FLOOR = 0.008  # metres; lowest height of the tool frame
_PAD_BELOW_TOOL = 0.006
_FINGERS_START = 0.090  # metres from the flange
_PALM_HALF = (0.036, 0.058, 0.044)
_PALM_MASS, _FINGER_MASS = 0.8, 0.06
_COLOUR = (0.20, 0.21, 0.23, 1)
# Per part of a finger: half width, half depth, from and to in metres below its start, friction.
_TIP = TOOL_LENGTH + _PAD_BELOW_TOOL - _FINGERS_START
_PARTS = (
    ("pad", 0.011, 0.005, _TIP - 0.028, _TIP, 2.0),
    ("block", 0.008, 0.006, 0.0, _TIP - 0.028, 0.5),
)


def add_gripper(spec: mujoco.MjSpec, body, pos, quat, fingers: bool, group: int) -> None:
    """Mount it on a body at a flange whose z axis points away from the arm.

    Args:
      pos: (3,) metres, of the flange in the body.
      quat: (4,) wxyz, likewise.
      fingers: with fingers and their servo.
      group: of its geoms.
    """
    # MuJoCo's own defaults, not those that the arm's model sets for its bodies.
    hand = body.add_body(name="hand", pos=pos, quat=quat, gravcomp=1, childclass="main")
    look = dict(group=group, rgba=_COLOUR)
    hand.add_geom(
        name="palm", type=mujoco.mjtGeom.mjGEOM_BOX, pos=(0, 0, _PALM_HALF[2]), size=_PALM_HALF,
        mass=_PALM_MASS, contype=1, conaffinity=0, **look,
    )
    hand.add_site(name=TCP_SITE, pos=(0, 0, TOOL_LENGTH), size=(0.005, 0.005, 0.005))
    if not fingers:
        return
    travel = MAX_WIDTH / 2
    for name, turned in ((LEFT_FINGER, (1, 0, 0, 0)), (RIGHT_FINGER, (0, 0, 0, 1))):
        finger = add_finger(hand, name, (0, 0, _FINGERS_START), turned, travel)
        for part, half_width, half_depth, start, end, friction in _PARTS:
            add_finger_box(
                finger, part, (0, half_depth, (start + end) / 2),
                (half_width, half_depth, (end - start) / 2), mass=_FINGER_MASS / 2,
                friction=friction, **look,
            )
    couple_fingers(spec, travel)
