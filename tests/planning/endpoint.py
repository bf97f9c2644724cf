"""A local endpoint that speaks the OpenAI chat protocol, and can misbehave.

It is a real HTTP server on loopback: what a client says and hears goes through sockets.
"""

import json
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Message = dict[str, Any]
Fault = Callable[["_Handler", str], None]

PROMPT_TOKENS, COMPLETION_TOKENS = 1000, 100  # that each answer reports


class Endpoint:
    """Answers chat completions with `answer(messages)` while the context lasts.

    Args:
      answer: the conversation so far -> the text of the answer. It may be called from several
        threads at once; what it raises is answered with status 500.
      misbehave: what is done instead of an honest answer, one for each request as they come; None
        for an honest one. When they are used up, all answers are honest.
      port: 0 for any that is free.

    Attributes:
      base_url: for a client.
      requests: bodies, as they came; headers: of each, names in lower case.
    """

    def __init__(
        self,
        answer: Callable[[list[Message]], str],
        misbehave: Sequence[Fault | None] = (),
        *,
        port: int = 0,
    ):
        self.answer = answer
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.released = threading.Event()
        self._faults = list(misbehave)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
        self._server.daemon_threads = True
        self._server.endpoint = self
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "Endpoint":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def take(self, body: dict[str, Any], headers: dict[str, str]) -> Fault | None:
        """Note a request and say how to misbehave to it."""
        with self._lock:
            self.requests.append(body)
            self.headers.append(headers)
            return self._faults.pop(0) if self._faults else None


def asks_for_plan(messages: list[Message]) -> bool:
    """Whether a conversation is past its first question."""
    return any("The anchors lie at" in text_of(message) for message in messages)


def text_of(message: Message) -> str:
    """A message's words, without its pictures."""
    if isinstance(message["content"], str):
        return message["content"]
    return "\n".join(part["text"] for part in message["content"] if part["type"] == "text")


def completion(text: str | None, *, reason: str = "stop", **message: Any) -> dict[str, Any]:
    """The body of an honest response."""
    return {
        "id": "chat-1",
        "object": "chat.completion",
        "created": 0,
        "model": "local",
        "choices": [
            {
                "index": 0,
                "finish_reason": reason,
                "message": {"role": "assistant", "content": text, **message},
            }
        ],
        "usage": {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": COMPLETION_TOKENS,
            "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
        },
    }


def says(text: str | None, *, reason: str = "stop", **message: Any) -> Fault:
    """A fault: a proper response with this text instead of the answer."""
    return lambda handler, _: handler.reply(200, completion(text, reason=reason, **message))


def fails(status: int, message: str = "no", **headers: str) -> Fault:
    """A fault: an error with this status; headers with _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _: handler.reply(status, {"error": {"message": message}}, **named)


def cuts(handler: "_Handler", text: str) -> None:
    """A fault: the connection ends in the middle of the answer's body."""
    body = json.dumps(completion(text)).encode()
    handler.start(200, len(body), "application/json")
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def drops(handler: "_Handler", text: str) -> None:
    """A fault: the connection ends without a word."""
    handler.close_connection = True


def hangs(handler: "_Handler", text: str) -> None:
    """A fault: nothing is said until the endpoint ends."""
    handler.server.endpoint.released.wait(30)
    handler.close_connection = True


def refuses(option: str) -> Fault:
    """A fault: status 400 if the request has this option, else the honest answer."""

    def fault(handler: "_Handler", text: str) -> None:
        if option in handler.body:
            handler.reply(400, {"error": {"message": f"unsupported parameter: '{option}'"}})
        else:
            handler.reply(200, completion(text))

    return fault


def raw(body: bytes, kind: str = "text/html") -> Fault:
    """A fault: status 200 with this body."""

    def fault(handler: "_Handler", text: str) -> None:
        handler.start(200, len(body), kind)
        handler.wfile.write(body)

    return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        endpoint = self.server.endpoint
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = endpoint.take(self.body, headers)
        if self.path != "/v1/chat/completions":
            return self.reply(404, {"error": {"message": f"nothing at {self.path}"}})
        try:
            text = endpoint.answer(self.body["messages"])
        except Exception as error:
            return self.reply(500, {"error": {"message": repr(error)}})
        if fault is None:
            self.reply(200, completion(text))
        else:
            fault(self, text)

    def reply(self, status: int, body: dict[str, Any], **headers: str) -> None:
        data = json.dumps(body).encode()
        self.start(status, len(data), "application/json", **headers)
        self.wfile.write(data)

    def start(self, status: int, length: int, kind: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_) -> None:
        pass
