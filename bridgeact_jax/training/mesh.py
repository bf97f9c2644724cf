"""Device mesh and how arrays lie on it."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bridgeact_jax.errors import UsageError

SMALLEST_SHARDED = 2**14  # elements: below this a parameter is copied to every device


def make_mesh(fsdp: int) -> Mesh:
    """(data, fsdp) mesh over all devices of all hosts. Raises UsageError if it does not divide."""
    devices = jax.device_count()
    if fsdp < 1 or devices % fsdp:
        raise UsageError(f"config.fsdp = {fsdp} does not divide the {devices} devices here")
    return jax.make_mesh(
        (devices // fsdp, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto, AxisType.Auto)
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis over every device."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(mesh: Mesh, shapes):
    """A sharding for each leaf of a pytree of shapes.

    Large leaves are split over `fsdp` along their longest axis that divides; the rest is copied.
    Optimiser moments have their parameter's shape, so they lie where it lies.
    """
    fsdp = mesh.shape["fsdp"]

    def rule(leaf):
        axes = [i for i, size in enumerate(leaf.shape) if size % fsdp == 0]
        if fsdp == 1 or not axes or np.prod(leaf.shape) < SMALLEST_SHARDED:
            return replicated(mesh)
        longest = max(axes, key=lambda i: leaf.shape[i])
        return NamedSharding(
            mesh, PartitionSpec(*("fsdp" if i == longest else None for i in range(longest + 1)))
        )

    return jax.tree.map(rule, shapes)
