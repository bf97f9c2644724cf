"""Runs that are told to stop, run out of disk or stop being finite."""

import errno
import json
import os
import re
import resource
import signal
import subprocess
import time
from dataclasses import replace
from typing import NamedTuple

import ml_collections
import numpy as np
import pytest
from etils import epath

from bridgeact_jax.datasets.loader import WindowSampler
from bridgeact_jax.errors import UserError
from bridgeact_jax.training.checkpoint import Checkpoints, open_checkpoints
from bridgeact_jax.training.config import base_config
from bridgeact_jax.training.metrics import MetricsWriter
from bridgeact_jax.training.nonfinite import FILE, NotFinite, finite_windows
from bridgeact_jax.training.preemption import Notice
from bridgeact_jax.training.start import open_for_writing
from tests.training.conftest import CONFIG, command, figures, run
from tests.training.test_loader import OPTIONS, random_trajectories
from tests.training.test_training import assert_identical

STEPS = "--config.steps=4000", "--config.checkpoint_every=4000"


def words(store, workdir, *more):
    return "pretrain", CONFIG, f"--store={store}", f"--workdir={workdir}", *more


def latest(workdir) -> int:
    checkpoints = open_checkpoints(workdir)
    step = checkpoints.latest
    checkpoints.close()
    return step


