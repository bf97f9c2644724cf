"""Does the data bear out the rotation convention that a card claims?

The claim is compared with the other readings of the same numbers that a card could name: the other
order of a quaternion or matrix, the other Euler orders, axis-angle. A wrong reading still gives
unit quaternions, a continuous path and nearly the same step angles, so these tell nothing. What
tells readings apart:

rotation_action: the axis about which the arm turned between two states is the axis about which it
  was commanded to turn. The score is the mean cosine between the two, over windows of WINDOW
  seconds (an arm follows its commands late), weighted by the angle turned. If the plain differences
  of the numbers explain the actions better than every reading does, they were computed that way and
  say nothing about the convention.
tool_axis: over a dataset of table-top manipulation the tool turns about the vertical more than it
  tilts, so that the vertical seen from the tool stays nearly the same; read in a wrong order it
  scatters. The score is the length of its mean, 1 where the tool never tilts. This is a prior, used
  only where the actions do not decide, and only if the base's z is up.

Evidence is a vector of sums that adds up over episodes; `judge` turns the total into an answer.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation as ScipyRotation

from bridgeact_jax.datasets.card_format import Card, Rotation
from bridgeact_jax.datasets.episode import Episode
from bridgeact_jax.datasets.interpret import Columns, raw_numbers, to_quaternion

EPISODES = 300  # of a dataset, evenly spread, serve as evidence
WINDOW = 0.4  # s
LEAST_TURN, MOST_WEIGHT = 0.02, 0.2  # rad turned in a window

EXPLAINS = 0.6  # mean cosine above which a reading explains the actions at all
MARGIN, SIGNIFICANT = 0.01, 2.5  # lead in mean cosine, and in standard errors over episodes
FEWEST_WINDOWS = 50
UPRIGHT, SCATTER = 0.95, 0.2  # mean of the tool's vertical, and how far ahead of another reading's
FEWEST_EPISODES = 10  # for the tool's axis


def chosen(index: int, total: int) -> bool:
    """Whether episode `index` of `total` serves as evidence; the same for any way of working."""
    return index % -(-total // EPISODES) == 0


def no_evidence(card: Card) -> np.ndarray:
    """(K,) float64 zeros: what `evidence` of no episode adds up to."""
    return np.zeros(_Sums.size(len(_readings(card)), len(_hypotheses(card))))


def evidence(card: Card, keys: Mapping[str, str], columns: Columns, episode: Episode) -> np.ndarray:
    """(K,) float64 sums of one episode; K depends on the card alone.

    Args:
      keys, columns: what `episode` was interpreted from; "rotation_action" among the keys if the
        card has that table.
    """
    readings = _readings(card)
    total = no_evidence(card)
    if not readings:
        return total
    sums = _Sums.of(total, len(readings), len(_hypotheses(card)))
    claim = ScipyRotation.from_quat(episode.rotation.astype(np.float64), scalar_first=True)
    values = raw_numbers(card, keys, columns, "rotation")
    rotations = [
        claim if number == 0 else claim.inv() if reading is None else _rotation(reading, values)
        for number, reading in enumerate(readings.values())
    ]
    sums.episodes[:] = 1
    sums.poses[:] = len(episode)
    sums.vertical[:] = [rotation.as_matrix()[:, 2].sum(axis=0) for rotation in rotations]
    if card.rotation_action is not None:
        action = raw_numbers(card, keys, columns, "rotation_action")
        steps = max(1, round(WINDOW / float(np.median(np.diff(episode.time)))))
        if steps < len(episode):
            commanded = _commanded(card, action, steps)
            turned = _turned(card, rotations, values, steps)
            _add_windows(sums, turned, commanded)
    return total


def judge(card: Card, total: np.ndarray) -> dict[str, Any]:
    """The answer, for the manifest, to the sum of the episodes' evidence.

    "contradicts" if some other reading is better than the claim by the margins above, "fits" if the
    claim is better than every other, else "undetermined". `by` names the evidence that decided,
    `scores` holds each reading's mean cosine and mean vertical (None where there is no evidence).

    The margins: a lead must exceed SIGNIFICANT standard errors, episodes being the independent
    units, which excludes chance; MARGIN excludes readings that the data can hardly tell apart; and
    EXPLAINS excludes actions that have nothing to do with the rotation: of FEWEST_WINDOWS random
    windows the mean cosine is 0 +- 0.08.
    """
    names = list(_readings(card))
    answer = {
        "answer": "undetermined",
        "reason": "",
        "by": [],
        "claim": names[0] if names else "",
        "episodes": 0,
        "windows": 0,
        "scores": {},
    }
    if len(names) < 2:
        what = "the card names no rotation" if not names else f"{names[0]} has no other reading"
        return answer | {"reason": what}
    sums = _Sums.of(total, len(names), len(_hypotheses(card)))
    cosines, by_action = _judge_actions(card, sums)
    verticals, by_axis = _judge_axis(card, sums)
    verdicts = np.where(by_action != 0, by_action, by_axis)
    deciding = [
        word
        for word, used in (
            ("rotation_action", (by_action != 0).any()),
            ("tool_axis", ((by_action == 0) & (by_axis != 0)).any()),
        )
        if used
    ]
    answer |= {
        "by": deciding,
        "episodes": int(sums.episodes[0]),
        "windows": int(sums.windows[0]),
        "scores": {
            name: {"rotation_action": cosine, "tool_axis": vertical}
            for name, cosine, vertical in zip(names, cosines, verticals, strict=True)
        },
    }
    better = [name for name, verdict in zip(names[1:], verdicts, strict=True) if verdict < 0]
    alike = [name for name, verdict in zip(names[1:], verdicts, strict=True) if verdict == 0]
    if better:
        return answer | {"answer": "contradicts", "reason": f"better: {', '.join(better)}"}
    if alike:
        return answer | {"reason": f"not told from: {', '.join(alike)}"}
    return answer | {"answer": "fits", "reason": "better than every other reading"}


class _Sums(NamedTuple):
    """Views into the vector of sums, of R readings and H hypotheses about the actions.

    cosines (H,) sums of weighted cosines; products (H, H) sums over episodes of the products of two
    such sums, from which the spread of any difference follows; vertical (R, 3) sums over poses.
    """

    episodes: np.ndarray
    poses: np.ndarray
    windows: np.ndarray
    weight: np.ndarray
    cosines: np.ndarray
    products: np.ndarray
    vertical: np.ndarray

    @staticmethod
    def size(readings: int, hypotheses: int) -> int:
        return 4 + hypotheses * (1 + hypotheses) + 3 * readings if readings else 0

    @classmethod
    def of(cls, total: np.ndarray, readings: int, hypotheses: int) -> "_Sums":
        counts, rest = np.split(total, [4])
        cosines, products, vertical = np.split(rest, [hypotheses, hypotheses * (1 + hypotheses)])
        return cls(
            *np.split(counts, 4),
            cosines,
            products.reshape(hypotheses, hypotheses),
            vertical.reshape(readings, 3),
        )


def _readings(card: Card) -> dict[str, Rotation | None]:
    """The claim, then its alternatives; None is the inverse of the claim."""
    claim = card.rotation
    if claim is None:
        return {}
    others: list[Rotation | None] = []
    if claim.convention == "quaternion":
        others = [dataclasses.replace(claim, order=order) for order in ("wxyz", "xyzw")]
    elif claim.convention == "matrix":
        others = [None]
    elif claim.convention == "axis_angle" or len(claim.axes) == 3:
        words = dict.fromkeys([claim.axes or "xyz", "xyz", "zyx"])
        others = [
            dataclasses.replace(claim, convention="euler", axes=axes, order=order)
            for axes in words
            for order in ("extrinsic", "intrinsic")
        ]
        others.append(dataclasses.replace(claim, convention="axis_angle", axes="", order=""))
    elif len(claim.axes) == 2:
        others = [dataclasses.replace(claim, order=order) for order in ("extrinsic", "intrinsic")]
    return {_name(claim): claim} | {
        _name(other): other for other in others if _name(other) != _name(claim)
    }


def _name(reading: Rotation | None) -> str:
    if reading is None:
        return "matrix transposed"
    words = (reading.convention, reading.axes, reading.order)
    return " ".join(word for word in words if word)


def _frames(card: Card) -> tuple[str, ...]:
    if card.rotation_action is None:
        return ()
    frame = card.rotation_action.frame
    return ("base", "tool") if frame == "unknown" else (frame,)


def _is_plain(card: Card) -> bool:
    """Whether the rotation's numbers may be subtracted to give the action's."""
    return card.rotation_action is not None and (
        card.rotation.convention == "axis_angle" or len(card.rotation.axes) == 3
    )


def _hypotheses(card: Card) -> list[tuple[str, str]]:
    """What may explain the actions: each reading in each frame; last the plain differences."""
    readings = _readings(card)
    pairs = [(name, frame) for name in readings for frame in _frames(card)]
    return pairs + ([("", "differences")] if readings and _is_plain(card) else [])


def _rotation(reading: Rotation, values: np.ndarray) -> ScipyRotation:
    return ScipyRotation.from_quat(to_quaternion(reading, values), scalar_first=True)


def _commanded(card: Card, action: np.ndarray, steps: int) -> np.ndarray:
    """(T - steps, 3) rotation vectors commanded over each window; NaN where not known."""
    known = np.isfinite(action).all(axis=-1)
    vectors = _rotation(card.rotation_action, np.where(known[:, None], action, 0.0)).as_rotvec()
    vectors[~known] = np.nan
    return sum(vectors[start : len(vectors) - steps + start] for start in range(steps))


def _turned(
    card: Card, rotations: list[ScipyRotation], values: np.ndarray, steps: int
) -> np.ndarray:
    """(H, T - steps, 3) rotation vectors over each window, by hypothesis."""
    turned = []
    for rotation in rotations:
        before, after = rotation[:-steps], rotation[steps:]
        for frame in _frames(card):
            turn = after * before.inv() if frame == "base" else before.inv() * after
            turned.append(turn.as_rotvec())
    if _is_plain(card):
        turned.append(values[steps:] - values[:-steps])
    return np.stack(turned)


def _add_windows(sums: _Sums, turned: np.ndarray, commanded: np.ndarray) -> None:
    """Add the cosines of the windows in which every hypothesis sees a turn."""
    angle = np.linalg.norm(turned, axis=-1)
    least = angle.min(axis=0)
    size = np.linalg.norm(commanded, axis=-1)
    used = (least > LEAST_TURN) & (size > 0)
    if not used.any():
        return
    weight = np.minimum(least[used], MOST_WEIGHT)
    cosine = np.sum(turned[:, used] * commanded[used], axis=-1) / (angle[:, used] * size[used])
    total = cosine @ weight
    sums.windows[:] = np.count_nonzero(used)
    sums.weight[:] = weight.sum()
    sums.cosines[:] = total
    sums.products[:] = np.outer(total, total)


def _judge_actions(card: Card, sums: _Sums) -> tuple[list[float | None], np.ndarray]:
    """Each reading's score, and 1, 0 or -1 for the claim against each alternative."""
    readings, frames = list(_readings(card)), _frames(card)
    undecided = np.zeros(len(readings) - 1, int)
    if sums.windows[0] < FEWEST_WINDOWS:
        return [None] * len(readings), undecided
    score = sums.cosines / sums.weight[0]
    by_frame = score[: len(readings) * len(frames)].reshape(len(readings), len(frames))
    best = by_frame.argmax(axis=1) + len(frames) * np.arange(len(readings))
    scores = [round(float(value), 4) for value in score[best]]
    if _is_plain(card) and score[-1] >= score[best].max():
        return scores, undecided
    ahead = sums.cosines[best[0]] - sums.cosines[best[1:]]
    products = sums.products
    squares = (
        products[best[0], best[0]] - 2 * products[best[0], best[1:]] + products[best[1:], best[1:]]
    )
    errors = ahead / np.sqrt(np.maximum(squares, 1e-12))
    lead = score[best[0]] - score[best[1:]]
    wins = (score[best[0]] >= EXPLAINS) & (lead >= MARGIN) & (errors >= SIGNIFICANT)
    loses = (score[best[1:]] >= EXPLAINS) & (lead <= -MARGIN) & (errors <= -SIGNIFICANT)
    return scores, wins.astype(int) - loses


def _judge_axis(card: Card, sums: _Sums) -> tuple[list[float | None], np.ndarray]:
    count = len(sums.vertical)
    if not card.base_z_up or sums.episodes[0] < FEWEST_EPISODES:
        return [None] * count, np.zeros(count - 1, int)
    length = np.linalg.norm(sums.vertical, axis=-1) / sums.poses[0]
    lead = length[0] - length[1:]
    wins = (length[0] >= UPRIGHT) & (lead >= SCATTER)
    loses = (length[1:] >= UPRIGHT) & (lead <= -SCATTER)
    return [round(float(value), 4) for value in length], wins.astype(int) - loses
