"""Training the action expert: both stages."""

import jax
import ml_collections
import numpy as np
from etils import epath

from bridgeact_jax.datasets.loader import Windows, WindowSampler
from bridgeact_jax.errors import UsageError
from bridgeact_jax.models import normalizer as normalizer_lib
from bridgeact_jax.models.action_expert import ExpertConfig
from bridgeact_jax.training import loop
from bridgeact_jax.training.checkpoint import load_expert
from bridgeact_jax.training.config import check_config, differences, expert_config
from bridgeact_jax.training.data import open_data
from bridgeact_jax.training.example import make_example
from bridgeact_jax.training.learner import Learner
from bridgeact_jax.training.mesh import check_batch, make_mesh, state_sharding
from bridgeact_jax.training.nonfinite import finite_windows
from bridgeact_jax.training.state import TrainState, initial_state, state_shapes
from bridgeact_jax.training.step import make_train_step
from bridgeact_jax.training.validation import Validation, held_out

NORMALIZER_WINDOWS = 8192


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
    config = ml_collections.FrozenConfigDict(config)
    check_config(config)
    model = expert_config(config)
    data = open_data(config, model, store=store, mixture=mixture, stores=stores)
    kept = held_out(data.sampler, config.validation.share, config.seed)
    sampler = data.sampler.only(~kept)
    mesh = make_mesh(config.fsdp)
    check_batch(config, mesh)
    shapes = state_shapes(config, model)
    shardings = state_sharding(mesh, shapes)
    held = f"{kept.sum():,} of {len(kept):,} episodes held out for validation"
    learner = Learner(
        config=config,
        label="fine-tuning with clouds" if config.use_cloud else "pre-training",
        notes=(data.shares(), held) if data.source["mixture"] else (held,),
        source={**data.source, "init": None if init is None else str(init)},
        sampler=sampler,
        finite=finite_windows,
        mesh=mesh,
        shapes=shapes,
        shardings=shardings,
        first=lambda: _first_state(config, model, sampler, shardings, init),
        step=make_train_step(model, config, mesh, data.datasets),
        validate=Validation(data.sampler.only(kept), model, config, mesh) if kept.any() else None,
        begin=data.write_shares,
    )
    return loop.run(learner, workdir)


def _first_state(
    config: ml_collections.ConfigDict,
    model: ExpertConfig,
    sampler: WindowSampler,
    shardings: TrainState,
    init: epath.PathLike | None,
) -> TrainState:
    """From nothing, or from the checkpoint in `init`.

    Raises UsageError if that is one of another model.
    """
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
    return make(*start)


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


def _check_same_model(
    saved: ml_collections.ConfigDict, config: ml_collections.ConfigDict, init: epath.PathLike
) -> None:
    found = differences(saved.model.to_dict(), config.model.to_dict(), "config.model")
    if found:
        raise UsageError(
            f"--init={init}: its checkpoint has another shape: {'; '.join(found)}; use the model "
            "it was trained with"
        )
