"""A way around what stands in a plan's way: further waypoints over it or beside it."""

from collections.abc import Iterator

import numpy as np

from bridgeact_jax.geometry.guidance import Waypoints, is_open
from bridgeact_jax.planning.collisions import swept
from bridgeact_jax.planning.contacts import Contacts
from bridgeact_jax.planning.guard import Guard
from bridgeact_jax.planning.sweep import (
    Curve,
    curve_of,
    guidance_of,
    things_of,
    unpadded,
    without_held,
)

ROOM = 0.02  # metres that the hand should keep from things on its new way
ENOUGH, TOO_MANY = 4, 60  # points in the way to go around them, and to give up
OVER = (0.04, 0.08)  # metres over the highest of what stands in the way
BESIDE = (0.08, 0.12, 0.16, 0.20)  # metres to its side
DETOURS = 4  # blocked ways at most that are gone round
MOST = 24  # waypoints of a plan, as many as a follower takes
MISPLACED = ("not_finite", "workspace", "rotation", "leap")  # what no detour puts right
NEARBY = 0.4  # metres from a way within which things matter to it


def detour(
    waypoints: Waypoints, cloud: np.ndarray, guard: Guard, *, held: bool = False
) -> Waypoints | None:
    """The plan with further waypoints wherever its hand would come too near to a thing.

    Args:
      waypoints: padded or not.
      cloud: (M, 3) metres, what stands in the way included.
      guard: what it has to satisfy.
      held: whether the hand holds something now.

    Returns:
      NumPy, without padding; the plan itself where nothing is in the way, and None if no way that
      was tried is free up to the next gripper event, if the guard still sees a collision after
      that, or if a waypoint lies where no plan should go.
    """
    if any(x.kind in MISPLACED for x in guard.judge(waypoints, cloud, held=held)):
        return None
    plan, things = unpadded(waypoints), things_of(cloud, guard.limits.table)
    if held:
        things = without_held(things, plan.position[0], plan.rotation[0])
    curve = curve_of(guidance_of(plan))
    now = Curve(*(column[:1] for column in curve))
    things = things[~swept(now, Contacts(plan, things, held), things, 0.0)[0]]
    leg = 0
    for _ in range(DETOURS):
        leg = _blocked(plan, things, held, after=leg)
        if leg is None:
            break
        plan, leg = _around(plan, leg, things, guard, held)
    still = _blocked(plan, things, held, after=0, by=TOO_MANY)
    events = np.flatnonzero(np.diff(is_open(plan.gripper))) + 1
    if still is not None and still <= min(events, default=plan.count):
        return None
    refused = any(x.kind == "collision" for x in guard.judge(plan, cloud, held=held))
    return None if refused else plan


def _blocked(
    plan: Waypoints, things: np.ndarray, held: bool, *, after: int, by: int = ENOUGH
) -> int | None:
    """Number of the first waypoint after number `after` on the way to which are `by` points.

    From one contact to the next the hand may push.
    """
    curve, contacts = curve_of(guidance_of(plan)), Contacts(plan, things, held)
    met = swept(curve, contacts, things, 0.0)
    for leg in np.setdiff1d(np.arange(after + 1, plan.count), contacts.along):
        if met[curve.leg == leg].any(axis=0).sum() >= by:
            return int(leg)
    return None


def _around(
    plan: Waypoints, leg: int, things: np.ndarray, guard: Guard, held: bool
) -> tuple[Waypoints, int]:
    """The plan with the freest and then shortest way to waypoint `leg`, and its number there."""
    low, high = np.array(guard.limits.low), np.array(guard.limits.high)
    start, end = plan.position[leg - 1], plan.position[leg]
    middle = (start + end) / 2
    far = np.linalg.norm(things - middle, axis=1) > np.linalg.norm(end - start) / 2 + NEARBY
    near = things[~far]
    contacts = Contacts(plan, near, held, guard.limits.table)
    curve = curve_of(guidance_of(plan))
    there = near[swept(curve, contacts, near, 0.0)[curve.leg == leg].any(axis=0)]
    best = (_nearness(plan, leg, leg, near, held, guard), _length(plan), plan, leg)
    for via in _ways(plan.position, leg, there, contacts.depth(leg)):
        if np.any((via < low) | (via > high)) or plan.count + len(via) > MOST:
            continue
        way, last = _with(plan, leg, via), leg + len(via)
        found = (_nearness(way, leg, last, near, held, guard), _length(way), way, last)
        if found[:2] < best[:2]:
            best = found
    return best[2:]


def _nearness(plan, first, last, things, held, guard) -> tuple[int, int]:
    """Points that the hand meets on the ways to waypoints `first` to `last`, or comes near to."""
    contacts = Contacts(plan, things, held, guard.limits.table)
    curve = curve_of(guidance_of(plan))
    rows = (curve.leg >= first) & (curve.leg <= last)
    curve = Curve(*(column[rows] for column in curve))
    counts = (swept(curve, contacts, things, margin) for margin in (0.0, ROOM))
    return tuple(int(met.any(axis=0).sum()) for met in counts)


def _ways(
    position: np.ndarray, leg: int, there: np.ndarray, depth: float
) -> Iterator[np.ndarray]:
    """Further places (n, 3) on the way to waypoint `leg`: over `there` (n, 3), then beside it."""
    start, end = position[leg - 1], position[leg]
    for above in OVER:
        height = max(there[:, 2].max() + above + depth, start[2], end[2])
        over = np.array([[*start[:2], height], [*end[:2], height]])
        yield over[:1] if height == end[2] else over
    along = end[:2] - start[:2]
    if np.linalg.norm(along) < ROOM:
        return
    along /= np.linalg.norm(along)
    aside = np.array([-along[1], along[0]])
    middle = there.mean(axis=0)
    share = np.clip((middle[:2] - start[:2]) @ along / np.linalg.norm(end[:2] - start[:2]), 0, 1)
    height = start[2] + share * (end[2] - start[2])
    for distance in BESIDE:
        for side in (1, -1):
            yield np.array([[*(middle[:2] + side * distance * aside), height]])


def _with(plan: Waypoints, leg: int, via: np.ndarray) -> Waypoints:
    """The plan with places (n, 3) before waypoint `leg`; the tool turns at the last of them."""
    count = len(via)
    rotation = np.repeat(plan.rotation[leg - 1 : leg], count, axis=0)
    rotation[-1] = plan.rotation[leg]
    gripper = np.repeat(plan.gripper[leg - 1], count)
    return Waypoints(
        np.insert(plan.position, [leg] * count, via, axis=0),
        np.insert(plan.rotation, [leg] * count, rotation, axis=0),
        np.insert(plan.gripper, [leg] * count, gripper),
        np.int32(plan.count + count),
    )


def _length(plan: Waypoints) -> float:
    return float(np.linalg.norm(np.diff(plan.position, axis=0), axis=1).sum())
