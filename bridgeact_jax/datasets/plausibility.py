"""Is an episode what an arm could have done? Rejects what it could not, flags what is odd."""

from collections.abc import Mapping

import numpy as np

from bridgeact_jax.datasets.card_format import Card
from bridgeact_jax.datasets.episode import Episode, RejectedEpisode
from bridgeact_jax.datasets.interpret import Columns, raw_numbers

STILL = 1e-4, 1e-3  # m and rad: an arm that stays within these does not move
STALE = 0.2  # s: a pose may be logged again and again for this long before it is measured anew
LEAP = 0.05  # m: a row of zeros this far from the rows beside it is no place on the path
FEW_STEPS = 10
BEYOND = 0.05  # of the gripper's range

FROZEN = "more than half of the steps repeat the pose before"
NO_GRIP = "the gripper never changes"
BEYOND_ENDS = "the gripper goes beyond the ends that the card names"
SHORT = f"fewer than {FEW_STEPS} steps"


def check_plausible(
    card: Card, keys: Mapping[str, str], columns: Columns, episode: Episode
) -> list[str]:
    """What is odd about an episode that `interpret_episode` accepted, as short texts.

    Args:
      card: whose `limits` hold. keys, columns: what the episode was interpreted from; only the
        gripper's are read, since an Episode's gripper is clipped to [0, 1].

    Raises RejectedEpisode if no arm could have moved so. Reasons and flags are the same text for
    the same fault, so that they can be counted.
    """
    full = card.recorded["rotation"] != "none"
    rotation = episode.rotation.astype(np.float64) if full else None
    position = episode.position.astype(np.float64)
    _check_places(position, card.limits.reach)
    _check_moves(position, rotation)
    steps = _length(np.diff(position, axis=0))
    turns = _angle(rotation[:-1], rotation[1:]) if full else np.zeros_like(steps)
    moves = (steps > 0) | (turns > 0)
    seconds = _seconds(episode.time, moves)
    _check_speed(steps[moves], seconds, card.limits.speed)
    _check_turning(turns[moves] / seconds, card.limits.turn)
    found = {
        FROZEN: 2 * np.count_nonzero(moves) < len(moves),
        NO_GRIP: card.gripper is not None and (episode.gripper == episode.gripper[0]).all(),
        BEYOND_ENDS: card.gripper is not None and _beyond_ends(card, keys, columns),
        SHORT: len(episode) < FEW_STEPS,
    }
    return [flag for flag, is_so in found.items() if is_so]


def _check_places(position: np.ndarray, reach: float) -> None:
    far = (np.abs(position) > reach).any(axis=-1)
    if far.any():
        places = position[far]
        constant = (places == places[0]).all() and (len(places) > 1 or np.ptp(places[0]) == 0)
        if constant and not far.all():
            raise RejectedEpisode("position holds a sentinel: a constant far away on some steps")
        raise RejectedEpisode("position is out of the robot's reach")
    zero = (position == 0).all(axis=-1)
    if zero.any():
        edges = np.flatnonzero(zero[1:] != zero[:-1])
        if (_length(position[edges + 1] - position[edges]) > LEAP).any():
            raise RejectedEpisode("position holds a sentinel: zeros on some steps")


def _check_moves(position: np.ndarray, rotation: np.ndarray | None) -> None:
    if np.ptp(position, axis=0).max() > STILL[0]:
        return
    if rotation is None or _angle(rotation[:1], rotation).max() <= STILL[1]:
        raise RejectedEpisode("the arm never moves")


def _check_speed(steps: np.ndarray, seconds: np.ndarray, limit: float) -> None:
    """A leap or two among slow steps is a jump in the data; many are a wrong unit or clock.

    Below the limit a leap is a jump too if all but it and the way back are ten times shorter.
    """
    speed = steps / seconds
    fast = speed > limit
    lone = (
        len(steps) >= 5
        and speed.max() > limit / 3
        and np.count_nonzero(steps > steps.max() / 10) <= 2
    )
    if lone or 0 < np.count_nonzero(fast) <= _few(fast):
        raise RejectedEpisode("the arm teleports")
    if fast.any():
        raise RejectedEpisode("the arm is faster than its limit")


def _check_turning(rate: np.ndarray, limit: float) -> None:
    fast = rate > limit
    if 0 < np.count_nonzero(fast) <= _few(fast):
        raise RejectedEpisode("the orientation jumps")
    if fast.any():
        raise RejectedEpisode("the arm turns faster than its limit")


def _few(steps: np.ndarray) -> float:
    return max(2, len(steps) / 10)


def _seconds(time: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """How long each step that `moves` may have taken.

    That is the time since the pose before was first logged, but no more than STALE (or one step);
    and no less than a median step, since a jittering clock makes some steps look arbitrarily short.
    """
    one = np.diff(time)
    end = np.flatnonzero(moves) + 1
    since = np.concatenate([[0], end[:-1]])[: len(end)]
    most = np.minimum(time[end] - time[since], np.maximum(one[moves], STALE))
    return np.maximum(most, np.median(one))


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum(vectors * vectors, axis=-1))


def _angle(q0: np.ndarray, q1: np.ndarray) -> np.ndarray:
    """Radians between unit quaternions (..., 4) of the same hemisphere."""
    return 4.0 * np.arctan2(_length(q1 - q0), _length(q1 + q0))


def _beyond_ends(card: Card, keys: Mapping[str, str], columns: Columns) -> bool:
    values = raw_numbers(card, keys, columns, "gripper")
    fraction = (values - card.gripper.closed) / (card.gripper.open - card.gripper.closed)
    return bool(fraction.min() < -BEYOND or fraction.max() > 1 + BEYOND)
