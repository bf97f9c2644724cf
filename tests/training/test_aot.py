"""Compiling for absent hardware: what is counted, against closed forms and hand counts."""

import importlib.util
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from bridgeact_jax.datasets.loader import WindowSampler
from bridgeact_jax.datasets.store import open_store
from bridgeact_jax.datasets.trajectories import resample
from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.training import aot, tpus
from bridgeact_jax.training.config import check_config, expert_config, shipped_config
from bridgeact_jax.training.costs import collective_bytes, matmul_flops
from bridgeact_jax.training.mesh import make_mesh
from bridgeact_jax.training.state import param_shapes
from tests.devices import emulated
from tests.training.conftest import run


def on_eight_devices(script: str) -> str:
    """What a script prints that sees eight CPU devices."""
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **emulated(8)}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(("size", "least", "most"), [("S", 0, 1), ("B", 5, 10), ("L", 50, 100)])
def test_shipped_configs_of_each_size(size, least, most):
    pretrain, finetune = (shipped_config(name, size) for name in ("pretrain", "finetune"))
    for config in (pretrain, finetune):
        check_config(config)
    assert pretrain.model == finetune.model and pretrain.model.dtype == "bfloat16"
    assert (pretrain.batch_size, finetune.batch_size) == (32_768, 256)
    assert (pretrain.use_cloud, finetune.use_cloud) == (False, True)
    assert pretrain.noise.waypoint == 0.10
    leaves = jax.tree.leaves(param_shapes(expert_config(pretrain)))
    assert least * 1e6 < sum(math.prod(leaf.shape) for leaf in leaves) <= most * 1e6


def test_an_unknown_size_names_the_nearest():
    with pytest.raises(UsageError, match="unknown model size 's': did you mean 'S'"):
        shipped_config("pretrain", "s")


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_abstract_windows_are_what_the_sampler_gathers(name, tiny_store):
    config = shipped_config(name, "S")
    config.batch_size = 4
    model = expert_config(config)
    sampler = WindowSampler(
        resample(open_store(tiny_store)), horizon=model.horizon, history=config.data.history,
        waypoints=config.data.waypoints, contact_weight=1.0, with_cloud=config.use_cloud,
    )  # fmt: skip
    gathered = jax.eval_shape(lambda x: x, sampler.gather(sampler.rows(0, 0, 4)))
    assert gathered == aot.abstract_windows(config, model)


def test_matrix_products_are_counted_through_loops_and_gradients():
    def loss(w, x):
        x = jax.lax.scan(lambda x, _: (jax.jit(jnp.tanh)(x @ w), None), x, length=5)[0]
        return jnp.sum(jnp.einsum("bij,bkj->bik", x, x))

    w, x = jnp.zeros((6, 6)), jnp.zeros((3, 4, 6))
    product, gram = 2 * (3 * 4) * 6 * 6, 2 * 3 * 4 * 4 * 6
    assert matmul_flops(jax.make_jaxpr(loss)(w, x).jaxpr) == 5 * product + gram
    # the gradient takes two products for each forward one
    both = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(w, x)
    assert matmul_flops(both.jaxpr) == 3 * (5 * product + gram)


def without_cloud(params: dict) -> dict:
    """The parameters that stage 1 trains."""
    return {name: leaf for name, leaf in params.items() if not name.startswith(("cloud", "glance"))}


