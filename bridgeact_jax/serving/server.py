"""The policy server: the wire protocol of openpi's client over WebSocket.

A client gets a frame of metadata, then one frame for each of its own: binary msgpack for an answer,
text for an error. All inference is done in one thread beside the event loop.
"""

import asyncio
import hmac
import http
import itertools
import logging
import math
import queue
import socket
import threading
import time
import traceback
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import websockets
from websockets.asyncio.server import Server as Listener
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request as Handshake
from websockets.http11 import Response

from bridgeact_jax import __version__
from bridgeact_jax.errors import UserError
from bridgeact_jax.planning.protocol import Planner
from bridgeact_jax.serving import wire
from bridgeact_jax.serving.answering import answer
from bridgeact_jax.serving.asking import Desk
from bridgeact_jax.serving.batching import Batcher
from bridgeact_jax.serving.conversation import Conversation
from bridgeact_jax.serving.engine import Engine, key_data
from bridgeact_jax.serving.limiter import PERIOD
from bridgeact_jax.serving.logbook import Logbook
from bridgeact_jax.serving.metrics import Metrics, Stopwatch
from bridgeact_jax.serving.observations import KEYS, parse
from bridgeact_jax.serving.sessions import Session
from bridgeact_jax.serving.settings import Settings

log = logging.getLogger(__name__)

SEND_BUFFER = 1 << 16  # bytes of answers that a client may leave unread in the kernel
STRIKES = 20  # errors in a row after which a client is dropped
FASTEST, BURST = 50.0, 10.0  # messages a second of one client, and how many at once
_QUIET = logging.getLogger(__name__ + ".websockets")
_QUIET.setLevel(logging.CRITICAL)  # it would show what clients send