def test_a_notice_is_heard_only_inside():
    before = signal.getsignal(signal.SIGTERM)
    with Notice() as notice:
        assert not notice.reached()
        signal.raise_signal(signal.SIGTERM)
        assert notice.reached()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_told_to_stop_it_saves_and_says_so(tiny_store, tmp_path):
    workdir = tmp_path / "told"
    process = subprocess.Popen(
        command(*words(tiny_store, workdir, *STEPS)), stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not (workdir / "metrics.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    assert process.returncode == 143, said
    step = latest(workdir)
    assert 0 < step < 4000 and f"a checkpoint of step {step} is in {workdir}" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_run_that_was_told_to_stop_goes_on_bit_identical(
    tiny_store, pretrained, tmp_path, monkeypatch
):
    """From a step at which no checkpoint was planned."""
    line = words(tiny_store, tmp_path, "--config.steps=12")
    write = MetricsWriter.write

    def told(self, step, figures):
        if step == 4:
            signal.raise_signal(signal.SIGTERM)
        write(self, step, figures)

    with monkeypatch.context() as during:
        during.setattr(MetricsWriter, "write", told)
        stopped = run(*line, check=False)
    assert stopped.returncode == 143 and f"step 5 is in {tmp_path}" in stopped.stderr
    assert latest(tmp_path) == 5
    run(*line)
    assert_identical(tmp_path, pretrained)


@pytest.mark.slow
def test_checkpoints_by_the_clock(tiny_store, tmp_path):
    run(*words(tiny_store, tmp_path, "--config.steps=12", "--config.checkpoint_every=100",
               "--config.checkpoint_minutes=1e-9", "--config.checkpoints_kept=9"))  # fmt: skip
    saved = {int(path.name) for path in tmp_path.glob("checkpoints/*") if path.name.isdigit()}
    assert saved == {2, 4, 6, 8, 10, 12}


class Two(NamedTuple):
    """A state that takes no time to write."""

    step: np.ndarray
    params: np.ndarray


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Seven checkpoints of which two are kept and the best; step 5 was not validated."""
    workdir = tmp_path_factory.mktemp("judged")
    checkpoints = Checkpoints(epath.Path(workdir), keep=2)
    assert checkpoints.latest is checkpoints.best is None
    for step, loss in enumerate([3.0, 1.0, 2.0, float("nan"), None, 1.5, 4.0], start=1):
        metrics = None if loss is None else {"validation_loss": loss}
        state = Two(np.asarray(step), np.full(3, step))
        checkpoints.save(step, state, ml_collections.ConfigDict(), {}, metrics)
    assert (checkpoints.latest, checkpoints.best) == (7, 2)
    checkpoints.close()
    return workdir


def test_the_latest_and_the_best_are_kept(judged):
    assert {path.name for path in (judged / "checkpoints").iterdir()} == {"2", "6", "7"}
    checkpoints = open_checkpoints(judged)
    assert (checkpoints.latest, checkpoints.best) == (7, 2)
    state = checkpoints.restore(Two(np.asarray(0), np.zeros(3, int)))
    assert state.step == 7
    checkpoints.close()


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left"), ValueError("No space left")]
)
def test_a_checkpoint_that_cannot_be_written_is_an_error(failure, tmp_path, monkeypatch):
    def full(*_, **__):
        raise failure

    checkpoints = Checkpoints(epath.Path(tmp_path), keep=1)
    monkeypatch.setattr(checkpoints._manager, "wait_until_finished", full)
    with pytest.raises(UserError, match="a checkpoint cannot be written .*No space left"):
        checkpoints.close()


def test_figures_that_cannot_be_written_are_an_error(tmp_path, monkeypatch):
    metrics = MetricsWriter(epath.Path(tmp_path), 0, base_config())

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(metrics._path), "write_text", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        metrics.write(1, {"loss": 1.0})
    metrics.close()


@pytest.mark.parametrize("taken", ["run", "run/checkpoints"])
def test_a_file_in_the_place_of_the_folder_is_an_error(taken, tmp_path):
    path = tmp_path / taken
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(UserError, match=rf"{taken}: cannot be (made|opened)"):
        open_for_writing(epath.Path(tmp_path / "run"), 1)


@pytest.mark.slow
def test_out_of_disk_is_said_once(tiny_store, tmp_path):
    """A limit on the size of files stands for a full disk: what is written fails alike."""
    limit = 2**15
    result = subprocess.run(
        command(*words(tiny_store, tmp_path, "--config.steps=12")),
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9"},  # no new entries
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert result.returncode == 1, result.stderr
    assert not re.search("Traceback|Exception|ERROR:|Event loop", result.stderr), result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, result.stderr
    assert "checkpoints: a checkpoint cannot be written (File too large); make room" in said[0]


@pytest.mark.slow
def test_told_to_stop_while_it_compiles_it_never_starts(tiny_store, tmp_path):
    process = subprocess.Popen(
        command(*words(tiny_store, tmp_path, *STEPS)), stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not (tmp_path / "checkpoints").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    assert process.returncode == 143, said
    assert "before step 1: nothing is lost" in said and "Traceback" not in said
    assert not list((tmp_path / "checkpoints").iterdir())
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.slow
def test_divergence_is_skipped_as_often_as_told_then_stops_with_its_batch(tiny_store, tmp_path):
    options = "--config.optimizer.learning_rate=1e30", "--config.skip_nonfinite=2"
    result = run(*words(tiny_store, tmp_path, "--config.steps=8", *options), check=False)
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    for count in (1, 2):
        assert f"not finite at step {count + 1}, skipped ({count} of 2)" in result.stderr
    assert "error: not finite at step 4 (after 2 that were skipped): the batch" in result.stderr
    assert "is finite, so training diverged" in result.stderr
    assert f"{tiny_store}, episode " in result.stderr
    listed = json.loads((tmp_path / FILE).read_text())
    assert [one["step"] for one in listed] == [2, 3, 4]
    assert all(1 <= len(one["windows"]) <= 16 for one in listed)
    assert latest(tmp_path) == 2
    assert [line["step"] for line in figures(tmp_path)] == [2]


@pytest.fixture
def broken(monkeypatch):
    """A sampler whose second store has a broken frame, and which draws five rows around it."""
    one, two = (
        replace(random_trajectories(seed), name=f"stores/{seed}") for seed in (0, 1)
    )
    two.position[11, 2] = np.inf  # episode 1 (rows 9 to 31), frame 2
    two.gripper_width[:] = np.nan
    sampler = WindowSampler(one, two, probability=(0.5, 0.5), **OPTIONS)
    rows = np.array([0, 30, 46 + 11, 46 + 1, 46 + 40])
    monkeypatch.setattr(sampler, "rows", lambda *_: rows)
    return sampler


def test_windows_that_are_not_finite_are_named(broken, tmp_path):
    windows = broken.gather(broken.rows())
    assert list(finite_windows(windows)) == [True, True, False, True, True]
    before = np.arange(46, 46 + 8)  # the episode before, whose padding reaches the broken frame
    assert finite_windows(broken.gather(before)).all()
    not_finite = NotFinite(broken, base_config(), epath.Path(tmp_path), 0)
    not_finite.check(6, [True, True])
    with pytest.raises(UserError, match="not finite at step 8: .*1, episode 1, row 2; convert"):
        not_finite.check(8, [True, False])
    windows = [{"dataset": "stores/1", "episode": 1, "row": 2}]
    assert json.loads((tmp_path / FILE).read_text()) == [{"step": 8, "windows": windows}]


def test_skipped_steps_are_counted_across_restarts(broken, tmp_path, capsys):
    config = base_config()
    config.skip_nonfinite = 2
    workdir = epath.Path(tmp_path)
    NotFinite(broken, config, workdir, 0).check(5, [False, True, False])
    said = capsys.readouterr().err
    assert "step 3, skipped (1 of 2)" in said and "step 5, skipped (2 of 2)" in said
    NotFinite(broken, config, workdir, 4).check(5, [False])  # step 5 was not reached: once more
    with pytest.raises(UserError, match="step 6 .after 2 that were skipped"):
        NotFinite(broken, config, workdir, 5).check(6, [False])
