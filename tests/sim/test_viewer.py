"""The interactive viewer, with a window that only takes notes."""

import contextlib
import sys
import types

import mujoco
import numpy as np
import pytest

from bridgeact_jax.errors import UserError
from bridgeact_jax.sim.environment import Environment
from bridgeact_jax.sim.viewer import watch


class Window(contextlib.AbstractContextManager):
    def __init__(self, model, data, **options):
        self.model, self.data = model, data
        self.opt, self.cam, self.places = mujoco.MjvOption(), mujoco.MjvCamera(), []

    def lock(self):
        return contextlib.nullcontext()

    def sync(self):
        self.places.append(self.data.site("tcp").xpos.copy())

    def is_running(self):
        return len(self.places) < 4

    def __exit__(self, *_):
        self.places.append("closed")


@pytest.fixture
def windows(monkeypatch):
    opened = []

    def launch_passive(*args, **options):
        opened.append(Window(*args, **options))
        return opened[-1]

    module = types.SimpleNamespace(launch_passive=launch_passive)
    monkeypatch.setitem(sys.modules, "mujoco.viewer", module)
    monkeypatch.setattr(mujoco, "viewer", module, raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    return opened


def test_the_window_follows_the_environment(windows):
    env = Environment("reach")
    measured = env.reset(0, 0)
    places, open_ = [measured.position], []
    with watch(env) as show:
        for _ in range(3):
            measured = env.step(measured.position + [0, 0, 0.01], measured.rotation, 1.0)
            places.append(measured.position)
            open_.append(show())
    (window,) = windows
    np.testing.assert_allclose(window.places[:-1], places, atol=1e-9)
    assert open_ == [True, True, False] and window.places[-1] == "closed"


def test_without_a_display(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    env = Environment("reach")
    env.reset(0, 0)
    with pytest.raises(UserError, match="display"), watch(env):
        pass


def test_a_viewer_that_cannot_be_opened(windows, monkeypatch):
    def launch_passive(*_, **__):
        raise RuntimeError("needs mjpython")

    monkeypatch.setattr(mujoco.viewer, "launch_passive", launch_passive)
    env = Environment("reach")
    env.reset(0, 0)
    with pytest.raises(UserError, match="mjpython"), watch(env):
        pass
