"""A model's two answers: text to anchors and plan, and back.

Answer 1 names pixels of the first picture, answer 2 poses in its camera's frame:

    {"anchors": [{"label": "grasp", "pixel": [u, v]}, ...]}
    {"waypoints": [{"xyz": [x, y, z], "gripper": 1, "quaternion": [w, x, y, z]}, ...],
     "target": {"xyz": [x, y, z], "gripper": 0, "quaternion": [w, x, y, z]}, "confidence": 0.9}

The quaternion of a waypoint and the confidence may be missing or null. Words and code fences around
the JSON object are allowed; of several objects the last counts. Nothing is guessed: numbers in
another unit, scale or order than asked for are complained of, never converted.
"""

import json
import math
import re
from typing import Any

from bridgeact_jax.planning.protocol import (
    MAX_WAYPOINTS,
    NORM_TOLERANCE,
    Anchor,
    Plan,
    PlannedPose,
    View,
)

MAX_ANCHORS = 10
FARTHEST = 10.0  # metres; larger numbers are in another unit
DECIMALS = 3  # of written metres and quaternions


class AnswerError(Exception):
    """An answer that cannot be used; the message is one sentence for the model: what to change."""

    def __init__(self, message: str):
        super().__init__(_encodable(message))


def parse_anchors(text: str, width: int, height: int) -> tuple[Anchor, ...]:
    """The anchors, one or more, of answer 1 to a picture of this size. Raises AnswerError."""
    given, _ = _find(text, "anchors")
    rows = _list(given["anchors"], "anchors", MAX_ANCHORS)
    if not rows:
        raise AnswerError('The list "anchors" is empty: name at least one point of the picture.')
    anchors = []
    for number, row in enumerate(rows, 1):
        where = f"anchor {number}"
        label = _field(row, "label", where)
        if not isinstance(label, str) or not label.strip():
            raise AnswerError(f'The "label" of {where} must be a word in quotes, e.g. "grasp".')
        pixel = _vector(_field(row, "pixel", where), 2, where)
        anchors.append(Anchor(_encodable(label.strip()), pixel))
    pixels = [anchor.pixel for anchor in anchors]
    order = (
        f"whole pixels [u, v] of the picture of {width} x {height}, u from 0 to {width - 1} to "
        f"the right, then v from 0 to {height - 1} down"
    )
    if all(0 <= value <= 1 for pixel in pixels for value in pixel):
        raise AnswerError(f"The pixels look like shares of the picture's size: give {order}.")
    for number, (u, v) in enumerate(pixels, 1):
        if not (-0.5 <= u < width - 0.5 and -0.5 <= v < height - 0.5):
            raise AnswerError(
                f"Pixel [{u:g}, {v:g}] of anchor {number} lies outside the picture: give {order}, "
                "not scaled to 1000."
            )
    return tuple(anchors)


def parse_plan(text: str, view: View | None = None) -> Plan:
    """The plan of answer 2; its `words` are what stands around the JSON. Raises AnswerError.

    Args:
      view: what the model was shown first. With it a pose that would appear farther outside of the
        picture than the picture's own size is complained of.
    """
    given, words = _find(text, "waypoints")
    rows = _list(given["waypoints"], "waypoints", MAX_WAYPOINTS)
    waypoints = [_pose(row, f"waypoint {number}", view) for number, row in enumerate(rows, 1)]
    target = _pose(_field(given, "target", "the answer"), "the target", view)
    if target.rotation is None:
        raise AnswerError('The target has no "quaternion": add the tool\'s rotation [w, x, y, z].')
    confidence = given.get("confidence")
    if confidence is not None:
        confidence = _share(confidence, 'The "confidence"')
    return Plan(tuple(waypoints), target, words=words, confidence=confidence)


def words_of(text: str, key: str) -> str:
    """What stands around the JSON object with `key` in an answer that has been parsed."""
    return _find(text, key)[1]


def write_anchors(anchors: tuple[Anchor, ...]) -> str:
    """Answer 1, in whole pixels."""
    rows = [
        {"label": anchor.label, "pixel": [round(value) for value in anchor.pixel]}
        for anchor in anchors
    ]
    return json.dumps({"anchors": rows}, ensure_ascii=False)


def write_plan(plan: Plan) -> str:
    """Answer 2, in millimetres' steps, after the plan's words if it has any."""
    answer: dict[str, Any] = {
        "waypoints": [_written(pose) for pose in plan.waypoints],
        "target": _written(plan.target),
    }
    if plan.confidence is not None:
        answer["confidence"] = _rounded([plan.confidence])[0]
    return f"{plan.words}\n{json.dumps(answer)}".lstrip("\n")


def write_quaternion(quaternion: tuple[float, ...]) -> list[float]:
    """The quaternion as it is written: of the two that are one rotation, that with w >= 0."""
    return _rounded([-value if quaternion[0] < 0 else value for value in quaternion])


def _written(pose: PlannedPose) -> dict[str, Any]:
    row = {"xyz": _rounded(pose.position), "gripper": _rounded([pose.gripper])[0]}
    if pose.rotation is not None:
        row["quaternion"] = write_quaternion(pose.rotation)
    return row


def _rounded(values) -> list[float]:
    """Rounded to `DECIMALS`, whole numbers as such: 1 and 0, never 1.0 or -0.0."""
    rounded = [round(float(value), DECIMALS) for value in values]
    return [int(value) if value == int(value) else value for value in rounded]


