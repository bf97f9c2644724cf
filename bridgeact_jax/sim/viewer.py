"""MuJoCo's interactive viewer on an environment."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

from bridgeact_jax.errors import UserError
from bridgeact_jax.sim.environment import CONTROL_PERIOD, Environment
from bridgeact_jax.sim.rendering import Stage, overview


@contextlib.contextmanager
def watch(env: Environment) -> Iterator[Callable[[], bool]]:
    """Open a window on the environment; call what it gives after every reset and step.

    Each call shows the present state, waits until a control period has passed since the last one,
    and tells whether the window is still open. Raises UserError where there is no display.
    """
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        raise UserError("the viewer needs a display: DISPLAY is not set (pictures need none)")
    import mujoco.viewer

    stage = Stage(env.scene)
    try:
        window = mujoco.viewer.launch_passive(
            stage.model, stage.data, show_left_ui=False, show_right_ui=False
        )
    except Exception as error:  # what is raised depends on the platform
        raise UserError(f"the viewer cannot be opened: {error}") from error
    with window.lock():
        for group in ("geomgroup", "sitegroup"):
            getattr(window.opt, group)[:] = getattr(stage.option, group)
        seen_from = overview()
        for part in ("lookat", "distance", "azimuth", "elevation"):
            setattr(window.cam, part, getattr(seen_from, part))
    shown = time.monotonic()

    def show() -> bool:
        nonlocal shown
        if window.is_running():
            with window.lock():
                changed = stage.follow(env.world)
            for texture in changed:
                window.update_texture(texture)
            window.sync()
        time.sleep(max(0.0, shown + CONTROL_PERIOD - time.monotonic()))
        shown = time.monotonic()
        return window.is_running()

    with window:
        show()
        yield show
