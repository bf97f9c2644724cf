"""TPU chips by their published figures, and slices of them that need not exist to compile for.

Peak, memory and its bandwidth: Cloud TPU documentation, pages "TPU v4", "v5e", "v5p" and "v6e".
Interconnect: the same pages for v5e, v5p and v6e; for v4 six links of 50 GB/s (Jouppi et al., "TPU
v4", ISCA 2023).
"""

import importlib.util
import math
import os
import re
from typing import NamedTuple

import jax
from jax.experimental import topologies

from bridgeact_jax.errors import UsageError, UserError, nearest

ENVIRONMENT = {  # libtpu asks for these where there is no TPU
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_LOG_DIR": "disabled",
}


class Chip(NamedTuple):
    """One chip: peak in bfloat16 FLOP/s, memory in bytes, bandwidths in bytes/s.

    interconnect: sent over all its links together, in one direction. axes: of a slice. pod: chips.
    cores: of a chip, which programs see as one device.
    """

    peak: float
    memory: int
    bandwidth: float
    interconnect: float
    axes: int
    pod: int
    cores: int


CHIPS = {
    "v4": Chip(275e12, 32 * 2**30, 1200e9, 300e9, 3, 4096, 2),
    "v5e": Chip(197e12, 16 * 2**30, 819e9, 200e9, 2, 256, 1),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 600e9, 3, 8960, 2),
    "v6e": Chip(918e12, 32 * 2**30, 1640e9, 400e9, 2, 256, 1),
}
FORMS = "v4:4x4x4, v5e:16x16, v5p:4x4x4 or v6e:16x16"


def parse_topology(topology: str) -> tuple[Chip, tuple[int, ...]]:
    """The chip and the shape of a slice such as `v5e:16x16`. Raises UsageError."""
    form = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", topology)
    if form is None:
        raise UsageError(f"--topology={topology} is not of the form {FORMS}")
    name, shape = form[1], tuple(map(int, form[2].split("x")))
    if name not in CHIPS:
        raise UsageError(f"--topology={topology}: unknown chip '{name}': {nearest(name, CHIPS)}")
    chip = CHIPS[name]
    if len(shape) != chip.axes:
        raise UsageError(
            f"--topology={topology}: a slice of {name} has {chip.axes} axes, as in {FORMS}"
        )
    if math.prod(shape) > chip.pod:
        raise UsageError(
            f"--topology={topology}: a pod of {name} has {chip.pod} chips; for more, --num_slices"
        )
    return chip, shape


def absent_devices(topology: str, num_slices: int = 1) -> list[jax.Device]:
    """Devices of TPU slices that are not there: programs compile for them, none runs.

    Raises UsageError for a slice that libtpu does not know, UserError without libtpu.
    """
    chip, _ = parse_topology(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "compiling for a TPU needs libtpu: pip install 'bridgeact_jax[tpu]', or synchronise "
            "an environment with requirements-tpu.lock"
        )
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")
    options = {"chip_config_name": "megacore"} if chip.cores > 1 else {}
    if num_slices > 1:
        options["num_slices"] = num_slices
    try:
        found = topologies.get_topology_desc(topology, platform="tpu", **options)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ")
        raise UsageError(f"--topology={topology}: no such slice: {reason}") from None
    return found.devices
