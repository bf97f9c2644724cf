"""The anchors that a perfect planner would name: where a plan grasps, places and touches."""

import collections
from collections.abc import Mapping

import jax
import numpy as np

from bridgeact_jax.geometry.cameras import project
from bridgeact_jax.geometry.guidance import Waypoints, is_open
from bridgeact_jax.planning.lifting import lift
from bridgeact_jax.planning.protocol import Anchor, PlanningError, View, in_camera

LOWER = 0.02  # metres that a hand goes on down after it has closed on nothing
LEVEL = 0.01  # metres within which heights are equal
APART = 0.03  # metres between the first and the last place of one touch
ABOVE, BELOW, STEP = 0.06, 0.16, 0.001  # metres about the tool where its surface is looked for
EDGE = 20  # steps above an edge
ASTRAY = 0.03  # metres of a lifted anchor from the vertical


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
    under the tool.
    """
    anchors, left_out = [], collections.Counter()
    for label, tool in places(waypoints):
        found = _itself(view, tool) if view.depth is None else _on_surface(view, tool)
        if isinstance(found, str):
            left_out[found] += 1
        else:
            pixel, point = found
            anchors.append(Anchor(label, tuple(pixel.tolist()), tuple(point.tolist())))
    return tuple(anchors), dict(left_out)


def _touches(position: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Where a stretch of the way (n, 3) is lowest first, and last if that is elsewhere."""
    low = position[position[:, 2] <= position[:, 2].min() + LEVEL]
    far = low[np.argmax(np.linalg.norm(low - low[0], axis=1))]
    if np.linalg.norm(far - low[0]) < APART:
        return [("touch", low[0])]
    return [("touch", low[0]), ("touch", far)]


def _itself(view: View, tool: np.ndarray) -> tuple[np.ndarray, np.ndarray] | str:
    """The tool's pixel (2,) and its point (3,), camera frame, or why there is none."""
    pixels, ahead = _pixels(view, tool[None])
    if not (ahead & _inside(view, pixels))[0]:
        return "outside"
    return pixels[0], _in_camera(view, tool[None])[0]


def _on_surface(view: View, tool: np.ndarray) -> tuple[np.ndarray, np.ndarray] | str:
    """The pixel (2,) of the surface above or below the tool, and its point (3,), camera frame.

    The vertical is followed down to where it passes behind what is seen. Where that is an edge,
    such as that of a hole, a pixel a little above it that lifts to the vertical's neighbourhood
    does. A text says why there is none.
    """
    heights = np.arange(ABOVE, -BELOW, -STEP)
    column = tool + heights[:, None] * [0.0, 0.0, 1.0]
    pixels, ahead = _pixels(view, column)
    known = ahead & _inside(view, pixels)
    if not known[np.argmin(np.abs(heights))]:
        return "outside"
    u, v = np.clip(pixels, 0, [view.width - 1, view.height - 1]).astype(int).T
    seen = view.depth[v, u]
    points = _in_camera(view, column)
    behind = np.flatnonzero(known & (seen > 0) & (points[:, 2] >= seen))
    if not len(behind):
        return "no surface"
    for row in range(behind[0], max(behind[0] - EDGE, -1), -1):
        if not known[row]:
            continue
        try:
            lifted = np.asarray(lift(view, tuple(pixels[row].tolist())), np.float64)
        except PlanningError:
            continue
        if np.linalg.norm(lifted - points[row]) <= ASTRAY:
            return pixels[row], lifted
    return "hidden"


def _pixels(view: View, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole pixels (N, 2) of base-frame points, and (N,) which lie before the camera."""
    pixels, depth = map(np.asarray, _project(view.camera, np.float32(points)))
    return np.rint(pixels), depth > 0


def _inside(view: View, pixels: np.ndarray) -> np.ndarray:
    return np.all((pixels >= 0) & (pixels <= [view.width - 1, view.height - 1]), axis=-1)


def _in_camera(view: View, points: np.ndarray) -> np.ndarray:
    """(N, 3) base-frame points in the camera's frame, float64."""
    unturned = np.tile([1.0, 0.0, 0.0, 0.0], (len(points), 1))
    return np.asarray(in_camera(view.camera, points, unturned)[0], np.float64)


_project = jax.jit(project)
