"""Runs before any test module imports jax."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("NPROC", "32")  # emulated devices deadlock on machines with few cores

from hypothesis import settings

settings.register_profile("bridgeact", deadline=None, max_examples=50)
settings.load_profile("bridgeact")
