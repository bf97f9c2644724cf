"""Planted conventions, right and wrong claims, and data that cannot tell."""

import dataclasses
import os
import pathlib

import numpy as np
import pytest
from scipy.spatial.transform import Rotation as ScipyRotation

from bridgeact_jax.datasets import rotation_check
from bridgeact_jax.datasets.bind import bind_card
from bridgeact_jax.datasets.card_format import Card, Clock, Position, Rotation, RotationAction
from bridgeact_jax.datasets.cards import load_card
from bridgeact_jax.datasets.interpret import interpret_episode
from bridgeact_jax.datasets.rlds_reader import open_rlds

EPISODES, STEPS, HZ = 20, 40, 10
KEYS = {"position": "p", "rotation": "r", "rotation_action": "a"}
COLUMN = {"slice": slice(None), "claim": "assumed", "note": ""}


def reading(convention, order="", axes="", unit="rad"):
    return Rotation(key="r", **COLUMN, convention=convention, order=order, axes=axes, unit=unit)


def make_card(rotation, frame="base", *, action=True, z_up=True):
    turn = RotationAction(key="a", **COLUMN, convention="axis_angle", frame=frame)
    return Card(
        name="toy", title="", dataset_names=(), robot="", licence="", homepage="", citation="",
        path=pathlib.Path("toy.toml"), sha256="", position=Position(key="p", **COLUMN),
        rotation=rotation, clock=Clock(hz=HZ, key=None, scale=1.0, claim="assumed", note=""),
        rotation_action=turn if action else None, base_z_up=z_up,
    )  # fmt: skip


def numbers(rotation, path):
    """(T, n) of a path of rotations, as a dataset of that convention would hold them."""
    if rotation.convention == "quaternion":
        return path.as_quat(scalar_first=rotation.order == "wxyz")
    if rotation.convention == "axis_angle":
        return path.as_rotvec(degrees=rotation.unit == "deg")
    if rotation.convention == "euler":
        axes = rotation.axes.upper() if rotation.order == "intrinsic" else rotation.axes
        return path.as_euler(axes, degrees=rotation.unit == "deg", suppress_warnings=True)
    matrix = np.tile(np.eye(4), (len(path), 1, 1))
    matrix[:, :3, :3] = path.as_matrix()
    matrix[:, :3, 3] = 0.4
    matrix = np.swapaxes(matrix, -1, -2) if rotation.order == "column" else matrix
    return matrix.reshape(len(path), 16)


def wander(rng, scale=0.6):
    """A path from anywhere, turning smoothly about changing axes of the base."""
    rates = np.cumsum(rng.normal(size=(STEPS, 3)), axis=0) * scale / HZ
    path = [ScipyRotation.random(rng=rng)]
    for rate in rates:
        path.append(ScipyRotation.from_rotvec(rate / HZ * 3) * path[-1])
    return ScipyRotation.concatenate(path)


def yawing(rng, tilt=0.0):
    """The tool points down and turns about the vertical, anywhere in +-100 degrees."""
    yaw = rng.uniform(-1.75, 1.75) + 0.3 * np.sin(np.linspace(0, 3, STEPS))
    lean = ScipyRotation.from_rotvec(tilt * rng.normal(size=(STEPS, 3)))
    return lean * ScipyRotation.from_euler("z", yaw[:, None]) * ScipyRotation.from_euler("x", np.pi)


def commands(path, frame, rng, noise=0.3, scale=7.0):
    """Turns from each state to the next with noise; the last is zero, the unit is not known."""
    before, after = path[:-1], path[1:]
    turn = (after * before.inv() if frame == "base" else before.inv() * after).as_rotvec()
    spread = noise * np.linalg.norm(turn, axis=-1).mean() / np.sqrt(3)
    return scale * np.vstack([turn + spread * rng.normal(size=turn.shape), np.zeros(3)])


def answer(card, episodes):
    """judge's value for [(rotation numbers, actions)]."""
    total = rotation_check.no_evidence(card)
    for index, (values, action) in enumerate(episodes):
        columns = {"p": np.full((len(values), 3), 0.4), "r": values, "a": action}
        episode = interpret_episode(card, KEYS, columns, index)
        total += rotation_check.evidence(card, KEYS, columns, episode)
    return rotation_check.judge(card, total)


