"""Chooses the graphics library before any test module imports mujoco."""

import bridgeact_jax.sim  # noqa: F401