class Server:
    """Serves while it is entered: `async with Server(...) as server`.

    Attributes:
      port: where it listens, also where `Settings.port` is 0.
      metrics: what it has done so far.

    Raises UserError if it cannot listen.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        planner: Planner | None = None,
        logbook: Logbook | None = None,
    ):
        self._engine, self._settings, self._logbook = engine, settings, logbook
        self._desk = None if planner is None else Desk(planner)
        self._numbers = itertools.count()
        self._connected = 0
        self.metrics = Metrics()

    async def __aenter__(self) -> "Server":
        settings = self._settings
        self._batcher = Batcher(lambda jobs: answer(self._engine, jobs), self._engine.largest)
        try:
            self._listener: Listener = await serve(
                self._serve, settings.host, settings.port, process_request=self._admit,
                origins=[None],  # no page in a browser may command a robot
                compression=None, max_size=settings.max_message, max_queue=2, open_timeout=5,
                ping_interval=10, ping_timeout=20, close_timeout=2, server_header=None,
                logger=_QUIET,
            )  # fmt: skip
        except OSError as error:
            self._batcher.close()
            raise UserError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}"
            ) from None
        self.port = next(iter(self._listener.sockets)).getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        await self._listener.wait_closed()
        self._batcher.close()

    @property
    def metadata(self) -> dict[str, Any]:
        """What a client is told first."""
        settings = self._settings
        return {
            "server": f"bridgeact_jax {__version__}",
            "action_horizon": self._engine.horizon,
            "action_dim": 8,
            "actions": "(H, 8): x y z m, rotation w x y z, gripper 1 = open; base frame; row h is "
            "the target one period after row h - 1",
            "control_period": PERIOD,
            "execute": settings.execute,
            "sees_clouds": self._engine.sees_clouds,
            "plans": self._desk is not None,
            "deadline": settings.deadline,
            "limits": {
                name: list(map(float, value)) if isinstance(value, tuple) else float(value)
                for name, value in settings.limits._asdict().items()
            },
            "observation": KEYS,
        }

    # ---- the door -----------------------------------------------------------------------------

    def _admit(self, connection: ServerConnection, handshake: Handshake) -> Response | None:
        """The answer to a request that is not let in, or asks for a page."""
        path = handshake.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if not self._knows_token(handshake):
            self.metrics.count("clients_refused")
            log.warning("a client without the token was refused")
            return connection.respond(
                http.HTTPStatus.UNAUTHORIZED, "send the header Authorization: Api-Key TOKEN\n"
            )
        if path == "/metrics":
            return connection.respond(http.HTTPStatus.OK, self.metrics.text(self._connected))
        if self._connected >= self._settings.max_clients:
            self.metrics.count("clients_refused")
            log.warning("a client was refused: there are %d already", self._connected)
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many clients\n")
        return None

    def _knows_token(self, handshake: Handshake) -> bool:
        token = self._settings.token
        if token is None:
            return True
        given = handshake.headers.get_all("Authorization")
        word = given[0] if len(given) == 1 else ""
        return hmac.compare_digest(
            word.encode("utf-8", "replace"), f"Api-Key {token}".encode("utf-8", "replace")
        )

    # ---- a client -----------------------------------------------------------------------------

    async def _serve(self, connection: ServerConnection) -> None:
        if self._connected >= self._settings.max_clients:  # others were let in meanwhile
            self.metrics.count("clients_refused")
            await connection.close(websockets.CloseCode.TRY_AGAIN_LATER, "too many clients")
            return
        self._connected += 1
        self.metrics.count("clients")
        number = next(self._numbers)
        log.info("client %d: connected", number)
        why = None
        try:
            why = await self._converse(connection, number)
        except websockets.ConnectionClosed:
            pass
        except TimeoutError:
            why = "does not read"
            connection.transport.abort()
        finally:
            self._connected -= 1
            log.info("client %d: %s", number, f"dropped: {why}" if why else "gone")
            self.metrics.count("clients_dropped", why is not None)

    async def _converse(self, connection: ServerConnection, number: int) -> str:
        """Answer until the client is gone (ConnectionClosed); returns why it had to be dropped."""
        tcp = connection.transport.get_extra_info("socket")
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        settings = self._settings
        key, note = key_data(settings.seed + number), None
        if self._logbook is not None:
            note = partial(self._logbook.note, f"client_{number}")
        conversation = Conversation(
            Session(self._engine, settings.limits, execute=settings.execute, key=key),
            self._batcher, self._desk, self.metrics,
            deadline=settings.deadline, oldest=settings.oldest, note=note,
        )  # fmt: skip
        await self._send(connection, wire.pack(self.metadata))
        pace, strikes, before = _Pace(), 0, None
        try:
            while True:
                await pace.wait()
                frame, watch = await connection.recv(), Stopwatch()
                self.metrics.count("requests")
                try:
                    with watch.part("total"):
                        reply = self._reply(conversation, frame, watch, before)
                        data = await _while_connected(connection, reply)
                except websockets.ConnectionClosed:
                    raise
                except Exception as error:
                    strikes += 1
                    if ending := await self._complain(connection, number, error, strikes):
                        return ending
                    continue
                await self._send(connection, data)
                strikes, before = 0, watch.seconds["total"]
                self.metrics.add(dict(watch.seconds))  # a late job may still write there
        finally:
            conversation.close()

    async def _reply(
        self,
        conversation: Conversation,
        frame: bytes | str,
        watch: Stopwatch,
        before: float | None,
    ) -> bytes:
        """The answer to a frame; `before` is how long the answer before took, in seconds."""
        received = time.monotonic()
        if isinstance(frame, str):
            raise wire.WireError("a text frame: messages are binary msgpack")
        with watch.part("decode"):
            request = parse(wire.unpack(frame))
        said = await conversation.answer(request, watch, received)
        if before is not None:
            said.setdefault("server_timing", {})["prev_total_ms"] = 1e3 * before
        with watch.part("encode"):
            return wire.pack(said)

    async def _complain(
        self, connection: ServerConnection, number: int, error: Exception, strikes: int
    ) -> str | None:
        """Answer an error; returns why the client is dropped, if it is."""
        self.metrics.count("errors")
        if not isinstance(error, UserError):
            *_, last = traceback.extract_tb(error.__traceback__)  # its message may be a payload's
            kind = type(error).__name__
            log.error("client %d: %s in %s:%s", number, kind, last.filename, last.lineno)
            await self._send(connection, "internal error")
            await connection.close(websockets.CloseCode.INTERNAL_ERROR)
            return "internal error"
        await self._send(connection, str(error))
        if isinstance(error, wire.WireError):
            await connection.close(websockets.CloseCode.INVALID_DATA)
            return "what it sends is no message"
        if strikes >= STRIKES:
            await connection.close(websockets.CloseCode.POLICY_VIOLATION)
            return f"{strikes} errors in a row"
        return None

    async def _send(self, connection: ServerConnection, data: bytes | str) -> None:
        """Raises TimeoutError for a client that does not read."""
        async with asyncio.timeout(self._settings.write_timeout):
            await connection.send(data)


class _Pace:
    """Lets a client send as fast as it may: so that it leaves time for the others."""

    def __init__(self):
        self._due = -math.inf

    async def wait(self) -> None:
        """Return when the next message may be read."""
        now = time.monotonic()
        self._due = max(self._due, now - BURST / FASTEST) + 1 / FASTEST
        await asyncio.sleep(max(0.0, self._due - now))


async def _while_connected(connection: ServerConnection, work: Coroutine) -> Any:
    """What `work` returns. Once the client is gone, it is cancelled: ConnectionClosed."""
    task = asyncio.ensure_future(work)
    closed = asyncio.ensure_future(connection.wait_closed())
    try:
        await asyncio.wait({task, closed}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise websockets.ConnectionClosedError(None, None)
        return task.result()
    finally:
        closed.cancel()
        task.cancel()
        del task  # its exception knows this frame: a circle would keep the message for long


@contextmanager
def serving(
    engine: Engine, settings: Settings, planner: Planner | None = None
) -> Iterator[Server]:
    """A server in a thread of its own, while the block runs."""
    started, stop = queue.Queue(), asyncio.Event()

    async def run() -> None:
        try:
            async with Server(engine, settings, planner) as server:
                started.put((server, asyncio.get_running_loop()))
                await stop.wait()
        except Exception as error:
            started.put((error, None))

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="server", daemon=True)
    thread.start()
    server, loop = started.get()
    if loop is None:
        raise server
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
