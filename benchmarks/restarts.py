"""Does a training run survive being killed again and again?

    python benchmarks/restarts.py [--kills=20] [--work=DIR] [--steps=5000] [--seed=0]

Trains a tiny model with the real command. The run is killed `kills` times by SIGKILL and then as
often by SIGTERM, each time at a random moment from its start on, so that start-up, compilation,
training and the writing of checkpoints are all met, and is started again with the same command.
Then it is left alone to its end and compared with a run that was never disturbed.

One line a start: the signal, the seconds until it came, the step it went on from, the last step
done, the last complete checkpoint, and the steps that were lost. Exit status 1 unless every start
went on from the last complete checkpoint (after SIGTERM: lost nothing), and the final states are
bit-identical.
"""

import argparse
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

CHECKPOINT_EVERY = 5
TINY = [
    "--config=configs/demo.py:pretrain", f"--config.checkpoint_every={CHECKPOINT_EVERY}",
    "--config.log_every=1", "--config.batch_size=16", "--config.model.widths=(8,)",
    "--config.model.horizon=2", "--config.model.condition=16", "--config.model.points=16",
    "--config.model.point_widths=(8,16)", "--config.model.keypoints=2", "--config.data.history=4",
    "--config.data.waypoints=5", "--config.optimizer.warmup_steps=1",
]  # fmt: skip
ROOT = pathlib.Path(__file__).resolve().parents[1]


def write_store(path: pathlib.Path) -> None:
    """A few episodes of a hand that closes halfway along a line."""
    from bridgeact_jax.datasets.episode import Episode
    from bridgeact_jax.datasets.store import StoreWriter

    rng = np.random.default_rng(0)
    along = np.linspace(0, 1, 20)[:, None]
    with StoreWriter(path, with_cloud=False) as writer:
        for _ in range(6):
            start, end = rng.uniform(-0.2, 0.2, (2, 3))
            episode = Episode(
                time=np.arange(20) / 10,
                position=(start + along * (end - start)).astype(np.float32),
                rotation=np.tile([1.0, 0, 0, 0], (20, 1)).astype(np.float32),
                gripper=(np.arange(20) < 10).astype(np.float32),
                gripper_width=np.full(20, np.nan, np.float32),
            )
            writer.append(episode, np.array([0, 10, 19]))
        writer.finish(card="test")


class Run:
    """One training run in a folder, started as often as need be."""

    def __init__(self, store: pathlib.Path, workdir: pathlib.Path, steps: int):
        self._workdir = workdir
        self._line = [sys.executable, "-m", "bridgeact_jax.cli", "pretrain", f"--store={store}",
                      f"--workdir={workdir}", *TINY, f"--config.steps={steps}"]  # fmt: skip

    def start(self, seconds: float | None = None, number: int | None = None) -> tuple[int, str]:
        """Run to the end, or send signal `number` after `seconds`. (exit status, output)."""
        process = subprocess.Popen(
            self._line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if seconds is not None:
            time.sleep(seconds)
            process.send_signal(number)
        said = process.communicate()[0]
        return process.returncode, said

    def checkpoint(self) -> int:
        """The last complete one, 0 if there is none."""
        names = [path.name for path in self._workdir.glob("checkpoints/*")]
        return max([int(name) for name in names if name.isdigit()], default=0)

    def logged(self) -> list[int]:
        """The steps in its figures, in order."""
        path = self._workdir / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line)["step"] for line in lines]

    def leaves(self) -> list[np.ndarray]:
        """Every array of the last checkpoint."""
        import jax
        import orbax.checkpoint as ocp

        state = self._workdir / "checkpoints" / str(self.checkpoint()) / "state"
        return jax.tree.leaves(ocp.PyTreeCheckpointer().restore(state.resolve()))


def disturb(run: Run, kills: int, longest: float, rng: random.Random) -> int:
    """Kill the run again and again; returns how many starts went wrong."""
    wrong = 0
    for number in [signal.SIGKILL] * kills + [signal.SIGTERM] * kills:
        before, seconds = run.checkpoint(), rng.uniform(0.0, longest)
        status, said = run.start(seconds, number)
        found = re.search(r"going on from step (\d+)", said)
        done = max([*run.logged(), before])
        lost = done - run.checkpoint()
        told = status == 128 + signal.SIGTERM
        fine = (
            status in (-number, 128 + signal.SIGTERM)
            and (found is None or int(found[1]) == before)
            and 0 <= lost <= 2 * CHECKPOINT_EVERY  # one is being written, one not begun
            and not (told and lost)
        )
        wrong += not fine
        print(
            f"{number.name:8} {seconds:6.1f} s  from {found[1] if found else '-':>5}  done {done:5}"
            f"  checkpoint {run.checkpoint():5}  lost {lost:3}  exit {status:4}"
            f"{'' if fine else '  WRONG'}",
            flush=True,
        )
        if not fine:
            print(said, file=sys.stderr)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=pathlib.Path, default=None)
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or pathlib.Path(scratch)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(work / "compiled")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
        store = work / "store"
        if not store.exists():
            write_store(store)
        undisturbed = Run(store, work / "undisturbed", options.steps)
        status, said = undisturbed.start()
        if status:
            sys.exit(said)
        start = time.monotonic()
        undisturbed.start()  # there already: what a start takes without compiling
        longest = 2 * (time.monotonic() - start) + 5
        run = Run(store, work / "disturbed", options.steps)
        wrong = disturb(run, options.kills, longest, random.Random(options.seed))
        status, said = run.start()
        if status:
            sys.exit(said)
        steps = run.logged()
        complete = steps == list(range(1, options.steps + 1))
        pairs = zip(run.leaves(), undisturbed.leaves(), strict=True)
        same = all(np.array_equal(a, b) for a, b in pairs)
        print(
            f"{2 * options.kills} kills, {wrong} starts went wrong; every step logged once: "
            f"{complete}; final state bit-identical: {same}"
        )
        return 0 if complete and same and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