def plant(truth, make_path, frame="base", seed=0, count=EPISODES, **options):
    rng = np.random.default_rng(seed)
    paths = [make_path(rng) for _ in range(count)]
    return [(numbers(truth, path), commands(path, frame, rng, **options)) for path in paths]


QUATERNIONS = [reading("quaternion", order) for order in ("wxyz", "xyzw")]
EULER = [
    reading("euler", order, axes) for axes in ("xyz", "zyx") for order in ("extrinsic", "intrinsic")
]
VECTORS = [*EULER, reading("axis_angle")]
OTHER_EULER = [
    reading("euler", order, axes)
    for axes in ("zxy", "yxz", "zyz")
    for order in ("extrinsic", "intrinsic")
]
MATRICES = [reading("matrix", order) for order in ("row", "column")]
IN_DEGREES = [dataclasses.replace(vector, unit="deg") for vector in VECTORS]


def name(rotation):
    return "-".join(filter(None, (rotation.convention, rotation.axes, rotation.order)))


@pytest.mark.parametrize("frame", ["base", "tool"])
@pytest.mark.parametrize("stated", ["known", "unknown"])
@pytest.mark.parametrize(
    "truth", [*QUATERNIONS, *VECTORS, *OTHER_EULER, *MATRICES, IN_DEGREES[0]], ids=name
)
def test_right_claim_fits(truth, frame, stated):
    card = make_card(truth, frame if stated == "known" else "unknown")
    result = answer(card, plant(truth, wander, frame))
    assert result["answer"] == "fits", result
    assert result["by"] == ["rotation_action"]
    assert result["scores"][result["claim"]]["rotation_action"] > 0.9
    assert result["episodes"] == EPISODES and result["windows"] > 500


WRONG = [
    (truth, claim)
    for family in (QUATERNIONS, VECTORS, IN_DEGREES)
    for truth in family
    for claim in family
    if truth != claim
] + [(truth, other) for truth, other in zip(OTHER_EULER[::2], OTHER_EULER[1::2], strict=True)]


@pytest.mark.parametrize("frame", ["base", "unknown"])
@pytest.mark.parametrize(("truth", "claim"), WRONG, ids=lambda value: name(value))
def test_wrong_claim_is_contradicted(truth, claim, frame):
    result = answer(make_card(claim, frame), plant(truth, wander))
    assert result["answer"] == "contradicts", result
    assert "better" in result["reason"]


@pytest.mark.parametrize(("truth", "claim"), [MATRICES, MATRICES[::-1]], ids=["row", "column"])
def test_nine_numbers_in_the_wrong_order(truth, claim):
    episodes = [
        (values.reshape(-1, 4, 4)[:, :3, :3].reshape(-1, 9), action)
        for values, action in plant(truth, wander)
    ]
    assert answer(make_card(truth), episodes)["answer"] == "fits"
    assert answer(make_card(claim), episodes)["answer"] == "contradicts"


def test_sixteen_numbers_whose_order_is_detected():
    detected = reading("matrix", "detect")
    assert answer(make_card(detected), plant(MATRICES[1], wander))["answer"] == "fits"


def test_two_angles():
    truth, other = (reading("euler", order, "zy") for order in ("extrinsic", "intrinsic"))

    def path(rng):
        angles = np.cumsum(rng.normal(size=(STEPS, 2)), axis=0) * 0.05 + rng.uniform(0.3, 1, 2)
        return ScipyRotation.from_euler("zy", angles)

    def pair(episodes):
        return [(values[:, :2], action) for values, action in episodes]

    full = reading("euler", "extrinsic", "zyx")
    episodes = pair(plant(full, path))
    assert answer(make_card(truth), episodes)["answer"] == "fits"
    assert answer(make_card(other), episodes)["answer"] == "contradicts"


def test_a_truth_that_is_no_alternative_does_not_fit():
    for truth in OTHER_EULER:
        result = answer(make_card(EULER[0]), plant(truth, wander))
        assert result["answer"] != "fits", (truth, result)


def no_actions(truth, make_path, **options):
    return [(values, np.zeros((len(values), 3))) for values, _ in plant(truth, make_path)]


@pytest.mark.parametrize("truth", QUATERNIONS, ids=name)
def test_tool_axis_alone(truth):
    other = QUATERNIONS[truth == QUATERNIONS[0]]
    episodes = no_actions(truth, lambda rng: yawing(rng, tilt=0.1))
    fitting = answer(make_card(truth, action=False), episodes)
    assert (fitting["answer"], fitting["by"]) == ("fits", ["tool_axis"]), fitting
    assert answer(make_card(other, action=False), episodes)["answer"] == "contradicts"
    assert answer(make_card(truth, action=False, z_up=False), episodes)["answer"] == "undetermined"
    assert answer(make_card(truth, action=False), episodes[:5])["answer"] == "undetermined"


