"""Training the model: all stages, which differ in their configuration alone."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bridgeact_jax.errors import UsageError
from bridgeact_jax.models import normalizer as normalizer_lib
from bridgeact_jax.training import loop
from bridgeact_jax.training.learner import Learner
from bridgeact_jax.training.mesh import check_batch, make_mesh, replicated
from bridgeact_jax.training.state import TrainState
from bridgeact_jax.vla.batches import Sampler, Samples, finite_samples
from bridgeact_jax.vla.checkpoint import first_params, has_head
from bridgeact_jax.vla.folders import read_imagetext, read_robot
from bridgeact_jax.vla.model import initial_params
from bridgeact_jax.vla.settings import check_config, vla_config
from bridgeact_jax.vla.sizes import VlaConfig
from bridgeact_jax.vla.step import chunk_of, initial_state, make_train_step
from bridgeact_jax.vla.validation import Validation

NORMALIZER_SAMPLES = 2048


def train(
    config: ml_collections.ConfigDict,
    *,
    workdir: epath.PathLike,
    imagetext: Sequence[epath.PathLike] = (),
    robot: Sequence[epath.PathLike] = (),
    init: epath.PathLike | None = None,
) -> dict[str, float]:
    """Train until `config.steps`, from the latest checkpoint in `workdir` if there is one.

    Args:
      workdir: where checkpoints and metrics go; gs:// works.
      imagetext, robot: folders that `bridgeact vla-data` wrote.
      init: workdir of the run whose EMA parameters to start from.

    Returns:
      The last figures logged; empty if the run had ended before.
    """
    config = ml_collections.FrozenConfigDict(config)
    check_config(config)
    model = vla_config(config)
    folders = [read_imagetext(path) for path in imagetext], [read_robot(path) for path in robot]
    for name, given, used in (
        ("imagetext", imagetext, config.robot_share < 1), ("robot", robot, config.robot_share > 0)
    ):  # fmt: skip
        if used != bool(given):
            what = "needs" if used else "has no use for"
            raise UsageError(f"config.robot_share = {config.robot_share:g} {what} --{name}=FOLDERS")
    sampler = Sampler(*folders, model, config.robot_share)
    sampler, held_out = sampler.split(config.validation.share, config.seed)
    mesh = make_mesh(config.expert, name="expert")
    check_batch(config, mesh)
    shapes = jax.eval_shape(
        lambda: initial_state(
            config, initial_params(model, jax.random.key(0)), normalizer_lib.identity()
        )
    )
    shardings = state_sharding(mesh, shapes)
    kinds = zip(("imagetext", "robot"), folders, strict=True)
    learner = Learner(
        config=config,
        label=f"training ({config.trained})",
        notes=(f"{sampler} to learn from; held out for validation: {held_out or 'nothing'}",),
        source={
            **{kind: [folder.manifest for folder in given] or None for kind, given in kinds},
            "init": None if init is None else str(init),
        },
        sampler=sampler,
        finite=finite_samples,
        mesh=mesh,
        shapes=shapes,
        shardings=shardings,
        first=lambda: _first_state(config, model, sampler, shardings, init),
        step=make_train_step(model, config, mesh),
        validate=None if held_out is None else Validation(held_out, model, config, mesh),
    )
    return loop.run(learner, workdir)


def state_sharding(mesh: Mesh, shapes: TrainState) -> TrainState:
    """A sharding for each leaf: experts are split over the axis `expert`, the rest is copied.

    Experts whose number does not divide are copied too. Moments lie where their parameter lies.
    """

    def rule(path, leaf):
        keys = [getattr(key, "key", None) for key in path]
        experts = "mlp" in keys and keys[-1] in ("inner", "outer") and leaf.ndim == 3
        if not experts or leaf.shape[0] % mesh.shape["expert"]:
            return replicated(mesh)
        return NamedSharding(mesh, PartitionSpec("expert"))

    return jax.tree_util.tree_map_with_path(rule, shapes)


def _first_state(
    config: ml_collections.ConfigDict,
    model: VlaConfig,
    sampler: Sampler,
    shardings: TrainState,
    init: epath.PathLike | None,
) -> TrainState:
    """From nothing or from `init`; the normalizer is fitted where a head first learns."""
    params, normalizer = first_params(config, model, init)
    if normalizer is None:
        fitted = has_head(config) and config.robot_share > 0
        normalizer = _fit_normalizer(sampler, config) if fitted else normalizer_lib.identity()
    start = jax.device_get((params, normalizer))  # from one device, for all of the mesh
    make = jax.jit(
        lambda params, normalizer: initial_state(config, params, normalizer),
        out_shardings=shardings,
    )
    return make(*start)


def _fit_normalizer(
    sampler: Sampler, config: ml_collections.ConfigDict
) -> normalizer_lib.Normalizer:
    """The normalizer of seeded samples of the stream's own distribution."""
    rows = sampler.rows(config.seed, np.iinfo(np.int32).max, NORMALIZER_SAMPLES)
    samples = sampler.gather(rows)
    counted = samples.future_mask & samples.robot[:, None]

    @jax.jit
    def fit(samples: Samples) -> normalizer_lib.Normalizer:
        chunk = chunk_of(samples)
        return normalizer_lib.fit(chunk, jnp.broadcast_to(counted[..., None], chunk.shape))

    return fit(samples._replace(pictures=None))  # which need not move
