"""The light client: NumPy, msgpack and websockets, no JAX.

    from bridgeact_jax.serving.client import Client, Driver

    with Client("ws://127.0.0.1:8000") as client:
        driver = Driver(client, pose)
        while True:  # every 0.1 s
            command = driver.step({"position": ..., "rotation": ..., "cloud": ..., "plan": ...})
            robot.move_to(command.pose)  # (8,): x y z m, w x y z, gripper 1 = open
"""

import logging
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import websockets
from websockets.sync.client import connect

from bridgeact_jax.errors import UserError
from bridgeact_jax.serving import chunks, wire
from bridgeact_jax.serving.limiter import PERIOD

TOKEN_VARIABLE = "BRIDGEACT_TOKEN"
SHORTEST_TOKEN = 16  # characters
_QUIET = logging.getLogger(__name__)
_QUIET.setLevel(logging.CRITICAL)  # it would show the token


class ServerError(UserError):
    """The server answered with an error, or is gone; `lost` says which."""

    def __init__(self, message: str, *, lost: bool = False):
        super().__init__(message)
        self.lost = lost


def read_token(path: str | os.PathLike | None) -> str | None:
    """The token in a file, or else in BRIDGEACT_TOKEN; None where there is neither.

    Raises UserError for a file that cannot be read, or a token that is none.
    """
    where = TOKEN_VARIABLE if path is None else str(path)
    if path is None:
        token = os.environ.get(TOKEN_VARIABLE)
    else:
        try:
            token = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no text"
            raise UserError(f"{path}: cannot be read: {reason}") from None
    if token is None:
        return None
    token = token.strip()
    if len(token) < SHORTEST_TOKEN or not (token.isascii() and token.isprintable()):
        raise UserError(f"{where}: a token must be {SHORTEST_TOKEN} or more ASCII characters")
    return token


