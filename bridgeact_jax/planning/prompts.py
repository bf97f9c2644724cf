"""What a model is asked: the system's words, the two queries, complaints.

Messages are those of the OpenAI chat format; pictures travel in them as PNG data URLs. Everything
follows from the request: fine-tuning data is written with the same functions.
"""

import base64
import io
import json
from typing import Any

import numpy as np
from PIL import Image

from bridgeact_jax.planning.answers import write_quaternion
from bridgeact_jax.planning.protocol import MAX_WAYPOINTS, Anchor, PlanRequest, in_camera

Message = dict[str, Any]

SYSTEM = f"""\
You plan the motion of a robot arm's tool, a two-finger gripper, from pictures. You are asked twice.

Conventions
- Pixels are [u, v], whole numbers of the picture as sent: u to the right, v down, [0, 0] is the \
centre of the top left pixel.
- Positions are xyz in metres in the frame of the camera of picture 1: x to the right, y down, \
z forward, away from the camera.
- The tool is the point between the fingertips. Its z axis points out of the hand, along the \
approach; the fingers open and close along its y axis.
- Rotations are unit quaternions [w, x, y, z] that turn the tool's axes into the camera's frame.
- gripper: 1 = open, 0 = closed; it is commanded once the tool has reached the pose.

First question: the anchors, the points of picture 1 that matter, such as where to grasp and where \
to place. Answer with JSON:
{{"anchors": [{{"label": "grasp", "pixel": [u, v]}}, ...]}}

Second question, when the anchors' positions are known: the waypoints of the tool after its \
current pose, as few as describe the motion, about five, at most {MAX_WAYPOINTS}, and the target \
pose where it ends. Answer with JSON:
{{"waypoints": [{{"xyz": [x, y, z], "gripper": 1, "quaternion": [w, x, y, z]}}, ...], \
"target": {{"xyz": [x, y, z], "gripper": 0, "quaternion": [w, x, y, z]}}, "confidence": 0.9}}
Three decimals are enough. A waypoint's quaternion and the confidence (0 to 1) may be left out. \
The curve through the waypoints must not touch anything before it should."""


def anchors_text(request: PlanRequest) -> str:
    """The words of the first query, without its pictures."""
    view = request.views[0]
    camera = view.camera
    (tool, above), (rotation, _) = in_camera(
        camera, [request.position, request.position + [0, 0, 1]], [request.rotation] * 2
    )
    intrinsics = ", ".join(
        f"{name} = {float(getattr(camera, name)):.1f}" for name in ("fx", "fy", "cx", "cy")
    )
    lines = [f"Task: {request.instruction.strip()}"]
    if request.history:
        lines.append("Done so far:")
        lines += [f"- {event}" for event in request.history]
    lines += [
        f"Picture 1 is {view.width} x {view.height} pixels; {intrinsics}.",
        *(f"Picture {number} shows the same scene." for number in range(2, len(request.views) + 1)),
        f"Up is {_numbers(above - tool)} in the camera's frame.",
        f"The tool is at xyz {_numbers(tool)}, quaternion "
        f"{json.dumps(write_quaternion(rotation))}, gripper {round(request.gripper, 2):g}.",
    ]
    if request.refused:
        lines.append(
            "Earlier plans were refused; make a different one. Waypoints are numbered from 1, the "
            "target comes after the last:"
        )
        lines += [f"- {reason}" for reason in request.refused]
    lines.append("Which are the anchors?")
    return "\n".join(lines)


def plan_text(anchors: tuple[Anchor, ...]) -> str:
    """The words of the second query. The anchors have been lifted."""
    lines = ["The anchors lie at"]
    lines += [f"- {anchor.label}: xyz {_numbers(anchor.point)}" for anchor in anchors]
    lines.append("Which are the waypoints, and what is the target?")
    return "\n".join(lines)


def anchors_query(request: PlanRequest) -> list[Message]:
    """The conversation that asks for the anchors."""
    content = [
        {"type": "image_url", "image_url": {"url": data_url(view.picture)}}
        for view in request.views
    ]
    content.append({"type": "text", "text": anchors_text(request)})
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]


def plan_query(
    request: PlanRequest, answer: str, anchors: tuple[Anchor, ...]
) -> list[Message]:
    """The conversation that asks for the plan.

    Args:
      answer: the model's first.
      anchors: those of the answer, lifted.
    """
    return [
        *anchors_query(request),
        {"role": "assistant", "content": answer},
        {"role": "user", "content": plan_text(anchors)},
    ]


def complain(messages: list[Message], answer: str, complaint: str) -> list[Message]:
    """The conversation that asks the last question again."""
    return [
        *messages,
        {"role": "assistant", "content": answer},
        {"role": "user", "content": f"{complaint} Answer the whole question again."},
    ]


def data_url(picture: np.ndarray) -> str:
    """A picture (H, W, 3) uint8 as a PNG data URL."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _numbers(values: np.ndarray) -> str:
    """In three decimals, never -0."""
    return json.dumps([round(float(value), 3) + 0.0 for value in values])