@pytest.mark.parametrize("claim", [*QUATERNIONS, *VECTORS, *MATRICES], ids=name)
def test_nothing_to_tell_by(claim):
    for card in (make_card(claim, action=False), make_card(claim)):
        result = answer(card, no_actions(claim, wander))
        assert result["answer"] == "undetermined"
        assert result["by"] == [] and "not told from" in result["reason"]


@pytest.mark.parametrize("frame", ["base", "unknown"])
@pytest.mark.parametrize("claim", [QUATERNIONS[0], EULER[0], MATRICES[0]], ids=name)
def test_noise_neither_fits_nor_contradicts(claim, frame):
    for seed in range(5):
        rng = np.random.default_rng(100 + seed)
        episodes = [
            (values, rng.normal(size=(len(values), 3)))
            for values, _ in plant(claim, wander, seed=seed)
        ]
        assert answer(make_card(claim, frame), episodes)["answer"] == "undetermined"


def test_turns_about_one_axis_do_not_tell_euler_orders():
    def path(rng):
        return ScipyRotation.from_euler("z", np.linspace(0, rng.uniform(0.5, 2), STEPS)[:, None])

    result = answer(make_card(EULER[0]), plant(EULER[0], path))
    assert result["answer"] == "undetermined"
    assert "euler xyz intrinsic" in result["reason"]


def test_differences_of_the_numbers_are_no_evidence():
    def small(rng):
        angles = np.cumsum(rng.normal(size=(STEPS, 3)), axis=0) * 0.05
        return ScipyRotation.from_euler("xyz", angles + rng.uniform(-1, 1, 3))

    for truth in EULER:
        episodes = [
            (values, np.vstack([np.diff(values, axis=0), np.zeros(3)]))
            for values, _ in plant(truth, small)
        ]
        for claim in EULER:
            assert answer(make_card(claim), episodes)["answer"] == "undetermined"


def test_too_few_windows_are_undetermined():
    assert answer(make_card(EULER[0]), plant(EULER[0], wander, count=1))["answer"] == "undetermined"


@pytest.mark.parametrize("rotation", [None, reading("euler", "extrinsic", "z")])
def test_no_other_reading(rotation):
    card = make_card(rotation, action=rotation is not None)
    result = rotation_check.judge(card, rotation_check.no_evidence(card))
    assert result["answer"] == "undetermined" and result["scores"] == {}


def test_actions_that_are_not_finite_are_passed_over():
    episodes = plant(QUATERNIONS[0], wander)
    for _, action in episodes:
        action[3] = np.nan
    assert answer(make_card(QUATERNIONS[0]), episodes)["answer"] == "fits"


def test_evidence_is_spread_and_bounded():
    for total in (1, 7, 1000, 1001, 123_456):
        used = [index for index in range(total) if rotation_check.chosen(index, total)]
        assert used[0] == 0 and len(used) <= rotation_check.EPISODES
        assert len(used) >= min(total, rotation_check.EPISODES // 2)
        assert len(set(np.diff(used))) <= 1


def test_bridge_card_fits_real_data():
    data = os.environ.get("BRIDGEACT_TEST_DATA")
    if not data:
        pytest.skip("BRIDGEACT_TEST_DATA does not name the folder of real data")
    dataset = open_rlds(pathlib.Path(data) / "bridge_sample" / "1.0.0")
    card = load_card("bridge")
    others = [dataclasses.replace(card.rotation, order=e.order, axes=e.axes) for e in EULER[1:]]
    answers = []
    for claim in [card.rotation, *others]:
        claiming = dataclasses.replace(card, rotation=claim)
        keys = bind_card(claiming, dataset)
        total = rotation_check.no_evidence(claiming)
        for index, columns in enumerate(dataset.episodes("train", set(keys.values()))):
            episode = interpret_episode(claiming, keys, columns, index)
            total += rotation_check.evidence(claiming, keys, columns, episode)
        answers.append(rotation_check.judge(claiming, total)["answer"])
    assert answers == ["fits", "contradicts", "contradicts", "contradicts"]
