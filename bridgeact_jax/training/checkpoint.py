"""Checkpoints: the state and the config, written asynchronously by Orbax.

The stream's position is the state's own step, for a batch is a function of (seed, step).
"""

import contextlib
import inspect
import logging
import math
import os
import re
import sys
import warnings

import jax
import ml_collections
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from bridgeact_jax.errors import UserError
from bridgeact_jax.models.action_expert import ExpertConfig
from bridgeact_jax.models.normalizer import Normalizer, identity
from bridgeact_jax.training import exported
from bridgeact_jax.training.config import expert_config
from bridgeact_jax.training.exported import Origin
from bridgeact_jax.training.state import param_shapes


class Checkpoints:
    """The checkpoints of one run, in `workdir/checkpoints`.

    With `keep`, the directory is made, and of older checkpoints all but the latest `keep` and the
    best by validation are removed; without, nothing is written. Raises UserError if the directory
    cannot be made or read.
    """

    def __init__(self, workdir: epath.Path, *, keep: int | None = None):
        writing = keep is not None
        _silence_orbax()
        self._path = (workdir / "checkpoints").resolve()
        best = policies.BestN(
            get_metric_fn=_validation_loss,
            reverse=True,  # the lowest is the best
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        options = ocp.CheckpointManagerOptions(
            best_fn=_validation_loss,
            best_mode="min",
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
            create=False,
            read_only=not writing,
        )
        try:
            if writing:
                self._path.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self._path, options=options)
        except Exception as error:  # what is raised depends on which file is damaged
            raise UserError(f"{self._path}: cannot be opened ({_reason(error)})") from error

    @property
    def latest(self) -> int | None:
        """The last complete step, None if there is none."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """The step of the lowest validation loss that is kept, None if none has one."""
        return self._manager.best_step()

    def save(
        self,
        step: int,
        state,
        config: ml_collections.ConfigDict,
        source: dict,
        metrics: dict[str, float] | None = None,
    ) -> None:
        """Start writing; returns before it is on disk. A killed write leaves no checkpoint.

        `source` says what the run learns from, as JSON. `metrics` holds at least "validation_loss";
        a checkpoint without them, or whose loss is not finite, is never the best. Raises UserError
        if this write, or the one before, fails.
        """
        judged = metrics is not None and math.isfinite(_validation_loss(metrics))
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state._asdict()),
                    config=ocp.args.JsonSave({"config": config.to_dict(), "source": source}),
                ),
                metrics=metrics if judged else None,
                force=True,
            )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Close; but where a device or another process is lost, no write can be waited for."""
        if kind is None or not issubclass(kind, jax.errors.JaxRuntimeError):
            self.close()

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except Exception as error:  # the file system's, TensorStore's or Orbax's
            raise UserError(
                f"{self._path}: a checkpoint cannot be written ({_reason(error)}); make room there "
                "and let it be written to, then the same command goes on from the last complete one"
            ) from error

    def config(self) -> tuple[ml_collections.ConfigDict, dict]:
        """The configuration and the source of the latest checkpoint."""
        saved = self._restore(config=ocp.args.JsonRestore())["config"]
        return ml_collections.ConfigDict(saved["config"]), saved["source"]

    def scores(self) -> dict[str, float]:
        """The validation's figures of the latest checkpoint; empty if it was not judged."""
        return dict(self._manager.metrics(self.latest) or {})

    def restore(self, abstract):
        """The latest state, laid out like `abstract` (a state of ShapeDtypeStructs)."""
        saved = self._restore(state=ocp.args.StandardRestore(abstract._asdict()))
        return type(abstract)(**saved["state"])

    def restore_parts(self, abstract: dict) -> dict:
        """The parts of the latest state that `abstract` names, laid out like it."""
        arguments = ocp.checkpoint_utils.construct_restore_args(abstract)
        return self._restore(
            state=ocp.args.PyTreeRestore(abstract, restore_args=arguments, partial_restore=True)
        )["state"]

    def _restore(self, **items):
        try:
            return self._manager.restore(self.latest, args=ocp.args.Composite(**items))
        except Exception as error:  # what is raised depends on which file is damaged
            raise UserError(
                f"{self._path / str(self.latest)}: cannot be restored ({_reason(error)}); remove "
                "this folder to use the checkpoint before it"
            ) from error

    def close(self) -> None:
        """Wait for writes in flight. Raises UserError if one fails."""
        with self._writing():
            self._manager.wait_until_finished()
            self._manager.close()


