"""The first state of a run: restored, or made from nothing or from another run's result."""

import jax
import ml_collections
import numpy as np
from etils import epath
from jax.sharding import Mesh

from bridgeact_jax.datasets.loader import Windows, WindowSampler
from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.models import normalizer as normalizer_lib
from bridgeact_jax.models.action_expert import ExpertConfig
from bridgeact_jax.training.checkpoint import Checkpoints, load_expert
from bridgeact_jax.training.config import differences
from bridgeact_jax.training.example import make_example
from bridgeact_jax.training.mesh import state_sharding
from bridgeact_jax.training.state import TrainState, initial_state, state_shapes

NORMALIZER_WINDOWS = 8192
MAY_CHANGE = (
    "log_every", "checkpoint_every", "checkpoint_minutes", "checkpoints_kept", "fsdp", "accumulate",
    "skip_nonfinite", "profile_steps", "wandb",
)  # fmt: skip


def restore_or_initialise(
    config: ml_collections.ConfigDict,
    model: ExpertConfig,
    sampler: WindowSampler,
    mesh: Mesh,
    workdir: epath.Path,
    source: dict,
    init: epath.PathLike | None,
) -> tuple[TrainState, TrainState]:
    """The state on `mesh`, and its shardings: `workdir`'s latest checkpoint if there is one.

    Raises UsageError if that checkpoint, or the one in `init`, belongs to another kind of run.
    """
    shapes = state_shapes(config, model)
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
            normalizer = _fit_normalizer(sampler, model, config)
        else:
            saved, _, params, normalizer = load_expert(init)
            _check_same_model(saved, config, init)
        start = jax.device_get((params, normalizer))  # from one device, for all of the mesh
        make = jax.jit(
            lambda params, normalizer: initial_state(config, model, params, normalizer),
            out_shardings=shardings,
        )
        state = make(*start)
    past.close()
    return state, shardings


def open_for_writing(workdir: epath.Path, keep: int) -> Checkpoints:
    """The run's checkpoints. Raises UserError if `workdir` cannot be made."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        return Checkpoints(workdir, keep=keep)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: cannot be made: {error.strerror}") from None


def _fit_normalizer(
    sampler: WindowSampler, model: ExpertConfig, config: ml_collections.ConfigDict
) -> normalizer_lib.Normalizer:
    """The normalizer of seeded windows of the stream's own distribution."""

    @jax.jit
    def fit(windows: Windows) -> normalizer_lib.Normalizer:
        keys = jax.random.split(jax.random.key(config.seed), NORMALIZER_WINDOWS)
        example = jax.vmap(lambda k, w: make_example(k, w, model, config))(keys, windows)
        return normalizer_lib.fit(example.chunk, example.mask)

    rows = sampler.rows(config.seed, np.iinfo(np.int32).max, NORMALIZER_WINDOWS)
    return fit(sampler.gather(rows)._replace(cloud=None))


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
