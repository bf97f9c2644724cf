"""Rotations against SciPy (scalar last there, wxyz here) and the axioms of the group."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from bridgeact_jax.geometry import poses, rotations


@pytest.fixture(scope="module")
def samples():
    """Random rotations and the awkward ones: identity, half turns, tiny angles."""
    rng = np.random.default_rng(0)
    special = np.concatenate([np.eye(3) * np.pi, np.eye(3) * 1e-4, np.zeros((1, 3))])
    rotvec = np.concatenate([Rotation.random(200, random_state=1).as_rotvec(), special])
    return Rotation.from_rotvec(rotvec), rng


def wxyz(rotation: Rotation) -> np.ndarray:
    return rotation.as_quat(scalar_first=True)


def assert_same_rotation(q, reference, atol=2e-6):
    dot = np.abs(np.sum(np.asarray(q, np.float64) * reference, axis=-1))
    np.testing.assert_allclose(dot, 1.0, atol=atol)


def test_conversions_agree_with_scipy(samples):
    reference, _ = samples
    q = jnp.asarray(wxyz(reference))
    np.testing.assert_allclose(rotations.to_matrix(q), reference.as_matrix(), atol=1e-6)
    assert_same_rotation(rotations.from_matrix(jnp.asarray(reference.as_matrix())), wxyz(reference))
    assert_same_rotation(rotations.exp(jnp.asarray(reference.as_rotvec())), wxyz(reference))
    assert_same_rotation(rotations.exp(rotations.log(q)), wxyz(reference))
    np.testing.assert_allclose(
        np.linalg.norm(rotations.log(q), axis=-1), reference.magnitude(), atol=2e-6
    )


def test_product_and_action_agree_with_scipy(samples):
    reference, rng = samples
    other = Rotation.random(len(reference), random_state=2)
    v = rng.normal(size=(len(reference), 3))
    q, r = jnp.asarray(wxyz(reference)), jnp.asarray(wxyz(other))
    assert_same_rotation(rotations.multiply(q, r), wxyz(reference * other))
    np.testing.assert_allclose(rotations.rotate(q, jnp.asarray(v)), reference.apply(v), atol=1e-5)
    np.testing.assert_allclose(
        rotations.angle(q, r), (reference.inv() * other).magnitude(), atol=2e-6
    )


def test_sixd_round_trip_is_scale_free_and_orthonormalises(samples):
    reference, rng = samples
    d = rotations.to_sixd(jnp.asarray(wxyz(reference)))
    np.testing.assert_allclose(d[:, :3], reference.as_matrix()[:, :, 0], atol=1e-6)
    assert_same_rotation(rotations.from_sixd(3.0 * d), wxyz(reference))
    noisy = d + 0.1 * rng.normal(size=d.shape)
    m = np.asarray(rotations.to_matrix(rotations.from_sixd(noisy)))
    identity = np.broadcast_to(np.eye(3), m.shape)
    np.testing.assert_allclose(m @ m.swapaxes(-1, -2), identity, atol=1e-5)


def test_slerp_agrees_with_scipy_and_ignores_the_sign():
    ends = Rotation.random(2, random_state=3)
    t = np.linspace(0, 1, 11)
    expected = wxyz(Slerp([0, 1], ends)(t))
    q0, q1 = jnp.asarray(wxyz(ends))
    for sign in (1.0, -1.0):
        assert_same_rotation(rotations.slerp(q0, sign * q1, jnp.asarray(t)), expected)


def test_gradients_are_finite_at_the_identity():
    identity = jnp.array([1.0, 0, 0, 0])
    for f in (
        lambda q: rotations.log(q).sum(),
        lambda q: rotations.angle(q, identity),
        lambda q: rotations.slerp(q, identity, 0.3).sum(),
        lambda q: rotations.exp(q[1:]).sum(),
    ):
        assert np.isfinite(jax.grad(f)(identity)).all()


def test_pose_composition_agrees_with_homogeneous_matrices():
    rng = np.random.default_rng(4)

    def random_pose(seed):
        rotation = Rotation.random(random_state=seed)
        position = rng.normal(size=3)
        m = np.eye(4)
        m[:3, :3], m[:3, 3] = rotation.as_matrix(), position
        return poses.Pose(jnp.asarray(position), jnp.asarray(wxyz(rotation))), m

    (T_a_b, m_a_b), (T_b_c, m_b_c) = random_pose(5), random_pose(6)
    points = rng.normal(size=(7, 3))
    T_a_c = poses.compose(T_a_b, T_b_c)
    homogeneous = np.concatenate([points, np.ones((7, 1))], axis=1)
    np.testing.assert_allclose(
        poses.transform_points(T_a_c, jnp.asarray(points)),
        (homogeneous @ (m_a_b @ m_b_c).T)[:, :3],
        atol=1e-5,
    )
    there_and_back = poses.compose(T_a_b, poses.inverse(T_a_b))
    np.testing.assert_allclose(there_and_back.position, 0, atol=1e-6)
    assert_same_rotation(there_and_back.rotation, np.array([1.0, 0, 0, 0]))
