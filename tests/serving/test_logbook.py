"""The log is written beside the server, in order, and never makes it wait."""

import threading

import numpy as np

from bridgeact_jax.serving.logbook import WAITING, Logbook
from bridgeact_jax.serving.observations import Request
from bridgeact_jax.serving.sessions import Step


class Log:
    """Stands for a `RerunLog`; writes once it may."""

    def __init__(self):
        self.may, self.steps, self.closed = threading.Event(), [], False

    def step(self, stream, number, *, time, position, cloud, guidance, actions):
        assert self.may.wait(20)
        self.steps.append((stream, number, time))

    def close(self):
        self.closed = True


def test_steps_are_numbered_by_stream_and_what_finds_no_room_is_counted():
    log = Log()
    book, step = Logbook(log), Step(np.zeros((8, 8), np.float32), {})
    for number in range(WAITING + 50):
        stream = f"client_{number % 2}"
        book.note(stream, Request("act", np.zeros(3), time=0.1 * number), step)
    assert 48 <= book.left_out <= 50
    log.may.set()
    book.close()
    assert log.closed and len(log.steps) == WAITING + 50 - book.left_out
    assert log.steps[:4] == [("client_0", 0, 0.0), ("client_1", 0, 0.1), ("client_0", 1, 0.2),
                             ("client_1", 1, 0.1 * 3)]  # fmt: skip