class Client:
    """A connection to a policy server.

    Args:
      token: what the server asks for; None for a server that asks for none.
      timeout: seconds that an answer may take.

    Attributes:
      metadata: what the server says of itself.

    Raises ServerError if there is no server, or it lets nobody in.
    """

    def __init__(
        self,
        url: str = "ws://127.0.0.1:8000",
        *,
        token: str | None = None,
        timeout: float = 10.0,
    ):
        self._url, self._timeout = url, timeout
        headers = None if token is None else {"Authorization": f"Api-Key {token}"}
        self._stack = ExitStack()
        try:
            self._connection = self._stack.enter_context(
                connect(
                    url, additional_headers=headers, compression=None, max_size=None, proxy=None,
                    open_timeout=timeout, close_timeout=1, logger=_QUIET,
                )
            )  # fmt: skip
        except websockets.InvalidStatus as error:
            body = (error.response.body or b"").decode("utf-8", "replace").strip()
            code = error.response.status_code
            raise ServerError(f"{url}: refused ({code}): {body}", lost=True) from None
        except (OSError, TimeoutError, websockets.WebSocketException, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ServerError(f"{url}: no server answers: {reason}", lost=True) from None
        try:
            self.metadata: dict[str, Any] = self._receive(timeout)
        except ServerError:
            self._stack.close()
            raise

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The answer to an observation. Raises ServerError."""
        return self._exchange(observation, self._timeout)

    def plan(self, observation: dict[str, Any], timeout: float = 300.0) -> dict[str, np.ndarray]:
        """The server's plan for the observation: `position`, `rotation`, `gripper` of its poses.

        Raises ServerError also where the planner finds none.
        """
        answer = self._exchange({**observation, "request": "plan"}, timeout)
        if answer["status"] != "planned":
            raise ServerError(f"no plan: {answer.get('message', answer['status'])}")
        return answer["plan"]

    def reset(self, seed: int | None = None) -> None:
        """A new episode: the server forgets plan, history and clock. Raises ServerError."""
        self._exchange({"request": "reset", "seed": seed}, self._timeout)

    def close(self) -> None:
        """End the connection."""
        self._stack.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exchange(self, message: dict[str, Any], timeout: float) -> dict[str, Any]:
        data = wire.pack(message)
        try:
            self._connection.send(data)
        except (websockets.ConnectionClosed, OSError) as error:
            raise self._lost(error) from None
        return self._receive(timeout)

    def _receive(self, timeout: float) -> dict[str, Any]:
        try:
            frame = self._connection.recv(timeout)
        except TimeoutError:
            self._connection.close()  # what comes now would answer another question
            raise ServerError(f"{self._url}: no answer in {timeout:g} s", lost=True) from None
        except (websockets.ConnectionClosed, OSError) as error:
            raise self._lost(error) from None
        if isinstance(frame, str):
            raise ServerError(frame)
        try:
            return wire.unpack(frame)
        except wire.WireError as error:
            self._connection.close()
            raise ServerError(f"{self._url}: no answer but {error}", lost=True) from None

    def _lost(self, error: Exception) -> ServerError:
        reason = getattr(getattr(error, "rcvd", None), "reason", "") or "the connection is gone"
        return ServerError(f"{self._url}: {reason}", lost=True)


class Command(NamedTuple):
    """What to command now: pose (8,) float32: position m, rotation wxyz, gripper 1 = open.

    `status` is the server's, "held: ..." where the pose is only repeated, or "late" where the
    chunk before is still being executed. `answer` is the server's, None where there is none.
    """

    pose: np.ndarray
    status: str
    answer: dict[str, Any] | None


class Driver:
    """From observations to one pose to command at every control step.

    What the server answers is executed by the clock, but never more than a step at a time: while
    `step` waits for an answer nothing is commanded, and what follows goes on where the arm was.
    Where an answer is late the chunk before is executed to its end, then its last pose is held.
    Where the server is gone the last pose that was commanded is held from then on, for good.

    Args:
      pose: (8,) where the arm is, as commanded before the first answer.
      blend: seconds over which a chunk gives way to the next.
      clock: seconds, monotone.
    """

    def __init__(
        self,
        client: Client,
        pose: np.ndarray,
        *,
        blend: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._client, self._blend, self._clock = client, blend, clock
        self._execution = chunks.begin(pose)
        self._last = np.asarray(pose, np.float32)
        self._lost: str | None = None
        self._behind = 0.0  # seconds by which motion lags the clock
        self._commanded: float | None = None  # when, by the motion's clock

    def step(self, observation: dict[str, Any]) -> Command:
        """What to command now, having observed this; `time` is added where it is not given.

        Raises ServerError where the server finds fault with the observation.
        """
        answer = None
        if self._lost is None:
            now = self._clock()
            observation = {"time": now, "gripper": self._last[7], "sent": now, **observation}
            try:
                answer = self._client.infer(observation)
            except ServerError as error:
                if not error.lost:
                    raise
                self._stop(str(error))
        behind, now = self._behind, self._motion_time()
        if answer is not None and "actions" in answer:
            observed = observation["time"] - behind
            try:
                self._execution = chunks.receive(
                    self._execution, answer["actions"], observed, now, blend=self._blend
                )
            except ValueError as error:
                self._stop(str(error))
        self._last = chunks.command(self._execution, now)
        return Command(self._last, self._status(answer, now), answer)

    def _motion_time(self) -> float:
        """The clock, less what it ran ahead while nothing could be commanded."""
        now = self._clock() - self._behind
        if self._commanded is not None and now - self._commanded > 1.5 * PERIOD:
            self._behind += now - self._commanded - PERIOD
            now = self._commanded + PERIOD
        self._commanded = now
        return now

    def _stop(self, reason: str) -> None:
        self._lost = reason
        self._execution = chunks.stop(chunks.begin(self._last), self._clock())

    def _status(self, answer: dict[str, Any] | None, now: float) -> str:
        if self._lost is not None:
            return f"held: {self._lost}"
        if chunks.holding(self._execution, now):
            return f"held: {answer['status']}"
        return answer["status"]
