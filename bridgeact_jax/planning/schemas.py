"""JSON Schemas: of a model's two answers, and of a plan that is kept.

The answers' schemas are in the dialect that servers with strict structured output take: every field
is required, what may be missing may be null, and no numeric ranges; `answers` checks the rest.
"""

from typing import Any

SCHEMA_VERSION = 1  # of a plan and a request as JSON


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _numbers(size: int) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "number"}, "minItems": size, "maxItems": size}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


_NUMBER, _TEXT = {"type": "number"}, {"type": "string"}

ANCHORS_ANSWER = _object(
    {"anchors": _list(_object({"label": _TEXT, "pixel": _numbers(2)}))}
)
PLAN_ANSWER = _object(
    {
        "waypoints": _list(
            _object({"xyz": _numbers(3), "gripper": _NUMBER, "quaternion": _or_null(_numbers(4))})
        ),
        "target": _object({"xyz": _numbers(3), "gripper": _NUMBER, "quaternion": _numbers(4)}),
        "confidence": _or_null(_NUMBER),
    }
)

_POSE = {"position": _numbers(3), "gripper": {"type": "number", "minimum": 0, "maximum": 1}}
PLAN = _object(
    {
        "schema_version": {"const": SCHEMA_VERSION},
        "waypoints": _list(_object({**_POSE, "rotation": _or_null(_numbers(4))})),
        "target": _object({**_POSE, "rotation": _numbers(4)}),
        "anchors": _list(
            _object({"label": _TEXT, "pixel": _numbers(2), "point": _or_null(_numbers(3))})
        ),
        "words": _TEXT,
        "confidence": _or_null({"type": "number", "minimum": 0, "maximum": 1}),
        "usage": {"type": "object", "additionalProperties": _NUMBER},
    },
    title="Plan",
    description="metres, wxyz, camera frame (x right, y down, z forward); gripper 1 = open",
    **{
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:bridgeact:plan:{SCHEMA_VERSION}",
    },
)