def test_flops_of_the_step_agree_with_a_count_by_hand():
    config = shipped_config("pretrain", "B")
    config.batch_size = 64
    model = expert_config(config)
    assert len(model.widths) == 2

    def rows(path) -> int:
        """Rows of one chunk that a kernel multiplies."""
        names = [key.key for key in path]
        if names[0] != "unet" or "film" in names or "offset" in names:
            return 1
        return model.horizon if names[1] in ("in", "down_0", "up_0", "out") else model.horizon // 2

    kernels = [
        rows(path) * math.prod(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(without_cloud(param_shapes(model)))
        if path[-1].key == "kernel"
    ]
    by_hand = 6 * config.batch_size * sum(kernels)  # forwards, and backwards twice as much
    traced = aot.trace_step(config, make_mesh(1, jax.devices()[:1]))
    # the rest: geometry, and first layers, whose inputs need no gradient
    assert matmul_flops(traced.jaxpr.jaxpr) == pytest.approx(by_hand, rel=0.02)


COLLECTIVES = """
import jax, jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P
from bridgeact_jax.training.costs import collective_bytes

mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))

def print_bytes(f, out_specs):
    mapped = jax.shard_map(f, mesh=mesh, in_specs=P("x"), out_specs=out_specs, check_vma=False)
    x = jax.ShapeDtypeStruct((8 * 16, 24), jnp.float32)
    text = jax.jit(mapped).lower(x).compile().as_text()
    print(collective_bytes(text))

print_bytes(lambda x: lax.psum(x, "x"), P())
print_bytes(lambda x: lax.all_gather(x, "x"), P())
print_bytes(lambda x: lax.psum_scatter(x, "x", scatter_dimension=1, tiled=True), P("x"))
print_bytes(lambda x: lax.all_to_all(x, "x", 1, 0, tiled=True), P("x"))
print_bytes(lambda x: lax.ppermute(x, "x", [(i, (i + 1) % 8) for i in range(8)]), P("x"))
print_bytes(lambda x: lax.fori_loop(0, 7, lambda i, x: lax.psum(jnp.sin(x), "x"), x), P("x"))
print_bytes(lambda x: x + 1, P("x"))
"""


@pytest.mark.slow
def test_bytes_of_known_collectives():
    local = 16 * 24 * 4
    assert [eval(line) for line in on_eight_devices(COLLECTIVES).splitlines()] == [
        {"all-reduce": local},
        {"all-gather": 8 * local},
        {"reduce-scatter": local},
        {"all-to-all": local},
        {"collective-permute": local},
        {"all-reduce": 7 * local},
        {},
    ]


def test_collectives_as_a_tpu_writes_them():
    text = """HloModule m

%all-reduce-scatter.1 (p: bf16[16,8]) -> bf16[4,8] {
  %p = bf16[16,8]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %r = bf16[16,8]{1,0:T(8,128)(2,1)} all-reduce(%p), to_apply=%add
  ROOT %s = bf16[4,8]{1,0:T(8,128)(2,1)} dynamic-slice(%r), dynamic_slice_sizes={4,8}
}

%add (a: bf16[], b: bf16[]) -> bf16[] {
  %a = bf16[] parameter(0)
  %b = bf16[] parameter(1)
  ROOT %c = bf16[]{:T(256)} add(%a, %b)
}

ENTRY %main (x: bf16[16,8], y: f32[2]) -> bf16[4,8] {
  %x = bf16[16,8]{1,0:T(8,128)(2,1)} parameter(0)
  %y = f32[2]{0:T(128)} parameter(1)
  %gs = (f32[2]{0:T(128)}, f32[8]{0:T(128)S(1)}) all-gather-start(%y), dimensions={0}
  %gd = f32[8]{0:T(128)S(1)} all-gather-done(%gs)
  %rs = f32[2]{0:T(128)} all-reduce-start(%y), to_apply=%add
  %rd = f32[2]{0:T(128)} all-reduce-done(%rs)
  %t = (f32[2]{0:T(128)}, /*index=1*/pred[8]{0:T(8)}) all-reduce(%rd, %z), to_apply=%add
  ROOT %f = bf16[4,8]{1,0:T(8,128)(2,1)} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
}
""".replace("  %rs", "  %z = pred[8]{0:T(8)} constant({...})\n  %rs")
    assert collective_bytes(text) == {
        "all-gather": 32, "all-reduce": 8 + 8 + 8, "reduce-scatter": 16 * 8 * 2
    }  # fmt: skip


STEP = """
from bridgeact_jax.training import aot
from bridgeact_jax.training.config import shipped_config
from bridgeact_jax.training.mesh import make_mesh
config = shipped_config("pretrain", "S")
config.batch_size, config.model.dtype, config.data.history = 2048, "float32", 8
for fsdp in (1, 2):
    print(aot.compile_step(config, make_mesh(fsdp)).collectives)
"""


@pytest.mark.slow
def test_collectives_of_the_step_are_of_parameters_never_of_the_batch():
    copied, sharded = map(eval, on_eight_devices(STEP).splitlines())
    params = param_shapes(expert_config(shipped_config("pretrain", "S")))
    trained = jax.tree.leaves(without_cloud(params))
    gradients = 4 * sum(math.prod(leaf.shape) for leaf in trained)
    assert copied.keys() == {"all-reduce"}
    assert gradients <= copied["all-reduce"] <= gradients + 100  # and the figures that are logged
    # parameters are gathered once or twice; half of each sum is thrown away where nothing scatters
    assert sharded.keys() <= {"all-reduce", "all-gather", "reduce-scatter"}
    assert 0.8 * gradients < sharded["all-gather"] < 2 * gradients
    assert gradients < sum(sharded.values()) - sharded["all-gather"] < 2 * gradients


def test_an_estimate_in_closed_form():
    cost = aot.Cost(
        parameters=1, seconds=1.0, arguments=5, output=4, kept=3, temporary=2, code=1,
        flops=197e12 * 8, traffic=819e9 / 2, collectives={"all-reduce": 100e9, "all-gather": 50e9},
    )  # fmt: skip
    assert cost.total == 9
    result = aot.estimate(cost, tpus.CHIPS["v5e"], devices=4)
    assert result == pytest.approx((2.0, 0.5, 1.25))
    assert result.step == pytest.approx(3.25)


@pytest.mark.parametrize(
    ("topology", "said"),
    [
        ("16x16", "not of the form v4:4x4x4, v5e:16x16"),
        ("v5:16x16", "unknown chip 'v5': did you mean 'v5"),
        ("v5e:4x4x4", "a slice of v5e has 2 axes"),
        ("v4:4x4", "a slice of v4 has 3 axes"),
        ("v5e:32x16", "a pod of v5e has 256 chips; for more, --num_slices"),
    ],
)
def test_a_wrong_topology_says_what_would_be_right(topology, said):
    with pytest.raises(UsageError, match=said):
        tpus.parse_topology(topology)


def test_without_libtpu_it_says_how_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"bridgeact_jax\[tpu\]"):
        tpus.absent_devices("v5e:2x2")


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: requirements-tpu.lock"
)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--topology=v5e:2x2"], "v5e:2x2: 4 chips, data 4 x fsdp 1; 16 windows a step, 4 a chip"),
        (["--topology=v4:2x2x1", "--num_slices=2", "--config.fsdp=2"], "2 x v4:2x2x1: 8 chips"),
    ],
)
def test_the_command_compiles_for_a_tpu(words, said):
    shown = run("aot", "--config=configs/pretrain.py:S", *words).stdout
    assert said in shown and ": fits" in shown and "all-reduce" in shown and "estimate" in shown
    wrong = run("aot", "--config=configs/pretrain.py:S", "--topology=v4:3x3x3", check=False)
    assert wrong.returncode == 2 and "no such slice" in wrong.stderr
