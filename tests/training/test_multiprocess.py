"""Runs of two processes with four devices each, and states that move between topologies."""

import os
import signal
import socket
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
import pytest
from etils import epath

from bridgeact_jax import cli
from bridgeact_jax.training.checkpoint import Checkpoints
from bridgeact_jax.training.mesh import make_mesh, state_sharding
from tests.devices import emulated
from tests.training.conftest import CONFIG, command, figures
from tests.training.test_training import assert_identical

STEPS = 12
SMALL = (
    f"--config.steps={STEPS}", "--config.batch_size=16", "--config.log_every=1",
    "--config.checkpoint_every=2", "--config.model.widths=(8,)", "--config.model.horizon=2",
    "--config.model.condition=128", "--config.model.points=16", "--config.model.keypoints=2",
    "--config.model.point_widths=(8,16)", "--config.data.history=4", "--config.data.waypoints=5",
    "--config.optimizer.warmup_steps=1",
)  # fmt: skip
ENDS_WITHIN = 120  # seconds, of a process whose peer was killed; 30 of them are JAX's patience


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def words(store, workdir, *more) -> list[str]:
    return ["pretrain", CONFIG, f"--store={store}", f"--workdir={workdir}", *SMALL, *more]


def two(line: list[str]) -> list[subprocess.Popen]:
    """A command in two processes of four devices, started as SLURM does."""
    common = {
        **os.environ,
        "JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}",
        **emulated(4),
        "SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_NODES": "1",
    }  # fmt: skip
    return [
        subprocess.Popen(
            line,
            env={**common, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def start(store, workdir) -> list[subprocess.Popen]:
    """Both processes of a run, whose parameters lie over two devices each."""
    return two(command(*words(store, workdir, "--distributed", "--config.fsdp=2"), tiny=False))


def finish(processes) -> None:
    for process in processes:
        said = process.communicate()[1]
        assert process.returncode == 0, said


@pytest.fixture(scope="module")
def undisturbed(tiny_store, tmp_path_factory):
    """A run of two processes."""
    workdir = tmp_path_factory.mktemp("two") / "undisturbed"
    finish(start(tiny_store, workdir))
    return workdir


@pytest.mark.slow
def test_two_processes_train_as_one_device_does(tiny_store, undisturbed, tmp_path):
    assert cli.main(["bridgeact", *words(tiny_store, tmp_path / "one")]) == 0
    one, two = figures(tmp_path / "one"), figures(undisturbed)
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for name, tolerance in (("loss", 1e-5), ("gradient_norm", 1e-4)):
        values = [[line[name] for line in lines] for lines in (one, two)]
        np.testing.assert_allclose(values[1], values[0], rtol=tolerance, err_msg=name)


@pytest.mark.slow
def test_one_of_two_is_killed_and_both_go_on_bit_identical(tiny_store, undisturbed, tmp_path):
    workdir = tmp_path / "killed"
    survivor, victim = start(tiny_store, workdir)
    while victim.poll() is None:
        if any(path.name.isdigit() for path in workdir.glob("checkpoints/*")):
            break
        time.sleep(0.005)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    said = survivor.communicate(timeout=ENDS_WITHIN)[1]
    lost = "process 0 of 2 has lost another", "another task died"  # in a step, or outside
    assert survivor.returncode in (1, -signal.SIGABRT), said
    assert any(phrase in said for phrase in lost) and "Traceback" not in said, said
    finish(start(tiny_store, workdir))
    assert_identical(workdir, undisturbed)


class State(NamedTuple):
    """A leaf that is sharded, one that is copied, one that does not divide."""

    step: jax.Array
    kernel: jax.Array
    bias: jax.Array
    odd: jax.Array


def state_on(devices, fsdp: int) -> State:
    """The same numbers, laid out by the rule for `devices`."""
    values = State(
        np.asarray(3, np.int32),
        np.arange(256 * 96, dtype=np.float32).reshape(256, 96),
        np.linspace(0, 1, 96, dtype=np.float32),
        np.arange(383 * 127, dtype=np.float32).reshape(383, 127),
    )
    return jax.device_put(values, state_sharding(make_mesh(fsdp, devices), values))


def save(workdir, state: State) -> None:
    checkpoints = Checkpoints(epath.Path(workdir), keep=1)
    checkpoints.save(3, state, ml_collections.ConfigDict(), {})
    checkpoints.close()


def check_restored(workdir, like: State) -> None:
    checkpoints = Checkpoints(epath.Path(workdir))
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
    )
    restored = checkpoints.restore(abstract)
    checkpoints.close()
    for leaf, expected in zip(restored, like, strict=True):
        assert leaf.sharding == expected.sharding
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(expected))


_ON_EIGHT = """
import os, sys, jax
if "SLURM_PROCID" in os.environ:
    jax.distributed.initialize()
from tests.training.test_multiprocess import check_restored, save, state_on
state = state_on(jax.devices(), 4)
assert len(jax.devices()) == 8 and len(state.kernel.sharding.device_set) == 8
assert state.kernel.addressable_shards[0].data.shape == (64, 96)
if jax.process_count() == 1:
    check_restored(sys.argv[2], state)
save(sys.argv[1], state)
"""


@pytest.mark.slow
def test_a_state_moves_from_one_device_to_eight_and_back(tmp_path):
    one = state_on(jax.devices()[:1], 1)
    save(tmp_path / "one", one)
    line = [sys.executable, "-c", _ON_EIGHT, str(tmp_path / "eight"), str(tmp_path / "one")]
    subprocess.run(line, check=True, env={**os.environ, **emulated(8)})
    check_restored(tmp_path / "eight", one)


@pytest.mark.slow
def test_a_state_moves_from_two_processes_to_one(tmp_path):
    finish(two([sys.executable, "-c", _ON_EIGHT, str(tmp_path / "two")]))
    check_restored(tmp_path / "two", state_on(jax.devices()[:1], 1))
