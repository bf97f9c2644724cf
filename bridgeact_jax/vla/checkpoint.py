"""Trained models from their checkpoints, and the first parameters of a run made from them."""

import dataclasses
from functools import partial

import jax
import ml_collections
from etils import epath

from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.models.normalizer import Normalizer, identity
from bridgeact_jax.training.checkpoint import open_checkpoints, restore_averages
from bridgeact_jax.training.config import differences
from bridgeact_jax.training.exported import is_exported
from bridgeact_jax.vla.experts import experts_from_dense
from bridgeact_jax.vla.model import Vla, initial_params
from bridgeact_jax.vla.settings import vla_config
from bridgeact_jax.vla.sizes import VlaConfig

OF_A_RUN = ("text_length",)  # no parameter depends on it
OF_EXPERTS = ("mlp", "experts", "top_k")  # what a dense model can become
OF_HEAD = (
    "injection", "queries", "horizon", "head_width", "head_layers", "head_heads", "train_steps",
)  # fmt: skip


def load_vla(checkpoint: epath.PathLike) -> Vla:
    """The EMA parameters of a run's latest checkpoint, on this host, float32.

    Raises UserError if there is none, or it is damaged, of another version or another model.
    """
    if is_exported(checkpoint):
        raise UserError(
            f"{checkpoint}: an exported action expert: must be the workdir of `bridgeact train-vla`"
        )
    checkpoints = open_checkpoints(checkpoint)
    config, _ = checkpoints.config()
    known = {field.name for field in dataclasses.fields(VlaConfig)}
    if set(config.model) != known:
        checkpoints.close()
        raise UserError(
            f"{checkpoint}: no checkpoint of `bridgeact train-vla` of this version: its model has "
            f"other options ({', '.join(sorted(set(config.model) ^ known))})"
        )
    model = vla_config(config)
    shapes = jax.eval_shape(lambda: initial_params(model, jax.random.key(0)))
    return Vla(model, *restore_averages(checkpoints, shapes, checkpoint))


def has_head(config: ml_collections.ConfigDict) -> bool:
    """Whether a run of this config trains the action head."""
    return config.trained in ("all", "head")


def first_params(
    config: ml_collections.ConfigDict, model: VlaConfig, init: epath.PathLike | None
) -> tuple[dict, Normalizer | None]:
    """Parameters to start from, and the normalizer if the head in `init` has been trained with one.

    From nothing where there is no `init`. A dense model's MLP becomes every expert; a head that was
    never trained is made anew. Raises UsageError for a checkpoint that cannot become this model.
    """
    make = jax.jit(partial(initial_params, model))
    if init is None:
        if config.trained in ("experts", "head"):
            raise UsageError(
                f"config.trained = {config.trained} freezes the rest: --init=WORKDIR of a run that "
                "trained it is required"
            )
        return make(jax.random.key(config.seed)), None
    vla = load_vla(init)
    free = {*OF_A_RUN}
    if vla.model.mlp == "dense":
        free |= {*OF_EXPERTS}
    trained = can_act(vla)
    if not trained:
        free |= {*OF_HEAD}
    old, new = (
        {name: value for name, value in dataclasses.asdict(one).items() if name not in free}
        for one in (vla.model, model)
    )
    found = differences(old, new, "config.model")
    if found:
        raise UsageError(
            f"--init={init}: its checkpoint is of another variant: {'; '.join(found)}; use the "
            "model it was trained with"
        )
    dense = vla.model.mlp == "dense"
    if trained and not dense:
        return vla.params, vla.normalizer
    fresh = make(jax.random.key(config.seed))
    vlm = experts_from_dense(vla.params["vlm"], fresh["vlm"]) if dense else vla.params["vlm"]
    head = vla.params["head"] if trained else fresh["head"]
    return {"vlm": vlm, "head": head}, vla.normalizer if trained else None


def can_act(vla: Vla) -> bool:
    """Whether the head was trained: the first run that does so fits the normalizer."""
    return not all(jax.tree.map(lambda a, b: bool((a == b).all()), vla.normalizer, identity()))
