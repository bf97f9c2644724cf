"""A way around what stands in a plan's way: further waypoints over it or beside it."""

from collections.abc import Iterator

import numpy as np

from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.planning.collisions import swept
from bridgeact_jax.planning.contacts import Contacts
from bridgeact_jax.planning.guard import Guard
from bridgeact_jax.planning.sweep import curve_of, guidance_of, things_of, unpadded

ROOM = 0.025  # metres that the hand should keep from things
ENOUGH = 4  # points
OVER = (0.04, 0.08, 0.12)  # metres over the highest of what stands in the way
BESIDE = (0.08, 0.12, 0.16, 0.20)  # metres to its side
TRIED = 12  # ways at most that the guard is asked about for each blocked one


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
      was tried is free.
    """
    plan, things = unpadded(waypoints), things_of(cloud, guard.limits.table)
    if not np.isfinite(np.column_stack(plan[:3])).all():
        return None
    blocked = _blocked(plan, things, held)
    tolerated: set[bytes] = set()
    while legs := [leg for leg in blocked if plan.position[leg].tobytes() not in tolerated]:
        leg = legs[0]
        better = _around(plan, leg, blocked[leg], cloud, things, guard, held)
        if better is None:
            tolerated.add(plan.position[leg].tobytes())
        else:
            plan = better
            blocked = _blocked(plan, things, held)
    refused = any(x.kind == "collision" for x in guard.judge(plan, cloud, held=held))
    return None if refused else plan


def _blocked(plan: Waypoints, things: np.ndarray, held: bool) -> dict[int, np.ndarray]:
    """{leg: (n, 3) m, what is in the way to that waypoint}, in order."""
    contacts = Contacts(plan, things, held)
    curve = curve_of(guidance_of(plan))
    met = swept(curve, contacts, things, ROOM)
    by_leg = {leg: met[curve.leg == leg].any(axis=0) for leg in range(1, plan.count)}
    return {leg: things[met] for leg, met in by_leg.items() if met.sum() >= ENOUGH}


def _around(plan, leg, there, cloud, things, guard, held) -> Waypoints | None:
    """The plan with a free way to waypoint `leg`; None if there is none among those tried."""
    before = _blocked(plan, things, held)
    depth = Contacts(plan, things, held, guard.limits.table).depth(leg)
    ways = [_with(plan, leg, via) for via in _ways(plan.position, leg, there, depth)]
    free = [way for way in ways if len(_blocked(way, things, held)) < len(before)]
    objections = {x.kind for x in guard.judge(plan, cloud, held=held)}
    for way in sorted(free, key=_length)[:TRIED]:
        if {x.kind for x in guard.judge(way, cloud, held=held)} <= objections:
            return way
    return None


def _ways(
    position: np.ndarray, leg: int, there: np.ndarray, depth: float
) -> Iterator[np.ndarray]:
    """Further places (n, 3) on the way to waypoint `leg`: over `there` (n, 3), then beside it."""
    start, end = position[leg - 1], position[leg]
    for above in OVER:
        height = max(there[:, 2].max() + above + depth, start[2], end[2])
        yield np.array([[*start[:2], height], [*end[:2], height]])
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
