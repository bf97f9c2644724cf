"""MuJoCo tasks for a Panda arm: environments, point clouds, scripted experts and demonstrations."""

import ctypes.util
import os
import sys

from bridgeact_jax.errors import UsageError

# MuJoCo chooses its graphics library when it is imported, and then fails if that is missing.
_headless = sys.platform == "linux" and not os.environ.get("DISPLAY")
if _headless and ctypes.util.find_library("EGL") and ctypes.util.find_library("GL"):
    os.environ.setdefault("MUJOCO_GL", "egl")
try:
    import mujoco  # noqa: F401
except (RuntimeError, AttributeError) as error:
    if "MUJOCO_GL" not in os.environ:
        raise
    raise UsageError(
        f"MUJOCO_GL={os.environ['MUJOCO_GL']} cannot be used here ({error}): leave it unset, or "
        "choose from egl, glx, osmesa (Linux), cgl (macOS), glfw, disable"
    ) from None
