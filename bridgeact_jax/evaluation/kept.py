"""What an evaluation has finished, kept in its folder, so that the same command goes on."""

import io
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.evaluation.planners import ANSWERS, TRANSCRIPTS
from bridgeact_jax.evaluation.rollouts import Job, Outcome, run_job
from bridgeact_jax.files import write_bytes, write_text
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.training.config import differences

IDENTITY = "evaluation.json"  # what the folder is an evaluation of
BATCHES = "batches"
VIDEOS = "videos"
SHOWN = 4  # differences in a message, at most


def claim(out: Path, identity: Mapping, *, overwrite: bool) -> None:
    """Make `out` the folder of the evaluation that `identity` describes.

    It must be new, empty, or of that very evaluation, whose finished parts then stay; with
    `overwrite` it may be another evaluation's, which is removed. Raises UsageError for a folder
    of something else, UserError if it cannot be made or written to.
    """
    identity = json.loads(json.dumps(identity))
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
        names = {entry.name for entry in out.iterdir()}
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written to: {error.strerror}") from None
    if names and IDENTITY not in names:
        raise UsageError(f"--out={out} holds something else than an evaluation: choose another")
    if names:
        found = differences(json.loads((out / IDENTITY).read_text()), identity, "")
        if found and not overwrite:
            shown = "; ".join(phrase.lstrip(".") for phrase in found[:SHOWN])
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise UsageError(
                f"--out={out} holds another evaluation: {shown}{more}; repeat its command, choose "
                "another folder or replace it (--overwrite)"
            )
        if overwrite:
            for name in names:
                entry = out / name
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    write_text(out / IDENTITY, json.dumps(identity, indent=1))
    for name in (BATCHES, VIDEOS, ANSWERS, TRANSCRIPTS):
        (out / name).mkdir(exist_ok=True)


def run_once(task: tuple[Path, Job]) -> Outcome:
    """The outcome of a job: what `out` keeps of it, or else run now and kept.

    Args:
      task: (out, job).
    """
    out, job = task
    path = out / BATCHES / f"{job.name}.npz"
    if path.exists():
        with np.load(path) as saved:
            kept = json.loads(str(saved["kept"]))
            ends = np.cumsum(saved["lengths"])[:-1]
            plans = [[] for _ in job.episodes]
            for (episode, step, count), rows in zip(saved["issued"], saved["plans"], strict=True):
                plan = Waypoints(rows[:, :3], rows[:, 3:7], rows[:, 7], count)
                plans[episode].append((int(step), plan))
            commands = np.split(saved["commands"], ends)
            return Outcome(kept["records"], commands, plans, kept["seconds"])
    outcome = run_job(job, out)
    plans = [(i, *issued) for i, own in enumerate(outcome.plans) for issued in own]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        kept=json.dumps({"records": outcome.records, "seconds": outcome.seconds}),
        commands=np.concatenate(outcome.commands),
        lengths=[len(commands) for commands in outcome.commands],
        issued=np.array([(i, step, plan.count) for i, step, plan in plans]).reshape(-1, 3),
        plans=np.array([np.column_stack(plan[:3]) for _, _, plan in plans]),
    )
    write_bytes(path, buffer.getvalue())
    return outcome