def _find(text: str, key: str) -> tuple[dict[str, Any], str]:
    """The last JSON object of `text` that has `key`, and the words around it."""
    decoder, found, other = json.JSONDecoder(), None, None
    thoughts = text.rfind("</think>") + 1
    start = text.find("{", thoughts)
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            other = value
            if key in value:
                found = (value, start, end)
        start = text.find("{", end)
    mentions = [match.start() for match in re.finditer(rf"[\"']{key}[\"']\s*:", text[thoughts:])]
    if mentions and (found is None or thoughts + mentions[-1] >= found[2]):
        _explain_broken(text, thoughts + mentions[-1], key)
    if found is None:
        if other is None:
            raise AnswerError(f'There is no JSON object: answer with {{"{key}": [...], ...}}.')
        raise AnswerError(
            f'The JSON object has no field "{key}" but {_names(other)}: keep the names of the '
            "fields in English and exactly as asked."
        )
    value, start, end = found
    before = re.sub(r"```\w*\s*$", "", text[:start])
    after = re.sub(r"^\s*```", "", text[end:])
    return value, "\n".join(part.strip() for part in (before, after) if part.strip())


def _explain_broken(text: str, mention: int, key: str) -> None:
    """Raise AnswerError for the object around a mention of `key`, which is not valid JSON."""
    start = max(text.rfind("{", 0, mention), 0)
    try:
        json.JSONDecoder().raw_decode(text, start)
    except json.JSONDecodeError as error:
        rest = text[error.pos :].strip()
        if re.fullmatch(r"[-+.\\\w]{0,6}", rest) or error.msg.startswith("Unterminated"):
            raise AnswerError(
                "The JSON ends before it is complete: answer again, shorter, with the JSON only."
            ) from None
        raise AnswerError(
            f"The JSON is not valid at '{rest[:20]}' ({error.msg}): answer again with valid JSON."
        ) from None
    except (ValueError, RecursionError):
        raise AnswerError("The JSON has absurd numbers or nesting: answer as asked.") from None
    raise AnswerError(
        f'The field "{key}" is not at the top of the answer\'s JSON object: put it there.'
    )


def _list(value: Any, name: str, most: int) -> list:
    if not isinstance(value, list):
        raise AnswerError(f'The field "{name}" must be a list in square brackets.')
    if len(value) > most:
        raise AnswerError(f'There are {len(value)} "{name}": give at most {most} of them.')
    return value


def _field(row: Any, name: str, where: str) -> Any:
    if not isinstance(row, dict):
        raise AnswerError(f'{where[0].upper()}{where[1:]} must be a JSON object with "{name}".')
    if row.get(name) is None:
        raise AnswerError(f'The field "{name}" is missing in {where}, with {_names(row)}: add it.')
    return row[name]


def _pose(row: Any, where: str, view: View | None) -> PlannedPose:
    position = _vector(_field(row, "xyz", where), 3, where)
    gripper = _share(_field(row, "gripper", where), f'The "gripper" of {where}', " (1 = open)")
    rotation = row.get("quaternion")
    if rotation is not None:
        rotation = _vector(rotation, 4, where)
        norm = math.hypot(*rotation)
        if abs(norm - 1) > NORM_TOLERANCE:
            raise AnswerError(
                f"The quaternion of {where} has length {norm:.3g}: give a unit quaternion "
                "[w, x, y, z]."
            )
    numbers = f"[{', '.join(f'{value:g}' for value in position)}]"
    order = "xyz is x to the right, y down, z forward from the camera, in metres"
    if max(map(abs, position)) > FARTHEST:
        raise AnswerError(
            f"The xyz {numbers} of {where} is more than {FARTHEST:g} m away: give metres, not "
            "millimetres or pixels."
        )
    if position[2] <= 0:
        raise AnswerError(f"The xyz {numbers} of {where} lies behind the camera: {order}.")
    if view is not None:
        camera = view.camera
        u = float(camera.fx) * position[0] / position[2] + float(camera.cx)
        v = float(camera.fy) * position[1] / position[2] + float(camera.cy)
        if not (abs(u / view.width - 0.5) <= 1.5 and abs(v / view.height - 0.5) <= 1.5):
            raise AnswerError(
                f"The xyz {numbers} of {where} lies far outside of what the camera sees: {order}."
            )
    return PlannedPose(position, gripper, rotation)


def _share(value: Any, what: str, note: str = "") -> float:
    number = _number(value)
    if number is None or not 0 <= number <= 1:
        raise AnswerError(f"{what} is {_shown(value)}: give a number from 0 to 1{note}.")
    return number


def _vector(values: Any, size: int, where: str) -> tuple[float, ...]:
    numbers = [_number(value) for value in values] if isinstance(values, list) else [None]
    if len(numbers) != size or None in numbers:
        raise AnswerError(
            f"In {where} stands {_shown(values)}: give a list of {size} finite numbers there."
        )
    return tuple(numbers)


def _number(value: Any) -> float | None:
    """A finite float, or None for anything else: text, true, NaN, a whole number too large."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _names(row: dict[str, Any]) -> str:
    return ", ".join(f'"{name}"' for name in row) or "none"


def _encodable(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        text = "[[[["
    return text if len(text) <= 60 else f"{text[:60]}..."
