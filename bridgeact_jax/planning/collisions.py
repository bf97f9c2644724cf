"""Which points of a cloud a hand meets along a plan's curve, leniently and strictly."""

import numpy as np

from bridgeact_jax.planning.contacts import Contacts
from bridgeact_jax.planning.sweep import (
    CLOSED,
    OPENED,
    PALM,
    WRIST,
    Curve,
    in_tool,
    inside,
    thinner,
)

SLACK, DEEP_SLACK = 0.02, 0.045  # metres by which the hand is less than it is; at contacts
AT_CONTACT = 0.08  # metres from a contact within which fingers may touch
OF_CONTACT = 0.045  # metres above a contact that what is touched there reaches
HELD_HALF = 0.02  # metres to either side of the tool that what it holds reaches


def hits(curve: Curve, contacts: Contacts, things: np.ndarray) -> np.ndarray:
    """(S, M) which points the hand would hit at each sample of the curve.

    Fingers may touch at contacts, between two of them and once they are a fist.
    """
    if not len(things):
        return np.zeros((len(curve.position), 0), bool)
    local = in_tool(things, curve.position, curve.matrix)
    apart = np.linalg.norm(curve.position[:, None] - contacts.places, axis=-1)
    touching = np.isin(curve.leg, contacts.along) | (apart.min(axis=1, initial=1) < AT_CONTACT)
    touching, opened = touching[:, None], curve.opened[:, None]
    free = ~touching & (curve.leg <= contacts.pressing)[:, None]
    palm, low_palm = thinner(PALM, SLACK, DEEP_SLACK), thinner(PALM, SLACK, SLACK)
    wide, narrow = thinner(OPENED, SLACK, SLACK), thinner(CLOSED, SLACK, SLACK)
    return (
        inside(local, thinner(WRIST, SLACK, 0.0))
        | inside(local, palm)
        | ~touching & inside(local, low_palm)
        | free & opened & inside(local, wide)
        | free & ~opened & inside(local, narrow)
    )


def swept(curve: Curve, contacts: Contacts, points: np.ndarray, margin: float) -> np.ndarray:
    """(S, M) which points the hand, and what it holds, comes within `margin` metres of.

    Not counted are points at contacts: to come near those is wanted.
    """
    if not len(points) or not len(curve.position):
        return np.zeros((len(curve.position), len(points)), bool)
    local = in_tool(points, curve.position, curve.matrix)
    wide = margin * np.array([[-1.0], [1.0]])
    opened = curve.opened[:, None]
    met = inside(local, PALM + wide) | inside(local, WRIST + wide)
    met |= opened & inside(local, OPENED + wide)
    met |= ~opened & inside(local, CLOSED + wide)
    depth = np.array([contacts.depth(max(leg, 1)) for leg in curve.leg], np.float32)[:, None]
    beside = np.abs(local[..., 0]) < HELD_HALF + margin
    beside &= np.abs(local[..., 1]) < HELD_HALF + margin
    met |= beside & (local[..., 2] > 0) & (local[..., 2] < depth + margin * (depth > 0))
    offset = points[:, None] - contacts.places
    wanted = np.linalg.norm(offset, axis=-1) < AT_CONTACT
    wanted &= offset[..., 2] < OF_CONTACT
    return met & ~wanted.any(axis=1)
