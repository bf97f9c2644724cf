"""A planner behind any OpenAI-compatible chat endpoint that takes pictures."""

import base64
import hashlib
import json
import math
import os
import re
import time
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.planning import lines, prompts
from bridgeact_jax.planning.answers import AnswerError, parse_anchors, parse_plan, words_of
from bridgeact_jax.planning.lifting import Estimate, lift_all, with_depth
from bridgeact_jax.planning.prompts import Message
from bridgeact_jax.planning.protocol import (
    Anchor,
    Plan,
    PlanningError,
    PlanRequest,
    Unreachable,
)
from bridgeact_jax.planning.recorded import request_name
from bridgeact_jax.planning.schemas import ANCHORS_ANSWER, PLAN_ANSWER, SCHEMA_VERSION

Parsed = TypeVar("Parsed")

SEED = 0
NO_KEY = "none"  # what local servers are sent
SHORTEST_SECRET = 8  # letters; what is shorter is a word for a local server
LONGEST_MESSAGE = 300  # letters of a server's message that are shown


class RemotePlanner:
    """Asks a model twice: for anchors, and for waypoints once the anchors are lifted by depth.

    Structured output, seed and temperature 0 are asked for and given up where the server refuses
    them. An answer that cannot be used is sent back with a complaint.

    Args:
      model: the model's name at the endpoint.
      base_url: http(s)://HOST/v1 or wherever the endpoint's `chat/completions` lies.
      api_key_variable: the environment variable that holds the key; without it a server gets
        `NO_KEY`. The key is neither written nor shown anywhere.
      transcript: a file to which every exchange is appended as one JSON line; None for none.
      timeout: seconds without a sign of the server, for each try.
      tries: how often one query is sent when the server is down, busy or silent, with the client's
        growing pauses in between.
      complaints: how often one question is asked again because of its answer.
      max_tokens: of an answer.
      prices: money per million prompt and per million completion tokens, for `Plan.usage["cost"]`.
      estimate: makes the depth of cameras that have none.

    Raises UsageError for values that cannot be right.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        api_key_variable: str = "OPENAI_API_KEY",
        transcript: str | os.PathLike | None = None,
        timeout: float = 120.0,
        tries: int = 4,
        complaints: int = 2,
        max_tokens: int = 4096,
        prices: tuple[float, float] | None = None,
        estimate: Estimate | None = None,
    ):
        import openai  # takes a second

        try:
            address = urllib.parse.urlsplit(base_url)
            right = address.scheme in ("http", "https") and address.hostname and address.port != 0
        except ValueError:  # a bracket without its end, a port that is no number
            right = False
        if not right or "@" in address.netloc or address.query:
            raise UsageError(
                "a planner's URL must be http://HOST:PORT/v1 or alike, without a name, a password "
                f"or a query (the key is read from {api_key_variable})"
            )
        self._key = os.environ.get(api_key_variable, "").strip() or NO_KEY
        if not self._key.isascii() or any(letter.isspace() for letter in self._key):
            raise UsageError(f"what the environment variable {api_key_variable} holds is no key")
        self._key_variable = api_key_variable
        self._url, self._model = base_url, model
        self._client = openai.OpenAI(
            base_url=base_url, api_key=self._key, timeout=timeout, max_retries=tries - 1
        )
        self._transcript, self._timeout, self._tries = transcript, timeout, tries
        self._complaints, self._prices, self._estimate = complaints, prices, estimate
        self._options: dict[str, Any] = {"temperature": 0, "seed": SEED, "max_tokens": max_tokens}
        self._structured = True

    def plan(self, request: PlanRequest) -> Plan:
        """The model's plan.

        Raises PlanningError if there is no depth, the model refuses or none of its answers can be
        used, and Unreachable if the endpoint gives no answer.
        """
        view = with_depth(request.views[0], self._estimate)
        usage = {"seconds": 0.0, "queries": 0}

        def anchors_in(text: str) -> tuple[Anchor, ...]:
            anchors = parse_anchors(text, view.width, view.height)
            try:
                return lift_all(view, anchors)
            except PlanningError as error:
                raise AnswerError(f"An anchor has no position: {error}.") from None

        def plan_in(text: str) -> Plan:
            return parse_plan(text, view)

        ask = partial(self._ask, request_name(request), usage)
        first, anchors = ask(prompts.anchors_query(request), "anchors", ANCHORS_ANSWER, anchors_in)
        messages = prompts.plan_query(request, first, anchors)
        _, plan = ask(messages, "plan", PLAN_ANSWER, plan_in)
        words = "\n".join(part for part in (words_of(first, "anchors"), plan.words) if part)
        return replace(plan, anchors=anchors, words=words, usage=usage)

    def _ask(
        self,
        name: str,
        usage: dict[str, float],
        messages: list[Message],
        question: str,
        schema: dict[str, Any],
        parse: Callable[[str], Parsed],
    ) -> tuple[str, Parsed]:
        """A usable answer to one question, as text and as what `parse` makes of it."""
        complaint = ""
        for _ in range(1 + self._complaints):
            exchange = {
                "schema_version": SCHEMA_VERSION,
                "request": name,
                "question": question,
                "model": self._model,
                "messages": [_without_pictures(message) for message in messages],
            }
            try:
                text, reason = self._complete(messages, question, schema, usage, exchange)
                return text, parse(text)
            except AnswerError as error:
                complaint = self._blanked(str(error))
                if reason == "length":
                    complaint = "Your answer was cut off: answer in few words, with the JSON."
                exchange["complaint"] = complaint
                messages = prompts.complain(messages, text or "(nothing)", complaint)
            except UserError as error:
                exchange["error"] = str(error)
                raise
            finally:
                self._keep(exchange)
        raise PlanningError(
            f"{self._model} gave no usable answer to the question for {question}, asked "
            f"{1 + self._complaints} times: {complaint}",
            usage,
        )

    def _complete(
        self,
        messages: list[Message],
        question: str,
        schema: dict[str, Any],
        usage: dict[str, float],
        exchange: dict[str, Any],
    ) -> tuple[str, str]:
        """The model's answer and why it ended; adds to `usage` and `exchange` what is known."""
        start = time.perf_counter()
        try:
            response = self._send(messages, question, schema)
        finally:
            exchange["seconds"] = round(time.perf_counter() - start, 3)
            exchange["options"] = {**self._options, "structured": self._structured}
            usage["seconds"] += exchange["seconds"]
            usage["queries"] += 1
        self._count(response.usage, usage, exchange)
        choice = response.choices[0] if response.choices else None
        message = choice and choice.message
        text = message.content if message and isinstance(message.content, str) else ""
        text = self._blanked(text)
        reason = (choice and choice.finish_reason) or ""
        exchange.update(answer=text, finish_reason=reason)
        refusal = getattr(message, "refusal", None)
        if refusal or reason == "content_filter":
            why = f": {self._clean(refusal)}" if refusal else " (content filter)"
            raise PlanningError(f"{self._model} refused to plan{why}", usage)
        return text, reason

    def _send(self, messages: list[Message], question: str, schema: dict[str, Any]):
        """The endpoint's response; options that it refuses are left out from then on."""
        import openai
        from openai.types.chat import ChatCompletion

        options, structured = dict(self._options), self._structured
        while True:
            shape = {"name": question, "schema": schema, "strict": True}
            form = {"type": "json_schema", "json_schema": shape}
            extra = {"response_format": form} if structured else {}
            try:
                response = self._client.chat.completions.create(
                    model=self._model, messages=messages, **options, **extra
                )
                break
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                told = re.findall(r"\w+", str(error))
                refused = next((name for name in options if name in told), None)
                if refused == "max_tokens":  # some servers know only its later name
                    options["max_completion_tokens"] = options.pop(refused)
                elif refused:
                    del options[refused]
                elif structured:
                    structured = False
                else:
                    raise self._explained(error) from None
            except (openai.OpenAIError, ValueError) as error:
                raise self._explained(error) from None
        if not isinstance(response, ChatCompletion):
            raise Unreachable(
                f"{self._url} answers, but not as a chat endpoint does: check the URL (most end "
                "in /v1)"
            )
        self._options, self._structured = options, structured
        return response

    def _explained(self, error: Exception) -> Unreachable:
        """What is wrong with the endpoint, and what would be right."""
        import openai

        hints = {
            401: f"the key is read from the environment variable {self._key_variable}",
            403: f"the key is read from the environment variable {self._key_variable}",
            404: f"check the URL (most end in /v1) and the model '{self._model}'",
            429: f"it was asked {self._tries} times: wait, or ask less at once",
        }
        if isinstance(error, openai.APITimeoutError):
            what = f"gave no answer within {self._timeout:g} s, {self._tries} times"
        elif isinstance(error, openai.APIStatusError):
            what = f"answers {error.status_code}: {self._clean(error.message)}"
            if error.status_code in hints:
                what += f"; {hints[error.status_code]}"
        elif isinstance(error, openai.APIConnectionError):
            cause = self._clean(str(error.__cause__ or error))
            what = f"cannot be reached, tried {self._tries} times: {cause}"
        else:
            what = f"answers, but not as a chat endpoint does: {self._clean(str(error))}"
        return Unreachable(f"{self._url} {what}")

    def _count(self, told: Any, usage: dict[str, float], exchange: dict[str, Any]) -> None:
        """Add the tokens that the endpoint tells of, and what they cost."""
        for index, kind in enumerate(("prompt_tokens", "completion_tokens")):
            tokens = getattr(told, kind, None) or 0
            exchange[kind] = tokens
            usage[kind] = usage.get(kind, 0) + tokens
            if self._prices is not None:
                usage["cost"] = usage.get("cost", 0.0) + tokens * self._prices[index] / 1e6

    def _clean(self, text: str) -> str:
        """One short line without the key."""
        return " ".join(self._blanked(text).split())[:LONGEST_MESSAGE]

    def _blanked(self, text: str) -> str:
        """The text without the key and without halves of surrogate pairs, which UTF-8 has not."""
        text = text.encode("utf-8", "replace").decode()
        if len(self._key) >= SHORTEST_SECRET:
            for form in (self._key, json.dumps(self._key)[1:-1]):
                text = text.replace(form, "[key]")
        return text

    def _keep(self, exchange: dict[str, Any]) -> None:
        if self._transcript is None:
            return
        lines.append(self._transcript, self._blanked(json.dumps(exchange)))


def prices_of(words: Sequence[str] | None) -> tuple[float, float] | None:
    """The two numbers of --planner_prices, None where it is not given. Raises UsageError."""
    if words is None:
        return None
    try:
        asked, answered = map(float, words)
        if min(asked, answered) >= 0 and math.isfinite(asked + answered):
            return asked, answered
    except ValueError:
        pass
    given = ",".join(words)
    raise UsageError(f"--planner_prices={given}: must be two numbers from 0 up, e.g. 2.5,10")


def _without_pictures(message: Message) -> Message:
    """The message with a digest and a size instead of each picture."""
    if isinstance(message["content"], str):
        return message
    parts = []
    for part in message["content"]:
        if part["type"] == "image_url":
            png = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            digest = hashlib.sha256(png).hexdigest()
            part = {"type": "image_url", "sha256": digest, "bytes": len(png)}
        parts.append(part)
    return {**message, "content": parts}
