"""The exchange with a planner as a record of fine-tuning data, in the forms that trainers read.

openai: OpenAI's chat fine-tuning, .jsonl: `messages`, the picture as a data URL, since it takes no
  paths.
llava: LLaVA's, .json: `conversations` of "human" and "gpt", `image` a path. It has no system turn:
  the system's words open the first question.
qwen: ms-swift's standard form, .jsonl: `messages` with <image>, `images` a list of paths; to
  LLaMA-Factory it is "sharegpt" with the tags role, content, user, assistant, system.

Paths are relative to the folder of the data.
"""

import base64
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from bridgeact_jax.planning.answers import write_anchors, write_plan
from bridgeact_jax.planning.prompts import SYSTEM, anchors_text, plan_text
from bridgeact_jax.planning.protocol import Anchor, Plan, PlanRequest


class Conversation(NamedTuple):
    """The two turns about one picture.

    turns: (question, answer): the anchors, then the plan. picture: its path, from the folder of the
    data. png: its bytes.
    """

    name: str
    picture: str
    png: bytes
    turns: tuple[tuple[str, str], tuple[str, str]]


class Format(NamedTuple):
    """record: what a conversation is to a trainer. array: one JSON array, not a record a line."""

    record: Callable[[Conversation], dict[str, Any]]
    array: bool

    @property
    def suffix(self) -> str:
        return ".json" if self.array else ".jsonl"


def conversation(
    name: str, picture: str, png: bytes, request: PlanRequest, anchors: tuple[Anchor, ...],
    plan: Plan,
) -> Conversation:
    """The exchange in which `request` is answered by the lifted anchors and the plan."""
    first = anchors_text(request), write_anchors(anchors)
    second = plan_text(anchors), write_plan(plan)
    return Conversation(name, picture, png, (first, second))


def _openai(about: Conversation) -> dict[str, Any]:
    (question, anchors), (again, plan) = about.turns
    url = f"data:image/png;base64,{base64.b64encode(about.png).decode()}"
    asked = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    return {"messages": _messages(asked, anchors, again, plan)}


def _llava(about: Conversation) -> dict[str, Any]:
    (question, anchors), (again, plan) = about.turns
    turns = [
        ("human", f"<image>\n{SYSTEM}\n\n{question}"), ("gpt", anchors), ("human", again),
        ("gpt", plan),
    ]
    return {
        "id": about.name,
        "image": about.picture,
        "conversations": [{"from": speaker, "value": text} for speaker, text in turns],
    }


def _qwen(about: Conversation) -> dict[str, Any]:
    (question, anchors), (again, plan) = about.turns
    return {
        "messages": _messages(f"<image>{question}", anchors, again, plan),
        "images": [about.picture],
    }


def _messages(question: Any, anchors: str, again: str, plan: str) -> list[dict[str, Any]]:
    said = [
        ("system", SYSTEM), ("user", question), ("assistant", anchors), ("user", again),
        ("assistant", plan),
    ]
    return [{"role": role, "content": content} for role, content in said]


def record_text(form: str, about: Conversation) -> str:
    """A record of the format `form`, as JSON on one line."""
    return json.dumps(FORMATS[form].record(about), ensure_ascii=False)


FORMATS = {
    "openai": Format(_openai, array=False),
    "llava": Format(_llava, array=True),
    "qwen": Format(_qwen, array=False),
}
