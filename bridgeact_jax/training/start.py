"""The first state of a run: restored, or made from nothing or from another run's result."""

from collections.abc import Callable

import jax
import ml_collections
from etils import epath

from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.training.checkpoint import Checkpoints
from bridgeact_jax.training.config import differences
from bridgeact_jax.training.state import TrainState

MAY_CHANGE = (
    "log_every", "checkpoint_every", "checkpoint_minutes", "checkpoints_kept", "fsdp", "expert",
    "accumulate", "skip_nonfinite", "profile_steps", "wandb",
)  # fmt: skip


def restore_or_initialise(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    source: dict,
    shapes: TrainState,
    shardings: TrainState,
    first: Callable[[], TrainState],
) -> TrainState:
    """The state as `shardings` say: `workdir`'s latest checkpoint if there is one, else `first()`.

    Raises UsageError if that checkpoint belongs to another kind of run.
    """
    past = Checkpoints(workdir)
    if past.latest is None:
        state = first()
    else:
        _check_same_run(past, config, source, workdir)
        abstract = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
        )
        state = past.restore(abstract)
    past.close()
    return state


def open_for_writing(workdir: epath.Path, keep: int) -> Checkpoints:
    """The run's checkpoints. Raises UserError if `workdir` cannot be made."""
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
    for name in (name for name in source if name != "init"):
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
