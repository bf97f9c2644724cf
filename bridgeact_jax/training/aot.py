"""Compile the training step for a TPU slice that is not there: does it fit, what does it cost.

Nothing runs and no data is read; a computer without a TPU does it in seconds to minutes. A slice
is written as chip and shape: v4:4x4x4, v5e:16x16, v5p:4x4x4, v6e:16x16.
"""

import math
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from absl import flags
from jax.sharding import Mesh
from ml_collections import config_flags

from bridgeact_jax.datasets.episode import CLOUD_SHAPE
from bridgeact_jax.datasets.loader import ROW, Windows
from bridgeact_jax.errors import UserError
from bridgeact_jax.models.action_expert import ExpertConfig
from bridgeact_jax.training.config import check_config, expert_config
from bridgeact_jax.training.costs import collective_bytes, matmul_flops
from bridgeact_jax.training.mesh import (
    batch_sharding,
    check_batch,
    make_mesh,
    replicated,
    state_sharding,
)
from bridgeact_jax.training.state import param_shapes, state_shapes
from bridgeact_jax.training.step import make_train_step
from bridgeact_jax.training.tpus import Chip, absent_devices, parse_topology

MIB = 2**20


class Cost(NamedTuple):
    """What a compiled step takes; bytes are those of one device.

    kept: bytes of the output that reuse the arguments' memory. flops: matrix products of the whole
    step on all devices. traffic: to and from memory, by the compiler's count for one micro-batch
    and the update, times the micro-batches; of other loops it takes the body once. collectives:
    bytes of each kind in one step.
    """

    parameters: int
    seconds: float
    arguments: int
    output: int
    kept: int
    temporary: int
    code: int
    flops: int
    traffic: float
    collectives: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes that one device must hold."""
        return self.arguments + self.output - self.kept + self.temporary + self.code


class Estimate(NamedTuple):
    """Seconds of a step at the chip's published figures: matrix products, memory, collectives."""

    compute: float
    memory: float
    interconnect: float

    @property
    def step(self) -> float:
        """Matrix products and memory traffic overlap; collectives are taken not to."""
        return max(self.compute, self.memory) + self.interconnect


def define_flags() -> None:
    """Flags of `bridgeact aot`."""
    config_flags.DEFINE_config_file(
        "config", None, "config file, e.g. configs/pretrain.py:S; --config.key=value overrides"
    )
    flags.DEFINE_string("topology", None, "chip and shape of a slice, e.g. v5e:16x16")
    flags.DEFINE_integer("num_slices", 1, "slices, joined by the data-centre network", 1)
    flags.mark_flags_as_required(["config", "topology"])


def main(argv: list[str]) -> int:
    """Entry point of `bridgeact aot`. Returns 0 if the step fits, else 1."""
    del argv
    args = flags.FLAGS
    config = ml_collections.FrozenConfigDict(args.config)
    check_config(config)
    chip, shape = parse_topology(args.topology)
    mesh = make_mesh(config.fsdp, absent_devices(args.topology, args.num_slices))
    check_batch(config, mesh)
    slices = f"{args.num_slices} x {args.topology}" if args.num_slices > 1 else args.topology
    print(
        f"{slices}: {math.prod(shape) * args.num_slices} chips, data {mesh.shape['data']} x fsdp "
        f"{mesh.shape['fsdp']}; {config.batch_size:,} windows a step, "
        f"{config.batch_size // mesh.size} a chip",
        flush=True,
    )
    cost = compile_step(config, mesh)
    print(describe(cost, chip, mesh.size, args.num_slices))
    return 0 if cost.total <= chip.memory else 1


