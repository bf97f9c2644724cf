"""Rotations as unit quaternions (w, x, y, z) and as the 6D representation.

Every function takes arrays with any leading batch dimensions. Angles are radians. The 6D form is
the first two columns of the rotation matrix, concatenated (Zhou et al., CVPR 2019).
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def _safe_norm(v: Array) -> Array:
    """Euclidean norm over the last axis, kept, with a zero gradient instead of NaN at zero."""
    squared = jnp.sum(v * v, axis=-1, keepdims=True)
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)


def normalize(q: Array) -> Array:
    """Unit vectors along the last axis of (..., n)."""
    return q / jnp.maximum(_safe_norm(q), 1e-12)


def conjugate(q: Array) -> Array:
    """Inverse of unit quaternions (..., 4)."""
    return q * jnp.array([1.0, -1.0, -1.0, -1.0], q.dtype)


def multiply(q: Array, r: Array) -> Array:
    """Hamilton product (..., 4): the rotation that applies `r` first, then `q`."""
    qw, qv = q[..., :1], q[..., 1:]
    rw, rv = r[..., :1], r[..., 1:]
    w = qw * rw - jnp.sum(qv * rv, axis=-1, keepdims=True)
    return jnp.concatenate([w, qw * rv + rw * qv + jnp.cross(qv, rv)], axis=-1)


def rotate(q: Array, v: Array) -> Array:
    """Vectors (..., 3) turned by unit quaternions (..., 4)."""
    w, u = q[..., :1], q[..., 1:]
    u, v = jnp.broadcast_arrays(u, v)
    t = 2.0 * jnp.cross(u, v)
    return v + w * t + jnp.cross(u, t)


def to_matrix(q: Array) -> Array:
    """Rotation matrices (..., 3, 3) of unit quaternions (..., 4)."""
    columns = [rotate(q, axis) for axis in jnp.eye(3, dtype=q.dtype)]
    return jnp.stack(columns, axis=-1)


def from_matrix(m: Array) -> Array:
    """Unit quaternions (..., 4), w >= 0, of rotation matrices (..., 3, 3).

    Each of the four components is recovered from the diagonal in turn and the largest is used as
    the pivot, which is stable for every angle (Shepperd, 1978).
    """
    d = jnp.diagonal(m, axis1=-2, axis2=-1)
    x, y, z = d[..., 0], d[..., 1], d[..., 2]
    squares = jnp.stack([1 + x + y + z, 1 + x - y - z, 1 - x + y - z, 1 - x - y + z], axis=-1)
    wx, wy, wz = (
        m[..., 2, 1] - m[..., 1, 2],
        m[..., 0, 2] - m[..., 2, 0],
        m[..., 1, 0] - m[..., 0, 1],
    )
    xy, xz, yz = (
        m[..., 0, 1] + m[..., 1, 0],
        m[..., 0, 2] + m[..., 2, 0],
        m[..., 1, 2] + m[..., 2, 1],
    )
    candidates = jnp.stack(
        [
            jnp.stack([squares[..., 0], wx, wy, wz], axis=-1),
            jnp.stack([wx, squares[..., 1], xy, xz], axis=-1),
            jnp.stack([wy, xy, squares[..., 2], yz], axis=-1),
            jnp.stack([wz, xz, yz, squares[..., 3]], axis=-1),
        ],
        axis=-2,
    )
    pivot = jnp.argmax(squares, axis=-1)[..., None, None]
    q = normalize(jnp.take_along_axis(candidates, pivot, axis=-2)[..., 0, :])
    return jnp.where(q[..., :1] < 0, -q, q)


def to_sixd(q: Array) -> Array:
    """6D representation (..., 6) of unit quaternions (..., 4)."""
    m = to_matrix(q)
    return jnp.concatenate([m[..., :, 0], m[..., :, 1]], axis=-1)


def from_sixd(d: Array) -> Array:
    """Unit quaternions (..., 4) of 6D vectors (..., 6), orthonormalised by Gram-Schmidt."""
    first = normalize(d[..., :3])
    second = d[..., 3:] - jnp.sum(first * d[..., 3:], axis=-1, keepdims=True) * first
    second = normalize(second)
    return from_matrix(jnp.stack([first, second, jnp.cross(first, second)], axis=-1))


def exp(rotvec: Array) -> Array:
    """Unit quaternions (..., 4) of rotation vectors (..., 3) in radians."""
    half = 0.5 * _safe_norm(rotvec)
    return jnp.concatenate([jnp.cos(half), 0.5 * jnp.sinc(half / jnp.pi) * rotvec], axis=-1)


def log(q: Array) -> Array:
    """Rotation vectors (..., 3), length at most pi, of unit quaternions (..., 4)."""
    q = jnp.where(q[..., :1] < 0, -q, q)
    sine = _safe_norm(q[..., 1:])
    angle = 2.0 * jnp.arctan2(sine, q[..., :1])
    return jnp.where(sine > 1e-7, angle / jnp.maximum(sine, 1e-7), 2.0) * q[..., 1:]


def align(q: Array, reference: Array) -> Array:
    """`q` or `-q` (..., 4), whichever lies in the hemisphere of `reference`: the same rotation."""
    return jnp.where(jnp.sum(q * reference, axis=-1, keepdims=True) < 0, -q, q)


def angle(q0: Array, q1: Array) -> Array:
    """Geodesic distance (...,) in [0, pi] between unit quaternions (..., 4)."""
    q1 = align(q1, q0)
    return 4.0 * jnp.arctan2(_safe_norm(q1 - q0), _safe_norm(q1 + q0))[..., 0]


def slerp(q0: Array, q1: Array, t: Array) -> Array:
    """Point at fraction `t` (...,) of the shorter geodesic from `q0` to `q1` (..., 4)."""
    q1 = align(q1, q0)
    half = 0.5 * angle(q0, q1)[..., None]
    t = jnp.asarray(t)[..., None]
    ratio = jnp.sinc(half / jnp.pi)
    w0 = (1 - t) * jnp.sinc((1 - t) * half / jnp.pi) / ratio
    w1 = t * jnp.sinc(t * half / jnp.pi) / ratio
    return normalize(w0 * q0 + w1 * q1)
