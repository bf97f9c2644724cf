"""The training loop: one for both stages."""

import contextlib
import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from bridgeact_jax.datasets.loader import Windows, WindowSampler
from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.models import normalizer as normalizer_lib
from bridgeact_jax.models.action_expert import ActionExpert, ExpertConfig, example_inputs
from bridgeact_jax.progress import Progress
from bridgeact_jax.training.checkpoint import Checkpoints, load_expert
from bridgeact_jax.training.config import check_config, differences, expert_config
from bridgeact_jax.training.data import open_data
from bridgeact_jax.training.mesh import (
    batch_sharding,
    check_batch,
    make_mesh,
    replicated,
    state_sharding,
)
from bridgeact_jax.training.metrics import MetricsWriter, Stopwatch
from bridgeact_jax.training.nonfinite import stop as not_finite
from bridgeact_jax.training.preemption import Notice, Stopped
from bridgeact_jax.training.step import (
    TrainState,
    make_example,
    make_optimizer,
    make_train_step,
)

NORMALIZER_WINDOWS = 8192
MAY_CHANGE = (
    "log_every", "checkpoint_every", "checkpoint_minutes", "checkpoints_kept", "fsdp", "accumulate"
)  # fmt: skip


def train(
    config: ml_collections.ConfigDict,
    *,
    workdir: epath.PathLike,
    store: epath.PathLike | None = None,
    mixture: epath.PathLike | None = None,
    stores: epath.PathLike | None = None,
    init: epath.PathLike | None = None,
) -> dict[str, float]:
    """Train until `config.steps`, from the latest checkpoint in `workdir` if there is one.

    Args:
      workdir: where checkpoints and metrics go; gs:// works.
      store: a converted trajectory store, local to this host; or instead
      mixture: a mixture's name or file, and stores: the folder of its stores.
      init: workdir of the run whose EMA parameters and normalizer to start from.

    Returns:
      The last figures logged; empty if the run had ended before.
    """
    # ---- data
    watch = Stopwatch(config.batch_size, jax.device_count())
    config = ml_collections.FrozenConfigDict(config)
    check_config(config)
    model = expert_config(config)
    data = open_data(config, model, store=store, mixture=mixture, stores=stores)
    source = {**data.source, "init": None if init is None else str(init)}
    if source["mixture"] and jax.process_index() == 0:
        print(data.shares(), flush=True)

    # ---- state: shapes, then shardings, then values
    mesh = make_mesh(config.fsdp)
    check_batch(config, mesh)
    optimizer = make_optimizer(config)
    workdir = epath.Path(workdir)

    def initial_state(params: dict | None, normalizer: normalizer_lib.Normalizer) -> TrainState:
        if params is None:
            key = jax.random.key(config.seed)
            params = ActionExpert(model).init(key, *example_inputs(model))["params"]
        params = jax.tree.map(jnp.copy, params)
        ema = jax.tree.map(jnp.copy, params)
        return TrainState(
            jnp.zeros((), jnp.int32), params, ema, optimizer.init(params), normalizer
        )

    shapes = jax.eval_shape(initial_state, None, normalizer_lib.identity())
    shardings = state_sharding(mesh, shapes)
    past = Checkpoints(workdir)
    if past.latest is not None:
        _check_same_run(past, config, source, workdir)
        abstract = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
        )
        state = past.restore(abstract)
    else:
        params = None
        if init is None:
            normalizer = _fit_normalizer(data.sampler, model, config)
        else:
            saved, _, params, normalizer = load_expert(init)
            _check_same_model(saved, config, init)
        start = jax.device_get((params, normalizer))  # from one device, for all of the mesh
        state = jax.jit(initial_state, out_shardings=shardings)(*start)
    past.close()

    # ---- step
    place = batch_sharding(mesh)
    step_fn = jax.jit(
        make_train_step(model, config, optimizer),
        in_shardings=(shardings, place),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )
    first = int(state.step)
    if first == config.steps:
        return {}
    stream = data.sampler.stream(
        seed=config.seed,
        batch_size=config.batch_size,
        first_step=first,
        shard=jax.process_index(),
        num_shards=jax.process_count(),
    )

    # ---- loop
    with contextlib.ExitStack() as stack:
        label = "fine-tuning with clouds" if config.use_cloud else "pre-training"
        notice = stack.enter_context(Notice())
        step_fn = _compiled(step_fn, state, data.sampler, config.batch_size, place)
        progress = stack.enter_context(Progress(config.steps - first, "steps", label))
        checkpoints = _open_for_writing(workdir, config.checkpoints_kept)
        stack.callback(checkpoints.close)
        metrics = None
        if jax.process_index() == 0:
            data.write_shares(workdir)
            metrics = stack.enter_context(contextlib.closing(MetricsWriter(workdir, first)))
        figures, before, flags = {}, None, []
        saved = time.monotonic()
        for step in range(first + 1, config.steps + 1):
            with watch.step():
                with watch.waiting():
                    raw = next(stream)
                batch = _to_devices(raw, place)
                with jax.transfer_guard("disallow"):
                    state, latest = step_fn(state, batch)
                jax.block_until_ready(before)  # at most two batches are in flight
                before = latest
                flags.append(latest.pop("finite"))
                told = notice.reached()
                checkpoint = told or step % config.checkpoint_every == 0 or step == config.steps
                logging = checkpoint or step % config.log_every == 0
                if logging:
                    finite, values = jax.device_get((flags, latest))
            if logging:
                if not all(finite):
                    bad = step - len(finite) + 1 + finite.index(False)
                    rows = data.sampler.rows(config.seed, bad - 1, config.batch_size)
                    raise not_finite(bad, data.sampler, rows, workdir)
                flags = []
                figures = {name: float(value) for name, value in values.items()}
                figures |= watch.figures()
                if metrics is not None:
                    metrics.write(step, figures)
                progress.update(
                    0,
                    samples_per_second=round(figures["samples_per_second"]),
                    loss=f"{figures['loss']:.4f}",
                )
                checkpoint = checkpoint or _due(saved, config.checkpoint_minutes)
            if checkpoint:
                checkpoints.save(step, state, config, source)
                saved = time.monotonic()
            progress.update(1)
            if told and step < config.steps:
                raise Stopped(
                    f"told to stop (SIGTERM): a checkpoint of step {step} is in {workdir}; the "
                    "same command goes on from there"
                )
    return figures


