"""From a card's TOML tables to a `Card`."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from bridgeact_jax.datasets.card_format import (
    Camera,
    Card,
    Clock,
    Cloud,
    Column,
    Gripper,
    Limits,
    Position,
    Rotation,
    RotationAction,
    Width,
)
from bridgeact_jax.datasets.card_table import Table
from bridgeact_jax.errors import UserError

EULER_AXES = "a word of 1 to 3 letters x, y, z, no letter twice in a row"
EULER_ORDERS = ("extrinsic", "intrinsic")
ANGLE_UNITS = ("rad", "deg")
QUATERNION_ORDERS = ("wxyz", "xyzw")
MATRIX_ORDERS = ("row", "column", "detect")
ROTATIONS = ("quaternion", "euler", "axis_angle", "matrix")
FRAMES = ("base", "tool", "unknown")
CAMERA_AXES = ("opencv", "opengl")
POSES = ("T_base_camera", "T_camera_base")
THRESHOLDS = {"command": (0.5, 0.5), "width": (0.4, 0.6), "change": (0.25, 0.75)}
RIGID_TOLERANCE = 0.01
UNIT_TOLERANCE = 0.001


def parse_card(content: Mapping[str, Any], path: pathlib.Path, sha256: str) -> Card:
    """The card whose TOML file `path` holds `content`.

    Raises UserError naming file, table and entry for an entry that is missing, unknown or wrong.
    """
    card = Table(content, path)
    facts = {
        "name": card.filled("name"),
        **{key: card.text(key) for key in ("title", "robot", "licence")},
        **{key: card.text(key).strip() for key in ("homepage", "citation")},
        "dataset_names": card.texts("dataset_names"),
        "path": path,
        "sha256": sha256,
    }
    if "refused" in card.rest:
        reason = " ".join(card.filled("refused").split())
        if card.rest:
            raise UserError(f"{card.where}is refused, so it takes no '{card.first_left()}'")
        return Card(**facts, refused=reason)
    parsed = Card(
        **facts,
        position=card.table("position", _position),
        rotation=card.table("rotation", _rotation, None),
        gripper=card.table("gripper", _gripper, None),
        gripper_width=card.table("gripper_width", _width, None),
        clock=card.table("clock", _clock),
        instruction=card.table("instruction", lambda table: Column(**table.column()), None),
        cloud=card.table("cloud", _cloud, None),
        cameras=_cameras(card),
        rotation_action=card.table("rotation_action", _rotation_action, None),
        limits=card.table("limits", _limits, Limits()),
        base_z_up=card.table("base", _base),
        tool_frame=card.table("tool", _tool, None),
    )
    card.finish()
    return parsed


def _position(table: Table) -> Position:
    place = {**table.column(), "scale": table.positive("scale", 1.0)}
    if table.word("convention", ("xyz", "matrix"), "xyz") == "matrix":
        return Position(**place, convention="matrix", order=table.word("order", MATRIX_ORDERS))
    low, high = table.text("low_key", None), table.text("high_key", None)
    if (low is None) != (high is None):
        raise UserError(f"{table.where}'low_key' and 'high_key' belong together: give both")
    return Position(**place, low_key=low, high_key=high)


def _ends(table: Table) -> dict[str, float]:
    closed, opened = table.number("closed"), table.number("open")
    if closed == opened:
        raise UserError(f"{table.where}'closed' and 'open' must differ, both are {opened}")
    return {"closed": closed, "open": opened}


def _is_axes(value: Any) -> bool:
    return (
        isinstance(value, str)
        and 1 <= len(value) <= 3
        and set(value) <= set("xyz")
        and all(a != b for a, b in zip(value, value[1:], strict=False))
    )


def _turn(table: Table, conventions: tuple[str, ...]) -> dict[str, Any]:
    """The entries of a rotation in any of `conventions`."""
    convention = table.word("convention", conventions)
    entries = {"convention": convention, **table.column()}
    if convention == "quaternion":
        entries["order"] = table.word("order", QUATERNION_ORDERS)
    elif convention == "matrix":
        entries["order"] = table.word("order", MATRIX_ORDERS)
    elif convention == "euler":
        entries["order"] = table.word("order", EULER_ORDERS)
        entries["axes"] = table.take("axes", EULER_AXES, _is_axes)
    if convention in ("euler", "axis_angle"):
        entries["unit"] = table.word("unit", ANGLE_UNITS, "rad")
        entries["scale"] = table.positive("scale", 1.0)
    return entries


def _rotation(table: Table) -> Rotation:
    turned = table.numbers("turned", 4)
    if turned is not None and abs(np.linalg.norm(turned) - 1) > UNIT_TOLERANCE:
        raise UserError(f"{table.where}'turned' must be a unit quaternion [w, x, y, z], not "
                        f"{list(turned)}")
    return Rotation(**_turn(table, ROTATIONS), turned=turned)


def _rotation_action(table: Table) -> RotationAction:
    entries = _turn(table, ("euler", "axis_angle"))
    return RotationAction(**entries, frame=table.word("frame", FRAMES))


def _gripper(table: Table) -> Gripper:
    source = table.word("source", tuple(THRESHOLDS))
    thresholds = THRESHOLDS[source]
    if source != "command":
        thresholds = table.numbers("thresholds", 2) or thresholds
        if not 0 <= thresholds[0] <= thresholds[1] <= 1:
            raise UserError(f"{table.where}'thresholds' must be [low, high] within 0 to 1, not "
                            f"{list(thresholds)}")
    return Gripper(**table.column(), **_ends(table), source=source, thresholds=thresholds)


def _width(table: Table) -> Width:
    return Width(**table.column(), **_ends(table))


def _clock(table: Table) -> Clock:
    table.at_most_one("hz", "key")
    if "key" in table.rest:
        hz, key, scale = None, table.text("key"), table.positive("scale", 1.0)
    else:
        hz, key, scale = table.positive("hz"), None, 1.0
    return Clock(hz=hz, key=key, scale=scale, **table.claim())


def _cloud(table: Table) -> Cloud:
    return Cloud(**table.column(), scale=table.positive("scale", 1.0))


def _cameras(card: Table) -> tuple[Camera, ...]:
    cameras = card.tables("cameras", _camera)
    if len({camera.name for camera in cameras}) < len(cameras):
        raise UserError(f"{card.where}two [[cameras]] have the same 'name'")
    return cameras


def _camera(table: Table) -> Camera:
    table.at_most_one("intrinsics", "intrinsics_key")
    table.at_most_one("T_base_camera", "pose_key")
    matrix = table.numbers("T_base_camera", 16)
    if matrix is not None and not _is_rigid(matrix):
        raise UserError(f"{table.where}'T_base_camera' must be the 16 numbers of a homogeneous "
                        "transform, row by row: a rotation, a translation and 0, 0, 0, 1")
    intrinsics = table.numbers("intrinsics", 4)
    if intrinsics is not None and min(intrinsics[:2]) <= 0:
        raise UserError(f"{table.where}'intrinsics' must be [fx, fy, cx, cy] with positive fx, fy")
    pose_key = table.text("pose_key", None)
    return Camera(
        name=table.filled("name"),
        depth=table.text("depth"),
        depth_scale=table.positive("depth_scale", None),
        intrinsics=intrinsics,
        intrinsics_key=table.text("intrinsics_key", None),
        T_base_camera=matrix,
        pose_key=pose_key,
        pose=None if pose_key is None else table.word("pose", POSES),
        axes=table.word("axes", CAMERA_AXES, "opencv"),
        max_depth=table.positive("max_depth", None),
        picture=table.text("picture", None),
        **table.claim(),
    )


def _is_rigid(numbers: tuple[float, ...]) -> bool:
    matrix = np.reshape(numbers, (4, 4))
    turn = matrix[:3, :3]
    return bool(
        np.allclose(matrix[3], [0, 0, 0, 1])
        and np.allclose(turn @ turn.T, np.eye(3), atol=RIGID_TOLERANCE)
        and np.linalg.det(turn) > 0
    )


def _limits(table: Table) -> Limits:
    table.claim("assumed")
    default = Limits()
    return Limits(**{
        name: table.positive(name, getattr(default, name)) for name in ("reach", "speed", "turn")
    })


def _base(table: Table) -> bool:
    table.claim()
    return table.take("z_up", "true or false", lambda value: isinstance(value, bool))


def _tool(table: Table) -> str:
    table.claim()
    return table.text("frame")
