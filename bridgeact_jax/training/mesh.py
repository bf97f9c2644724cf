"""Device mesh and how arrays lie on it."""

from collections.abc import Sequence

import jax
import ml_collections
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bridgeact_jax.errors import UsageError

SMALLEST_SHARDED = 2**14  # elements: below this a parameter is copied to every device


def make_mesh(
    inner: int, devices: Sequence[jax.Device] | None = None, *, name: str = "fsdp"
) -> Mesh:
    """(data, `name`) mesh over `devices`, by default all of all hosts; `inner` along the second.

    Of several slices each holds whole inner groups: only gradients cross the network between them.
    Raises UsageError if `inner` does not divide a slice's devices.
    """
    devices = jax.devices() if devices is None else devices
    slices = len({getattr(device, "slice_index", None) for device in devices})
    per_slice = len(devices) // slices
    if inner < 1 or per_slice % inner:
        where = "of a slice" if slices > 1 else "here"
        raise UsageError(f"config.{name} = {inner} does not divide the {per_slice} devices {where}")
    shape = per_slice // inner, inner
    if slices == 1:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    else:
        grid = mesh_utils.create_hybrid_device_mesh(
            shape, (slices, 1), devices, allow_split_physical_axes=True
        )
    return Mesh(grid, ("data", name), axis_types=(AxisType.Auto, AxisType.Auto))


def check_batch(config: ml_collections.ConfigDict, mesh: Mesh) -> None:
    """Raise UsageError unless a micro-batch divides by the devices."""
    micro_batch = config.batch_size // config.accumulate
    if micro_batch % mesh.size:
        raise UsageError(
            f"config.batch_size / config.accumulate = {micro_batch} does not divide by the "
            f"{mesh.size} devices"
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis over every device."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def to_devices(batch, sharding: jax.sharding.Sharding):
    """A pytree of global arrays, of which each process holds its own part."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


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
