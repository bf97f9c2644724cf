"""Anchors to points, in scenes whose depth is a formula."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeact_jax.geometry.cameras import unproject
from bridgeact_jax.planning.lifting import PATCH, lift, lift_all
from bridgeact_jax.planning.protocol import Anchor, PlanningError, View, in_camera
from tests.planning.conftest import DEPTH, HEIGHT, WIDTH

ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
NEAR = 0.72  # metres, of a thing in front of the plane
EDGE = 30  # the first column of the plane beside it


def scene(view, depth):
    return replace(view, depth=np.asarray(depth, np.float32))


def ray(camera, u, v):
    return np.array([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, 1.0])


pixels = st.tuples(
    st.floats(-0.49, WIDTH - 0.51, allow_nan=False), st.floats(-0.49, HEIGHT - 0.51)
)


@given(pixels)
def test_a_plane(camera, view, pixel):
    """Also at the picture's border; in the base frame it is what the camera unprojects."""
    point = lift(view, pixel)
    np.testing.assert_allclose(point, DEPTH * ray(camera, *pixel), rtol=1e-6)
    base = unproject(camera, np.array([pixel], np.float32), np.array([DEPTH], np.float32))
    position, _ = in_camera(camera, base, [(1.0, 0.0, 0.0, 0.0)])
    np.testing.assert_allclose(position[0], point, atol=1e-5)


@given(st.integers(PATCH, WIDTH - 1 - PATCH), st.integers(PATCH, HEIGHT - 1 - PATCH))
def test_a_slope(view, u, v):
    """A plane that recedes by 3 mm a column: the patch's middle is the anchor's own depth."""
    depth = 0.6 + 0.003 * COLUMNS
    assert lift(scene(view, depth), (u, v))[2] == pytest.approx(depth[v, u], abs=1e-6)


@pytest.mark.parametrize("column", range(EDGE - 6, EDGE + 7))
def test_at_an_edge_the_near_surface_counts(view, column):
    """As far as the patch reaches over the edge, and never a depth in between."""
    depth = np.where(COLUMNS < EDGE, NEAR, DEPTH)
    expected = NEAR if column - PATCH < EDGE else DEPTH
    assert lift(scene(view, depth), (column, 20))[2] == pytest.approx(expected, abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 0.85))
def test_holes_and_noise(view, seed, share):
    """Millimetres of noise and most of the patch unmeasured, in three ways of saying so."""
    rng = np.random.default_rng(seed)
    depth = np.where(COLUMNS < EDGE, NEAR, DEPTH) + rng.uniform(-0.002, 0.002, COLUMNS.shape)
    holes = rng.random(depth.shape) < share
    depth[holes] = rng.choice([0.0, np.nan, np.inf], holes.sum())
    near, far = (15, 20), (45, 20)
    measured = np.isfinite(depth) & (depth > 0)
    for (u, v), expected in ((near, NEAR), (far, DEPTH)):
        if measured[v - PATCH : v + PATCH + 1, u - PATCH : u + PATCH + 1].any():
            point = lift(scene(view, depth), (u, v))
            assert abs(point[2] - expected) <= 0.002 + 1e-6


def test_a_flying_pixel_is_no_surface(view):
    depth = np.full((HEIGHT, WIDTH), DEPTH)
    depth[20, 30] = 0.3
    depth[21, 31] = 0.5
    assert lift(scene(view, depth), (30, 20))[2] == pytest.approx(DEPTH, abs=1e-6)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [((0.62, 0.62, 0.80, 0.80), 0.62), ((0.62, 0.80, 0.80), 0.80), ((0.62, 0.80), 0.62)],
)
def test_among_holes_the_largest_surfaces_count(view, measured, expected):
    """Surfaces of fewer pixels than make one: never a depth between them."""
    depth = np.zeros((HEIGHT, WIDTH))
    depth[20, 28 : 28 + len(measured)] = measured
    assert lift(scene(view, depth), (30, 20))[2] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "pixel", [(-1, 3), (WIDTH, 3), (3, HEIGHT), (3, -0.6), (480, 600), (np.nan, 3)]
)
def test_outside_the_picture(view, pixel):
    with pytest.raises(PlanningError, match="outside the picture of 60 x 40.*0 to 59.*0 to 39"):
        lift(view, pixel)


def test_no_depth_around(view):
    depth = np.where(np.hypot(COLUMNS - 30, ROWS - 20) < 8, 0, DEPTH)
    with pytest.raises(PlanningError, match=r"within 3 pixels of pixel \(30, 20\).*60 x 40"):
        lift(scene(view, depth), (30, 20))


def test_a_camera_without_depth(view):
    blind = View(view.picture, view.camera)
    with pytest.raises(PlanningError, match="has no depth"):
        lift(blind, (3, 3))
    assert lift(blind, (3, 3), estimate=lambda _: view.depth)[2] == pytest.approx(DEPTH)
    with pytest.raises(PlanningError, match=r"\(2, 2\): must be \(40, 60\)"):
        lift(blind, (3, 3), estimate=lambda _: np.ones((2, 2)))


def test_all_anchors(view):
    anchors = (Anchor("grasp", (3, 4)), Anchor("place", (30, 20)))
    lifted = lift_all(view, anchors)
    assert [one.label for one in lifted] == ["grasp", "place"]
    for one in lifted:
        np.testing.assert_array_equal(one.point, lift(view, one.pixel))