def _compiled(step_fn, state: TrainState, sampler: WindowSampler, batch_size: int, place):
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


def _to_devices(batch: Windows, sharding: jax.sharding.Sharding) -> Windows:
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def _fit_normalizer(
    sampler: WindowSampler, model: ExpertConfig, config: ml_collections.ConfigDict
) -> normalizer_lib.Normalizer:
    """The normalizer of seeded windows of the stream's own distribution."""

    @jax.jit
    def fit(windows: Windows) -> normalizer_lib.Normalizer:
        keys = jax.random.split(jax.random.key(config.seed), NORMALIZER_WINDOWS)
        example = jax.vmap(lambda k, w: make_example(k, w, model, config.noise))(keys, windows)
        return normalizer_lib.fit(example.chunk, example.mask)

    rows = sampler.rows(config.seed, np.iinfo(np.int32).max, NORMALIZER_WINDOWS)
    return fit(sampler.gather(rows)._replace(cloud=None))


def _open_for_writing(workdir: epath.Path, keep: int) -> Checkpoints:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        return Checkpoints(workdir, keep=keep)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: cannot be made: {error.strerror}") from None


def _check_same_run(
    past: Checkpoints, config: ml_collections.ConfigDict, source: dict, workdir: epath.Path
) -> None:
    saved, saved_source = past.config()
    before, after = saved.to_dict(), config.to_dict()
    for name in MAY_CHANGE:
        before.pop(name, None)
        after.pop(name, None)
    found = differences(before, after, "config")
    for name in ("store", "mixture"):
        old, new = saved_source.get(name), source[name]
        if old != new:
            what = "holds other data" if old and new else "was given" if old else "was not given"
            found.append(f"--{name} {what}")
    if saved_source["init"] != source["init"]:
        found.append(f"--init was {saved_source['init']}, is {source['init']}")
    if found:
        raise UsageError(
            f"--workdir={workdir} holds a run that learns from something else: "
            f"{'; '.join(found)}; resume it as it was started or choose another --workdir"
        )


def _check_same_model(
    saved: ml_collections.ConfigDict, config: ml_collections.ConfigDict, init: epath.PathLike
) -> None:
    found = differences(saved.model.to_dict(), config.model.to_dict(), "config.model")
    if found:
        raise UsageError(
            f"--init={init}: its checkpoint has another shape: {'; '.join(found)}; use the model "
            "it was trained with"
        )
