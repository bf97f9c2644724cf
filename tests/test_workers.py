"""Processes: results in order, and no way to hang."""

import os
import subprocess
import sys
import time

import jax
import pytest

from bridgeact_jax.errors import UserError
from bridgeact_jax.workers import AHEAD, map_in_processes


def die_at_three(number):
    if number == 3:
        os._exit(9)
    return number


def fail(number):
    raise UserError(f"job {number}")


def process_and_platform(number):
    return os.getpid(), jax.numpy.zeros(()).device.platform


def test_one_worker_is_this_process():
    assert list(map_in_processes(process_and_platform, [0, 1], 1)) == [(os.getpid(), "cpu")] * 2
    assert list(map_in_processes(abs, [], 4)) == []


@pytest.mark.slow
def test_results_come_in_order_from_other_processes():
    numbers = range(-3 * 2 * AHEAD, 0)
    assert list(map_in_processes(abs, numbers, 2)) == [-n for n in numbers]
    for process, platform in map_in_processes(process_and_platform, [0, 1], 2):
        assert process != os.getpid() and platform == "cpu"


@pytest.mark.slow
def test_a_killed_process_is_reported():
    started = time.monotonic()
    with pytest.raises(UserError, match="use fewer --workers"):
        list(map_in_processes(die_at_three, range(100), 2))
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_a_jobs_own_error_comes_through():
    with pytest.raises(UserError, match="job 0"):
        list(map_in_processes(fail, range(100), 2))


@pytest.mark.slow
def test_closing_ends_what_is_under_way():
    results = map_in_processes(time.sleep, [0.0, *[600.0] * 20], 2)
    next(results)
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 30


@pytest.mark.slow
def test_an_unknown_graphics_library_is_one_clear_line(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "bridgeact_jax.cli", "demos", "--episodes=1", f"--out={tmp_path}/x"],
        env={**os.environ, "MUJOCO_GL": "elg"}, capture_output=True, text=True,
    )
    assert result.returncode == 2 and "MUJOCO_GL=elg" in result.stderr
    assert "egl" in result.stderr and "Traceback" not in result.stderr