def abstract_windows(config: ml_collections.ConfigDict, model: ExpertConfig) -> Windows:
    """Shapes of a global batch, as `WindowSampler` gathers it."""
    batch, future = config.batch_size, model.horizon
    past, plan = config.data.history, config.data.waypoints

    def array(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct((batch, *shape), dtype)

    return Windows(
        history=array(past, ROW),
        steps=array(dtype=jnp.int32),
        gripper_width=array(),
        future=array(future, ROW),
        future_mask=array(future, dtype=jnp.bool_),
        plan=array(plan, ROW),
        waypoint_count=array(dtype=jnp.int32),
        recorded=array(2, dtype=jnp.bool_),
        dataset=array(dtype=jnp.int32),
        cloud=array(*CLOUD_SHAPE, dtype=jnp.float16) if config.use_cloud else None,
    )


def trace_step(config: ml_collections.ConfigDict, mesh: Mesh) -> jax.stages.Traced:
    """The training step of `config` on `mesh`, whose devices may be absent, from shapes alone."""
    model = expert_config(config)
    state = state_shapes(config, model)
    shardings = state_sharding(mesh, state)
    step = jax.jit(
        make_train_step(model, config, mesh),
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )
    return step.trace(state, abstract_windows(config, model))


def compile_step(config: ml_collections.ConfigDict, mesh: Mesh) -> Cost:
    """Compile the training step and count what it takes.

    Raises UserError if the compiler finds no room in a device's memory.
    """
    traced = trace_step(config, mesh)
    start = time.monotonic()
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(f"does not fit: {' '.join(str(error).split())[:300]}") from None
    seconds = time.monotonic() - start
    memory = compiled.memory_analysis()
    params = jax.tree.leaves(param_shapes(expert_config(config)))
    return Cost(
        parameters=sum(math.prod(leaf.shape) for leaf in params),
        seconds=seconds,
        arguments=memory.argument_size_in_bytes,
        output=memory.output_size_in_bytes,
        kept=memory.alias_size_in_bytes,
        temporary=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        flops=matmul_flops(traced.jaxpr.jaxpr),
        traffic=config.accumulate * compiled.cost_analysis()["bytes accessed"],
        collectives=collective_bytes(compiled.as_text()),
    )


def estimate(cost: Cost, chip: Chip, devices: int) -> Estimate:
    """The step at the chip's peak FLOP/s and bandwidths: what hardware could do, not what it does.

    A sum over all chips travels twice, once to be reduced and once to be spread; everything else
    once, over all of a chip's links.
    """
    sent = sum(
        size * (2 if kind == "all-reduce" else 1) for kind, size in cost.collectives.items()
    )
    return Estimate(
        cost.flops / devices / chip.peak, cost.traffic / chip.bandwidth, sent / chip.interconnect
    )


def describe(cost: Cost, chip: Chip, devices: int, num_slices: int) -> str:
    """The figures as lines of text."""
    time_of = estimate(cost, chip, devices)
    fits = "fits" if cost.total <= chip.memory else "does NOT fit"
    collectives = [f"{kind} {size / MIB:,.2f} MiB" for kind, size in cost.collectives.items()]
    between = "; the network between slices is left out" if num_slices > 1 else ""
    rows = {
        "parameters": f"{cost.parameters:,}",
        "compiled in": f"{cost.seconds:.0f} s",
        "arguments": f"{cost.arguments / MIB:,.1f} MiB a chip",
        "output": f"{cost.output / MIB:,.1f} MiB, of which {cost.kept / MIB:,.1f} MiB in place",
        "temporary": f"{cost.temporary / MIB:,.1f} MiB",
        "code": f"{cost.code / MIB:,.1f} MiB",
        "total": f"{cost.total / MIB:,.1f} MiB of {chip.memory / MIB:,.0f} MiB: {fits}",
        "FLOPs": f"{cost.flops:.3g} a step in matrix products, {cost.flops / devices:.3g} a chip",
        "collectives": (", ".join(collectives) or "none") + ", a chip and step",
        "estimate": f"{1e3 * time_of.step:.2f} ms a step, not measured, from published peaks: "
        f"matrix products {1e3 * time_of.compute:.2f} ms, memory {1e3 * time_of.memory:.2f} ms, "
        f"collectives {1e3 * time_of.interconnect:.2f} ms; loops counted once, no latency{between}",
    }
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows.items())