def _validation_loss(metrics: dict[str, float]) -> float:
    return metrics["validation_loss"]


def _reason(error: Exception) -> str:
    """What the operating system said, else the first line of what the library says."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    if code:
        return os.strerror(int(code[1]))
    return getattr(error, "strerror", None) or str(error).strip().split("\n")[0]


def _silence_orbax() -> None:
    """Of Orbax only what is raised: what fails in its threads is, by the next call."""
    for library in ("absl", "asyncio"):  # a filter: absl sets its level anew
        logging.getLogger(library).addFilter(_critical)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    sys.unraisablehook = _unless_abandoned


def _critical(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.CRITICAL


def _unless_abandoned(unraisable) -> None:  # what a failed write leaves to the garbage collector
    closed = str(unraisable.exc_value) == "Event loop is closed"
    if not (closed or inspect.iscoroutine(unraisable.object)):
        sys.__unraisablehook__(unraisable)


def open_checkpoints(workdir: epath.PathLike) -> Checkpoints:
    """The checkpoints of an existing run. Raises UserError if `workdir` holds none."""
    path = epath.Path(workdir) / "checkpoints"
    if not path.is_dir():
        raise UserError(
            f"{workdir}: no checkpoints here; give the --workdir of a training run, or a directory "
            "that `bridgeact export` wrote"
        )
    checkpoints = Checkpoints(epath.Path(workdir))
    if checkpoints.latest is None:
        raise UserError(f"{path}: no complete checkpoint; did the run reach its first one?")
    return checkpoints


def describe(checkpoint: epath.PathLike) -> Origin:
    """What is known of a run's latest checkpoint, or of an exported one, without its weights."""
    if exported.is_exported(checkpoint):
        return exported.read_origin(checkpoint)
    checkpoints = open_checkpoints(checkpoint)
    origin = Origin(*checkpoints.config(), checkpoints.latest, checkpoints.scores())
    checkpoints.close()
    return origin


def load_expert(
    checkpoint: epath.PathLike,
) -> tuple[ml_collections.ConfigDict, ExpertConfig, dict, Normalizer]:
    """(config, model, EMA parameters, normalizer) on this host, float32.

    `checkpoint` is the workdir of a run, whose latest checkpoint is taken, or an exported
    directory. Raises UserError if it is damaged or of another version.
    """
    if exported.is_exported(checkpoint):
        return exported.read_expert(checkpoint)
    checkpoints = open_checkpoints(checkpoint)
    config, _ = checkpoints.config()
    exported.check_model(config, checkpoint)
    model = expert_config(config)
    params, normalizer = restore_averages(checkpoints, param_shapes(model), checkpoint)
    return config, model, params, normalizer


def restore_averages(
    checkpoints: Checkpoints, shapes: dict, checkpoint: epath.PathLike
) -> tuple[dict, Normalizer]:
    """EMA parameters of these shapes and the normalizer, on this host; closes the checkpoints.

    Raises UserError if what is in `checkpoint` is damaged or of another version.
    """
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device),
        {"ema": shapes, "normalizer": jax.eval_shape(identity)},
    )
    saved = checkpoints.restore_parts(abstract)
    checkpoints.close()
    for path, leaf in jax.tree_util.tree_leaves_with_path(saved):
        if isinstance(leaf, jax.ShapeDtypeStruct):  # what Orbax leaves where nothing was saved
            raise UserError(
                f"{checkpoint}: written by another version of bridgeact_jax: it lacks "
                f"'{jax.tree_util.keystr(path, simple=True, separator='/')}'"
            )
    return saved["ema"], saved["normalizer"]
