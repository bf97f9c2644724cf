"""A checkpoint as one plain directory: weights in safetensors, everything else as text.

`model.safetensors` holds the EMA parameters, named "module/submodule/kernel", and the normalizer;
`config.json` what the checkpoint is and where it comes from; `README.md` is its model card.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from bridgeact_jax import __version__
from bridgeact_jax.errors import UserError
from bridgeact_jax.models.action_expert import ExpertConfig
from bridgeact_jax.models.normalizer import Normalizer
from bridgeact_jax.models.observation import ACTION_DIM
from bridgeact_jax.training.config import expert_config
from bridgeact_jax.training.state import param_shapes

FORMAT = 1  # of the directory
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
NORMALIZER = "normalizer/"  # the prefix of its tensors
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
_STORED = {"F32": np.float32, "BF16": ml_dtypes.bfloat16}
_SHIPPED = Path(__file__).parents[1] / "_expert"


class Origin(NamedTuple):
    """What a checkpoint is and where it comes from.

    source: what it learned from, as training wrote it. scores: the validation's figures, empty if
    it was not judged.
    """

    config: ml_collections.ConfigDict
    source: dict
    step: int
    scores: dict[str, float]


def shipped_expert() -> Path:
    """The directory of the expert that comes with the package. UserError if none does."""
    if not is_exported(_SHIPPED):
        raise UserError(
            "no expert comes with this installation: give --checkpoint, the workdir of a training "
            "run or a directory that `bridgeact export` wrote"
        )
    return _SHIPPED


def is_exported(directory: epath.PathLike) -> bool:
    """Whether `directory` is one of exported checkpoints."""
    return (epath.Path(directory) / CONFIG).is_file()


def check_model(config: ml_collections.ConfigDict, path: epath.PathLike) -> None:
    """Raise UserError if the model of the checkpoint in `path` is not one of this version."""
    found, known = set(config.model), {f.name for f in dataclasses.fields(ExpertConfig)}
    if found != known:
        raise UserError(
            f"{path}: written by another version of bridgeact_jax than {__version__}: its model "
            f"has other options ({', '.join(sorted(found ^ known))})"
        )


def tensors_of(params: dict, normalizer: Normalizer, dtype: str) -> dict[str, np.ndarray]:
    """The tensors by name; the parameters as `dtype`, the normalizer always float32."""
    named = {
        name: np.asarray(value).astype(DTYPES[dtype])
        for name, value in flatten_dict(params, sep="/").items()
    }
    fitted = {NORMALIZER + name: np.asarray(x) for name, x in normalizer._asdict().items()}
    return named | fitted


def expert_of(tensors: dict[str, jax.Array]) -> tuple[dict, Normalizer]:
    """The inverse of `tensors_of`: float32 parameters and the normalizer."""
    named = {name: value.astype(np.float32) for name, value in tensors.items()}
    fitted = [named.pop(NORMALIZER + name) for name in Normalizer._fields]
    return unflatten_dict(named, sep="/"), Normalizer(*fitted)


def weights_bytes(tensors: dict[str, np.ndarray]) -> bytes:
    """The content of `model.safetensors`."""
    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    return safetensors.numpy.save(contiguous, {"format": str(FORMAT)})


def config_text(origin: Origin, dtype: str, weights: bytes) -> str:
    """The content of `config.json`. Of folders of the training machine only the names are kept."""
    source = dict(origin.source)
    if source.get("init"):
        source["init"] = epath.Path(source["init"]).name
    content = {
        "format": FORMAT,
        "version": __version__,
        "step": origin.step,
        "dtype": dtype,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "validation": origin.scores,
        "config": origin.config.to_dict(),
        "source": source,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def read_origin(directory: epath.PathLike) -> Origin:
    """What `config.json` says. Raises UserError for a file that is not what `export` writes."""
    return _read_config(epath.Path(directory) / CONFIG)[0]


def _read_config(path: epath.Path) -> tuple[Origin, str]:
    """What the file says, and the checksum of the weights that belong to it."""
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise UserError(
                f"{path}: its format is {content['format']}, this version reads {FORMAT}"
            )
        config = ml_collections.ConfigDict(content["config"])
        check_model(config, path)
        origin = Origin(config, content["source"], content["step"], content["validation"])
        return origin, content["sha256"]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: not the config of an exported checkpoint ({error})") from None


def read_expert(
    directory: epath.PathLike,
) -> tuple[ml_collections.ConfigDict, ExpertConfig, dict, Normalizer]:
    """(config, model, EMA parameters, normalizer) on this host, float32.

    Raises UserError for files that are missing or damaged, or do not belong together.
    """
    origin, checksum = _read_config(epath.Path(directory) / CONFIG)
    path, config = epath.Path(directory) / WEIGHTS, origin.config
    try:
        model = expert_config(config)
        named = flatten_dict(param_shapes(model), sep="/")
    except Exception as error:  # what is raised depends on which option is damaged
        raise UserError(f"{path.parent / CONFIG}: config.model makes no model: {error}") from None
    shapes = {name: value.shape for name, value in named.items()}
    shapes |= {NORMALIZER + name: (ACTION_DIM,) for name in Normalizer._fields}
    tensors = _read_tensors(path, checksum)
    wrong = {
        name for name in shapes.keys() | tensors.keys()
        if name not in tensors or tensors[name].shape != shapes.get(name)
    }
    if wrong:
        raise UserError(
            f"{path}: {len(wrong)} tensors are not those of the model in {CONFIG}, such as "
            f"'{min(wrong)}'"
        )
    params, normalizer = expert_of(tensors)
    return config, model, *jax.tree.map(jax.numpy.asarray, (params, normalizer))


def _read_tensors(path: epath.Path, checksum: str) -> dict[str, np.ndarray]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    if hashlib.sha256(content).hexdigest() != checksum:
        raise UserError(f"{path}: damaged, or of another export than the {CONFIG} beside it")
    return {
        name: np.frombuffer(part["data"], _STORED[part["dtype"]]).reshape(part["shape"])
        for name, part in safetensors.deserialize(content)
    }
