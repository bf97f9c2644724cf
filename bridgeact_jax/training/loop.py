"""The training loop: one for all models and stages."""

import contextlib
import math
import time

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from bridgeact_jax.progress import Progress
from bridgeact_jax.training.learner import Learner, Sampler
from bridgeact_jax.training.mesh import batch_sharding, replicated, to_devices
from bridgeact_jax.training.metrics import MetricsWriter, Profiler, Stopwatch
from bridgeact_jax.training.nonfinite import NotFinite
from bridgeact_jax.training.preemption import Notice, Stopped
from bridgeact_jax.training.start import open_for_writing, restore_or_initialise
from bridgeact_jax.training.state import TrainState
from bridgeact_jax.training.stream import stream


def run(learner: Learner, workdir: epath.PathLike) -> dict[str, float]:
    """Train until `config.steps`, from the latest checkpoint in `workdir` if there is one.

    Args:
      workdir: where checkpoints and metrics go; gs:// works.

    Returns:
      The last figures logged; empty if the run had ended before.
    """
    # ---- state
    config, sampler, shardings = learner.config, learner.sampler, learner.shardings
    watch = Stopwatch(config.batch_size, jax.device_count())
    workdir = epath.Path(workdir)
    first_process = jax.process_index() == 0
    if first_process:
        print(*learner.notes, sep="\n", flush=True)
    source = learner.source
    state = restore_or_initialise(
        config, workdir, source, learner.shapes, shardings, learner.first
    )
    first = int(state.step)
    if first == config.steps:
        return {}
    if first and first_process:
        print(f"going on from step {first}", flush=True)

    # ---- step
    place = batch_sharding(learner.mesh)
    step_fn = jax.jit(
        learner.step,
        in_shardings=(shardings, place),
        out_shardings=(shardings, replicated(learner.mesh)),
        donate_argnums=0,
    )
    batches = stream(
        sampler,
        seed=config.seed,
        batch_size=config.batch_size,
        first_step=first,
        shard=jax.process_index(),
        num_shards=jax.process_count(),
    )

    # ---- loop
    with contextlib.ExitStack() as stack:
        notice = stack.enter_context(Notice())
        checkpoints = stack.enter_context(open_for_writing(workdir, config.checkpoints_kept))
        step_fn = _compiled(step_fn, state, sampler, config.batch_size, place)
        if notice.reached():
            raise Stopped(
                f"told to stop (SIGTERM) before step {first + 1}: nothing is lost; the same "
                "command goes on from there"
            )
        progress = stack.enter_context(Progress(config.steps - first, "steps", learner.label))
        profiler = stack.enter_context(Profiler(workdir / "profile", config.profile_steps))
        metrics = None
        if first_process:
            learner.begin(workdir)
            metrics = MetricsWriter(workdir, first, config)
            stack.enter_context(contextlib.closing(metrics))
        not_finite = NotFinite(sampler, config, workdir, first, learner.finite)
        figures, before, flags = {}, None, []
        saved = time.monotonic()
        for step in range(first + 1, config.steps + 1):
            profiler.before(step)
            with watch.step():
                with watch.waiting():
                    raw = next(batches)
                batch = to_devices(raw, place)
                with jax.transfer_guard("disallow"):
                    state, latest = step_fn(state, batch)
                jax.block_until_ready(before)  # at most two batches are in flight
                before = latest
                flags.append(latest.pop("finite"))
                told = notice.reached()
                planned = step % config.checkpoint_every == 0 or step == config.steps
                logging = told or planned or step % config.log_every == 0
                if logging:
                    finite, values = jax.device_get((flags, latest))
            profiler.after(step, latest)
            checkpoint, scores = told or planned, None
            if logging:
                not_finite.check(step, finite)
                flags = []
                figures = {name: float(v) for name, v in values.items() if math.isfinite(v)}
                figures |= watch.figures()
                if planned and learner.validate is not None and not told:
                    scores = learner.validate(state)
                    figures |= scores
                    told = notice.reached()
                if metrics is not None:
                    metrics.write(step, figures)
                progress.update(
                    0,
                    samples_per_second=round(figures["samples_per_second"]),
                    loss=f"{figures.get('loss', math.nan):.4f}",
                )
                checkpoint = checkpoint or _due(saved, config.checkpoint_minutes)
            if checkpoint:
                checkpoints.save(step, state, config, source, scores)
                saved = time.monotonic()
            progress.update(1)
            if told and step < config.steps:
                raise Stopped(
                    f"told to stop (SIGTERM): a checkpoint of step {step} is in {workdir}; the "
                    "same command goes on from there"
                )
    return figures


def _compiled(step_fn, state: TrainState, sampler: Sampler, batch_size: int, place):
    """The step compiled for a batch's shapes, after a line that says what it takes of a device."""
    one = sampler.gather(np.zeros(1, np.int64))
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype, sharding=place), one
    )
    start = time.monotonic()
    compiled = step_fn.lower(state, batch).compile()
    memory = compiled.memory_analysis()
    if jax.process_index() == 0:
        print(
            f"step compiled in {time.monotonic() - start:.0f} s; on each device "
            f"{memory.argument_size_in_bytes / 2**20:,.1f} MiB of state and batch, "
            f"{memory.temp_size_in_bytes / 2**20:,.1f} MiB while it runs",
            flush=True,
        )
    return compiled


def _due(saved: float, minutes: float) -> bool:
    """Whether the last checkpoint is too old, by the first process's clock."""
    late = minutes > 0 and time.monotonic() - saved >= 60 * minutes
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(late)))
