"""Plans as JSON and back, and requests as JSON, by which they are named.

The schema of a plan is `schemas.PLAN`; what is read has been checked. Pictures are PNG and depth is
16-bit PNG in millimetres, both in base64.
"""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from bridgeact_jax.planning.protocol import (
    Anchor,
    Plan,
    PlannedPose,
    PlanningError,
    PlanRequest,
    View,
)
from bridgeact_jax.planning.schemas import SCHEMA_VERSION

_INTRINSICS = ("fx", "fy", "cx", "cy")
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError)
_FARTHEST = np.iinfo(np.uint16).max  # millimetres


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The plan as `schemas.PLAN` describes it."""
    return {
        "schema_version": SCHEMA_VERSION,
        "waypoints": [_pose_to_json(pose) for pose in plan.waypoints],
        "target": _pose_to_json(plan.target),
        "anchors": [
            {"label": one.label, "pixel": list(one.pixel), "point": _optional(one.point)}
            for one in plan.anchors
        ],
        "words": plan.words,
        "confidence": plan.confidence,
        "usage": dict(plan.usage),
    }


def plan_from_json(value: Any) -> Plan:
    """The plan of `plan_to_json`. Raises PlanningError for anything else."""
    with _Explained(value):
        return Plan(
            tuple(map(_pose_from_json, value["waypoints"])),
            _pose_from_json(value["target"]),
            tuple(map(_anchor_from_json, value["anchors"])),
            str(value["words"]),
            value["confidence"],
            {str(name): float(number) for name, number in value["usage"].items()},
        )


def request_to_json(request: PlanRequest) -> dict[str, Any]:
    """Everything that is asked, as JSON; depth in whole millimetres."""
    return {
        "schema_version": SCHEMA_VERSION,
        "key": request.key,
        "instruction": request.instruction,
        "position": request.position.tolist(),
        "rotation": request.rotation.tolist(),
        "gripper": request.gripper,
        "refused": list(request.refused),
        "history": list(request.history),
        "views": [_view_to_json(view) for view in request.views],
    }


class _Explained:
    """Raises PlanningError for JSON that is no plan of this schema."""

    def __init__(self, value: Any):
        version = value.get("schema_version") if isinstance(value, dict) else None
        if version != SCHEMA_VERSION:
            raise PlanningError(
                f"a plan of schema version {version!r}: this program reads {SCHEMA_VERSION}"
            )

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, KeyError):
            raise PlanningError(f"a plan has no field {error}") from None
        if isinstance(error, _MALFORMED):
            raise PlanningError(f"a plan has a malformed field: {error}") from None


def _pose_to_json(pose: PlannedPose) -> dict[str, Any]:
    return {
        "position": list(pose.position),
        "gripper": pose.gripper,
        "rotation": _optional(pose.rotation),
    }


def _pose_from_json(row: dict[str, Any]) -> PlannedPose:
    return PlannedPose(row["position"], row["gripper"], row["rotation"])


def _anchor_from_json(row: dict[str, Any]) -> Anchor:
    return Anchor(str(row["label"]), row["pixel"], row["point"])


def _optional(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else list(values)


def _view_to_json(view: View) -> dict[str, Any]:
    camera, depth = view.camera, view.depth
    position, rotation = camera.T_base_camera
    if depth is not None:
        millimetres = np.round(np.nan_to_num(depth, posinf=0, neginf=0) * 1000)
        depth = np.clip(millimetres, 0, _FARTHEST).astype(np.uint16)
    return {
        "picture": _png(view.picture),
        "depth": None if depth is None else _png(depth),
        "camera": {
            "position": np.asarray(position, float).tolist(),
            "rotation": np.asarray(rotation, float).tolist(),
            **{name: float(getattr(camera, name)) for name in _INTRINSICS},
        },
    }


def _png(picture: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()
