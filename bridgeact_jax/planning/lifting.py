"""Anchors lifted: from pixels of a picture to points by depth."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bridgeact_jax.planning.protocol import Anchor, PlanningError, View

PATCH = 3  # pixels to each side of an anchor that its depth is taken from
GAP = 0.02  # of the depth, between two pixels that lie on two surfaces
FEWEST = 3  # pixels that make a surface, or as many as the largest has where none has so many

Estimate = Callable[[np.ndarray], np.ndarray]  # picture (H, W, 3) uint8 -> depth (H, W) metres


def lift(
    view: View, pixel: tuple[float, float], *, estimate: Estimate | None = None
) -> np.ndarray:
    """The point that a pixel shows, (3,) metres, camera frame.

    The depths measured in a patch of 7 x 7 pixels are parted into surfaces where, sorted, one is
    farther than the one before by more than `GAP` of it. The nearest of `FEWEST` pixels counts, or
    of as many as the largest has where none has so many, since an anchor is meant for a thing and
    not for what is behind it: its median, never one across an edge.

    Args:
      pixel: (u, v); (0, 0) is the centre of the top left pixel.
      estimate: makes the depth of a view that has none.

    Raises PlanningError if the pixel is outside the picture or nothing was measured around it.
    """
    u, v = pixel
    if not (-0.5 <= u < view.width - 0.5 and -0.5 <= v < view.height - 0.5):
        raise PlanningError(
            f"pixel ({u:g}, {v:g}) lies outside the picture of {view.width} x {view.height}: u "
            f"must be from 0 to {view.width - 1} to the right, v from 0 to {view.height - 1} down"
        )
    depth = _depth(view, estimate)
    row, column = int(np.floor(v + 0.5)), int(np.floor(u + 0.5))
    patch = depth[
        max(row - PATCH, 0) : row + PATCH + 1, max(column - PATCH, 0) : column + PATCH + 1
    ]
    measured = np.sort(patch[np.isfinite(patch) & (patch > 0)].astype(np.float64))
    if not len(measured):
        raise PlanningError(
            f"no depth was measured within {PATCH} pixels of pixel ({u:g}, {v:g}) of the picture "
            f"of {view.width} x {view.height}: choose a pixel on a solid surface"
        )
    surfaces = np.split(measured, np.flatnonzero(measured[1:] > (1 + GAP) * measured[:-1]) + 1)
    enough = min(FEWEST, max(map(len, surfaces)))
    z = np.median(next(one for one in surfaces if len(one) >= enough))
    camera = view.camera
    x, y = (u - float(camera.cx)) / float(camera.fx), (v - float(camera.cy)) / float(camera.fy)
    return z * np.array([x, y, 1.0])


def with_depth(view: View, estimate: Estimate | None = None) -> View:
    """The view with its depth, which is estimated if it has none. Raises PlanningError."""
    return view if view.depth is not None else replace(view, depth=_depth(view, estimate))


def lift_all(view: View, anchors: tuple[Anchor, ...]) -> tuple[Anchor, ...]:
    """The anchors with their points; as `lift`."""
    return tuple(replace(anchor, point=tuple(lift(view, anchor.pixel))) for anchor in anchors)


def _depth(view: View, estimate: Estimate | None) -> np.ndarray:
    if view.depth is not None:
        return view.depth
    if estimate is None:
        raise PlanningError("the camera has no depth: give a depth picture or an estimate of it")
    depth = np.asarray(estimate(view.picture))
    if depth.shape != view.picture.shape[:2]:
        raise PlanningError(
            f"the estimated depth is {depth.shape}: must be {view.picture.shape[:2]}, metres"
        )
    return depth
