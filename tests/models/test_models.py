"""The expert's parts against naive references, and the promises its architecture makes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bridgeact_jax.geometry import rotations
from bridgeact_jax.geometry.guidance import Waypoints, build_guidance, sample
from bridgeact_jax.models import diffusion
from bridgeact_jax.models import normalizer as normalizer_lib
from bridgeact_jax.models.action_expert import (
    ActionExpert,
    ExpertConfig,
    example_inputs,
    sample_chunks,
)
from bridgeact_jax.models.denoiser import Conv
from bridgeact_jax.models.observation import (
    LOOK_AHEAD,
    UNIT,
    WINDOW,
    Observation,
    Proprioception,
    absolute,
    action_chunk,
    focus,
    observe,
)
from bridgeact_jax.models.pointnet import PointNet, largest
from bridgeact_jax.training.state import param_shapes
from tests.parameters import drawn

CONFIG = ExpertConfig(
    horizon=8, widths=(16, 32), condition=32, point_widths=(16, 32), keypoints=4, points=24
)


@pytest.fixture(scope="module")
def params():
    """With the closed gate of stage 1."""
    some = drawn(param_shapes(CONFIG))
    return {**some, "cloud_gate": np.zeros_like(some["cloud_gate"])}


def random_observation(seed, batch=3):
    rng = np.random.default_rng(seed)
    shapes = jax.tree.map(lambda x: (batch, *x.shape[1:]), example_inputs(CONFIG)[0])
    draw = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    return Observation(*draw)._replace(point_mask=jnp.asarray(rng.random(shapes.point_mask) < 0.7))


def encode(params, observation, *, use_cloud):
    guided = jnp.ones(observation.proprio.shape[0], bool)
    return ActionExpert(CONFIG).apply(
        {"params": params}, observation, guided, use_cloud=use_cloud, method=ActionExpert.encode
    )[0]


def test_shifted_matmul_is_a_convolution():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 8, 3))
    conv = Conv(5, jnp.float32)
    variables = conv.init(jax.random.key(0), x)
    kernel = np.asarray(variables["params"]["Dense_0"]["kernel"], np.float64).reshape(3, 3, 5)
    expected = np.zeros((2, 8, 5))
    for t in range(8):
        for k in range(3):
            if 0 <= t + k - 1 < 8:
                expected[:, t] += x[:, t + k - 1] @ kernel[k]
    np.testing.assert_allclose(conv.apply(variables, x), expected, atol=1e-5)


def test_pointnet_ignores_order_and_masked_points_and_an_empty_cloud_is_zero():
    net = PointNet((16, 32), 4, jnp.float32)
    rng = np.random.default_rng(1)
    points = rng.normal(size=(2, 10, 3)).astype(np.float32)
    mask = np.arange(10) < 7
    mask = np.stack([mask, mask])
    context = jnp.asarray(rng.normal(size=(2, 6)), jnp.float32)
    variables = net.init(jax.random.key(0), points, mask, context)
    out = net.apply(variables, points, mask, context)
    junk = np.where(mask[..., None], points, 1e3)
    np.testing.assert_allclose(net.apply(variables, junk, mask, context), out, atol=1e-5)
    order = rng.permutation(10)
    np.testing.assert_allclose(
        net.apply(variables, points[:, order], mask[:, order], context), out, atol=1e-5
    )
    np.testing.assert_array_equal(net.apply(variables, points, np.zeros_like(mask), context), 0)


def test_the_largest_and_its_gradient_are_those_of_max_even_where_several_are_equal():
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, (4, 7, 5)), jnp.float32)
    weight = jnp.arange(20.0).reshape(4, 5)
    values, gradients = zip(
        *(jax.value_and_grad(lambda x, f=f: jnp.sum(weight * f(x)))(x)
          for f in (largest, lambda x: jnp.max(x, axis=1))), strict=True,
    )  # fmt: skip
    assert values[0] == values[1]
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-6)


def test_keypoints_are_means_of_the_points():
    """Shifting a cloud that the weights cannot tell apart shifts the keypoints: they are places."""
    net = PointNet((16, 32), 4, jnp.float32)
    points = np.tile(np.array([0.3, -0.2, 0.7], np.float32), (1, 10, 1))
    mask, context = np.ones((1, 10), bool), jnp.zeros((1, 6))
    variables = net.init(jax.random.key(0), points, mask, context)
    keypoints = net.apply(variables, points, mask, context)[0, 32:].reshape(4, 3)
    np.testing.assert_allclose(keypoints, points[0, :4], atol=1e-6)


def test_stage_two_starts_at_stage_ones_function_to_the_last_bit(params):
    observation = random_observation(2)
    blind = encode(params, observation, use_cloud=False)
    np.testing.assert_array_equal(encode(params, observation, use_cloud=True), blind)


def test_the_zero_gate_learns_and_then_so_does_the_cloud_encoder(params):
    observation = random_observation(3)

    def loss(p):
        return jnp.sum(encode(p, observation, use_cloud=True) ** 2)

    gradient = jax.jit(jax.grad(loss))(params)
    assert np.abs(gradient["cloud_gate"]).max() > 0
    opened = {**params, "cloud_gate": params["cloud_gate"] + 0.1}
    gradient = jax.jit(jax.grad(loss))(opened)
    assert np.abs(gradient["glances_1"]["points"]["point_0"]["kernel"]).max() > 0


def test_an_empty_cloud_is_the_blind_expert_even_with_an_open_gate(params):
    opened = {**params, "cloud_gate": params["cloud_gate"] + 0.1}
    observation = random_observation(4)
    empty = observation._replace(point_mask=jnp.zeros_like(observation.point_mask))
    blind = encode(opened, observation, use_cloud=False)
    np.testing.assert_array_equal(encode(opened, empty, use_cloud=True), blind)
    assert np.abs(encode(opened, observation, use_cloud=True) - blind).max() > 1e-3


def test_signal_levels_follow_the_squared_cosine():
    levels = diffusion.signal_levels(100).astype(np.float64)
    time = np.arange(1, 101) / 100
    closed = (
        np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    )
    np.testing.assert_allclose(levels[:95], closed[:95], rtol=1e-4)
    assert np.all(np.diff(levels) < 0) and levels[0] > 0.999 and levels[-1] < 1e-3


def test_add_noise_has_the_stated_mean_and_variance():
    levels = diffusion.signal_levels(100)
    clean = jnp.full((20_000, 2), 0.7)
    noise = jax.random.normal(jax.random.key(0), clean.shape)
    noisy = diffusion.add_noise(clean, noise, jnp.full(20_000, 60), 100)
    np.testing.assert_allclose(noisy.mean(axis=0), 0.7 * np.sqrt(levels[60]), atol=0.02)
    np.testing.assert_allclose(noisy.var(axis=0), 1 - levels[60], rtol=0.03)


@pytest.mark.parametrize("sample_steps", [2, 10, 100])
def test_ddim_with_the_optimal_denoiser_reproduces_a_gaussian(sample_steps):
    """For data N(mean, std^2) the best prediction is linear and DDIM's result is known.

    With many steps the samples have the data's own mean and deviation; the mean is right always.
    """
    mean, std, levels = 0.3, 0.2, jnp.asarray(diffusion.signal_levels(100))

    def predict(x, step):
        level = levels[step]
        gain = jnp.sqrt(level) * std**2 / (level * std**2 + 1 - level)
        return mean + gain * (x - jnp.sqrt(level) * mean)

    noise = jax.random.normal(jax.random.key(1), (20_000, 1))
    out = diffusion.ddim_sample(predict, noise, 10.0, train_steps=100, sample_steps=sample_steps)
    np.testing.assert_allclose(out.mean(), mean, atol=0.01)
    if sample_steps == 100:
        np.testing.assert_allclose(out.std(), std, rtol=0.05)


def test_ddim_clips_at_the_limit():
    limit = jnp.array([0.5, 2.0])
    out = diffusion.ddim_sample(
        lambda x, step: jnp.full_like(x, 3.0),
        jnp.ones((4, 2)),
        limit,
        train_steps=100,
        sample_steps=5,
    )
    np.testing.assert_allclose(out, np.tile(limit, (4, 1)), atol=1e-6)


def test_a_sample_does_not_depend_on_its_batch(params):
    observation = random_observation(5, batch=4)
    keys = jax.random.split(jax.random.key(2), 4)
    draw = jax.jit(
        lambda o, k: sample_chunks(CONFIG, params, normalizer_lib.identity(), o, k, use_cloud=True)
    )
    together = draw(observation, keys)
    order = np.array([2, 0, 3, 1])
    np.testing.assert_array_equal(
        draw(jax.tree.map(lambda x: x[order], observation), keys[order]), together[order]
    )
    other = draw(jax.tree.map(lambda x: x.at[1:].set(jnp.zeros_like(x[1:])), observation), keys)
    np.testing.assert_array_equal(other[0], together[0])


def test_normalizer_round_trips_and_floors_an_axis_that_does_not_move():
    rng = np.random.default_rng(6)
    chunks = rng.normal(size=(200, 8, 10)) * np.r_[0.1, 0.05, 1e-6, np.ones(6), 0]
    chunks[..., 9] = rng.integers(0, 2, (200, 8))
    mask = rng.random((200, 8)) < 0.9
    chunks[~mask] = 1e6
    fitted = normalizer_lib.fit(
        jnp.asarray(chunks), jnp.broadcast_to(mask[..., None], chunks.shape)
    )
    expected = np.quantile(np.abs(chunks[mask][:, :3]), 0.99, axis=0)
    np.testing.assert_allclose(fitted.scale[:2], expected[:2], rtol=1e-4)
    assert np.isclose(fitted.scale[2], normalizer_lib.POSITION_FLOOR)
    normalised = fitted.normalize(jnp.asarray(chunks[mask], jnp.float32))
    np.testing.assert_allclose(fitted.denormalize(normalised), chunks[mask], atol=1e-5)
    np.testing.assert_allclose(np.abs(normalised).max(axis=0)[:2], fitted.limit[:2], rtol=1e-5)
    assert set(np.unique(normalised[:, 9])) == {-1.0, 1.0}


def random_scene(seed):
    rng = np.random.default_rng(seed)

    def quaternions(n):
        return jnp.asarray(Rotation.random(n, random_state=seed).as_quat(scalar_first=True))

    plan = Waypoints(
        jnp.asarray(rng.uniform(-0.2, 0.2, (5, 3))),
        quaternions(5),
        jnp.array([1.0, 1, 0, 0, 0]),
        jnp.asarray(4),
    )
    proprioception = Proprioception(
        jnp.asarray(rng.uniform(-0.2, 0.2, (3, 3))),
        quaternions(3),
        jnp.asarray(1.0),
        jnp.asarray(0.4),
    )
    return build_guidance(plan), proprioception


def test_absolute_inverts_action_chunk():
    _, arm = random_scene(0)
    origin, facing = arm.position[-1], arm.rotation[-1]
    chunk = action_chunk(arm.position, arm.rotation, jnp.array([1.0, 0, 1]), origin, facing)
    position, rotation, gripper = absolute(chunk, origin, facing)
    np.testing.assert_allclose(position, arm.position, atol=1e-6)
    np.testing.assert_allclose(rotations.angle(rotation, arm.rotation), 0, atol=2e-3)
    np.testing.assert_array_equal(gripper, [1, 0, 1])
    np.testing.assert_allclose(chunk[-1, 3:9], [1, 0, 0, 0, 1, 0], atol=1e-6)


def test_a_tool_frame_nobody_knows_cancels():
    """All rotations times the same unknown tool rotation: the expert sees and says the same."""
    guidance, arm = random_scene(1)
    tool = jnp.asarray(Rotation.random(random_state=9).as_quat(scalar_first=True))
    other = guidance._replace(rotation=rotations.multiply(guidance.rotation, tool))
    other_arm = arm._replace(rotation=rotations.multiply(arm.rotation, tool))
    points, mask = jnp.zeros((4, 3)), jnp.zeros(4, bool)
    a = observe(guidance, jnp.asarray(0.05), arm, points, mask)
    b = observe(other, jnp.asarray(0.05), other_arm, points, mask)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


def test_the_window_is_the_curve_at_fixed_metres_ahead_and_the_next_goals():
    guidance, arm = random_scene(9)
    points, mask = jnp.zeros((4, 3)), jnp.zeros(4, bool)
    window = observe(guidance, jnp.asarray(0.03), arm, points, mask).window
    for row, ahead in zip(window, WINDOW, strict=False):
        position, _, gripper = sample(guidance, jnp.asarray(0.03 + ahead))
        np.testing.assert_allclose(row[:3] * UNIT + arm.position[-1], position, atol=1e-6)
        assert row[9] == gripper
    event = np.flatnonzero(np.diff(guidance.gripper))[0]
    for row, place in ((-2, event), (-1, -1)):
        np.testing.assert_allclose(
            window[row, :3] * UNIT + arm.position[-1], guidance.position[place], atol=1e-6
        )
        assert window[row, 9] == 0


def test_an_unmeasured_gripper_width_is_marked_and_not_nan():
    guidance, arm = random_scene(3)
    points, mask = jnp.zeros((4, 3)), jnp.zeros(4, bool)
    unknown = observe(
        guidance, jnp.asarray(0.0), arm._replace(gripper_width=jnp.asarray(jnp.nan)), points, mask
    )
    known = observe(guidance, jnp.asarray(0.0), arm, points, mask)
    assert np.isfinite(unknown.proprio).all()
    assert unknown.proprio[-1] == 0 and known.proprio[-1] == 1


def test_the_focus_lies_ahead_on_the_curve_but_not_beyond_the_next_goal():
    position = np.zeros((4, 3), np.float32)
    position[:, 0] = [0.0, 0.3, 0.5, 0.5]
    plan = Waypoints(position, np.tile([1.0, 0, 0, 0], (4, 1)), np.array([1.0, 0, 0, 0]), 3)
    guidance = build_guidance(plan)
    np.testing.assert_allclose(focus(guidance, 0.05), [0.05 + LOOK_AHEAD, 0, 0], atol=1e-3)
    np.testing.assert_allclose(focus(guidance, 0.28), [0.3, 0, 0], atol=1e-3)
    np.testing.assert_allclose(focus(guidance, 0.45), [0.5, 0, 0], atol=1e-3)
