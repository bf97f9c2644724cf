"""The anchors that a perfect planner would name: where a plan grasps, places and touches."""

import collections
from collections.abc import Mapping

import jax
import numpy as np

from bridgeact_jax.geometry.cameras import project, unproject
from bridgeact_jax.geometry.guidance import Waypoints, is_open
from bridgeact_jax.planning.lifting import lift
from bridgeact_jax.planning.protocol import Anchor, PlanningError, View, in_camera

LOWER = 0.02  # metres that a hand goes on down after it has closed on nothing
LEVEL = 0.01  # metres within which heights are equal
APART = 0.03  # metres between the first and the last place of one touch
ABOVE, BELOW, STEP = 0.06, 0.16, 0.001  # metres about the tool where its surface is looked for
ON_SURFACE = 0.01  # metres of a point's depth from the seen one
ASTRAY = 0.03  # metres of a lifted anchor from the surface it was put on


def places(waypoints: Waypoints) -> list[tuple[str, np.ndarray]]:
    """("grasp", "place" or "touch", the tool's position (3,) there, base frame), in order.

    Closing the hand is a grasp unless the hand then goes on down; opening it after a grasp is a
    place. A hand that is closed on nothing, or never closes, touches where it is lowest: there,
    and, if it goes on at that height, also where it ends. The base's z axis points up.
    """
    count = int(waypoints.count)
    position = np.asarray(waypoints.position, np.float64)[:count]
    opened = np.asarray(is_open(np.asarray(waypoints.gripper)[:count]))
    found, holding, empty_since = [], not opened[0], None
    for k in range(1, count):
        if opened[k - 1] and not opened[k]:
            goes_down = k + 1 < count and position[k + 1, 2] < position[k, 2] - LOWER
            if goes_down:
                empty_since = k
            else:
                found.append(("grasp", position[k]))
            holding = not goes_down
        elif opened[k] and not opened[k - 1]:
            if holding:
                found.append(("place", position[k]))
            elif empty_since is not None:
                found += _touches(position[empty_since : k + 1])
            holding, empty_since = False, None
    if empty_since is not None:
        found += _touches(position[empty_since:])
    return found or _touches(position[1:])


def anchors_of(
    waypoints: Waypoints, view: View
) -> tuple[tuple[Anchor, ...], Mapping[str, int]]:
    """The `places` as anchors on what the view shows, and how many were left out, by reason.

    An anchor lies where the vertical through the tool meets the surface that the view's depth
    shows, so that it lifts to a point of the thing; without depth it is the tool itself. Pixels
    are whole numbers. Reasons: "outside" the picture, "hidden" behind something, "no surface"
    under the tool, "no depth" to lift it by, "at an edge" beyond which it lifts to another thing.
    """
    anchors, left_out = [], collections.Counter()
    for label, point in places(waypoints):
        point, reason = _surface(view, point) if view.depth is not None else (point, None)
        if reason is None:
            pixel, ahead = _pixels(view, point[None])
            inside = ahead & _inside(view, pixel)
            reason = None if inside[0] else "outside"
        if reason is not None:
            left_out[reason] += 1
            continue
        pixel = tuple(float(x) for x in pixel[0])
        (seen,), _ = in_camera(view.camera, point[None], [(1.0, 0.0, 0.0, 0.0)])
        if view.depth is not None:
            try:
                lifted = np.asarray(lift(view, pixel), np.float64)
            except PlanningError:
                left_out["no depth"] += 1
                continue
            if np.linalg.norm(lifted - seen) > ASTRAY:
                left_out["at an edge"] += 1
                continue
            seen = lifted
        anchors.append(Anchor(label, pixel, tuple(float(x) for x in seen)))
    return tuple(anchors), dict(left_out)


def _touches(position: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Where a stretch of the way (n, 3) is lowest first, and last if that is elsewhere."""
    low = position[position[:, 2] <= position[:, 2].min() + LEVEL]
    far = low[np.argmax(np.linalg.norm(low - low[0], axis=1))]
    if np.linalg.norm(far - low[0]) < APART:
        return [("touch", low[0])]
    return [("touch", low[0]), ("touch", far)]


def _surface(view: View, tool: np.ndarray) -> tuple[np.ndarray, str | None]:
    """The seen point (3,) straight above or below the tool, or the reason why there is none."""
    heights = np.arange(ABOVE, -BELOW, -STEP)
    column = tool + heights[:, None] * [0.0, 0.0, 1.0]
    pixels, ahead = _pixels(view, column)
    known = ahead & _inside(view, pixels)
    if not known[np.argmin(np.abs(heights))]:
        return tool, "outside"
    height, width = view.depth.shape
    u, v = np.clip(pixels, 0, [width - 1, height - 1]).astype(int).T
    seen = view.depth[v, u]
    known &= seen > 0
    free = seen - np.asarray(_project(view.camera, np.float32(column))[1])
    inside = np.flatnonzero(known & (free <= 0))
    if not len(inside):
        return tool, "no surface"
    first = inside[:1]
    if free[first[0]] < -ON_SURFACE:
        return tool, "hidden"
    return np.asarray(_unproject(view.camera, pixels[first], seen[first]), np.float64)[0], None


def _pixels(view: View, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole pixels (N, 2) of base-frame points, and (N,) which lie before the camera."""
    pixels, depth = map(np.asarray, _project(view.camera, np.float32(points)))
    return np.rint(pixels), depth > 0


def _inside(view: View, pixels: np.ndarray) -> np.ndarray:
    height, width = view.picture.shape[:2]
    return np.all((pixels >= 0) & (pixels <= [width - 1, height - 1]), axis=-1)


_project, _unproject = jax.jit(project), jax.jit(unproject)
