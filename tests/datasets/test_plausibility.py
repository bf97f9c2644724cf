"""Planted faults are rejected or flagged by name; plausible motion passes."""

import dataclasses
import os
import pathlib

import numpy as np
import pytest

from bridgeact_jax.datasets import plausibility
from bridgeact_jax.datasets.bind import bind_card
from bridgeact_jax.datasets.card_format import Card, Clock, Gripper, Limits, Position, Rotation
from bridgeact_jax.datasets.cards import load_card
from bridgeact_jax.datasets.episode import Episode, RejectedEpisode
from bridgeact_jax.datasets.interpret import interpret_episode
from bridgeact_jax.datasets.rlds_reader import open_rlds

COLUMN = {"key": "", "slice": slice(None), "claim": "assumed", "note": ""}
CARD = Card(
    name="toy", title="", dataset_names=(), robot="", licence="", homepage="", citation="",
    path=pathlib.Path("toy.toml"), sha256="", position=Position(**COLUMN),
    rotation=Rotation(**COLUMN, convention="quaternion", order="wxyz"),
    gripper=Gripper(
        **COLUMN, source="command", closed=0.0, open=1.0, thresholds=(0.5, 0.5)
    ),
    clock=Clock(hz=10.0, key=None, scale=1.0, claim="assumed", note=""),
)  # fmt: skip


def make(steps=60, hz=10.0, radius=0.1, turns=1.0):
    """A circle in front of the base with one turn about z; the gripper closes halfway."""
    t = np.linspace(0, 1, steps)
    angle = 2 * np.pi * t
    position = np.stack(
        [0.5 + radius * np.cos(angle), radius * np.sin(angle), 0.2 + 0.05 * t], axis=-1
    )
    half = turns * t / 2
    rotation = np.stack([np.cos(half), 0 * t, 0 * t, np.sin(half)], axis=-1)
    return Episode(
        time=np.arange(steps) / hz,
        position=position.astype(np.float32),
        rotation=rotation.astype(np.float32),
        gripper=np.float32(t < 0.5),
        gripper_width=np.full(steps, np.nan, np.float32),
    )


def check(episode, card=CARD, gripper=None):
    values = episode.gripper if gripper is None else gripper
    return plausibility.check_plausible(card, {"gripper": "g"}, {"g": values}, episode)


def reason(episode, card=CARD):
    with pytest.raises(RejectedEpisode) as caught:
        check(episode, card)
    return str(caught.value)


def moved(episode, rows, to):
    position = episode.position.copy()
    position[rows] = to
    return dataclasses.replace(episode, position=position)


def turned(episode, rows, angle):
    """The rows turned about x by `angle` more."""
    w, x, y, z = episode.rotation[rows].T
    c, s = np.cos(angle / 2), np.sin(angle / 2)
    rotation = episode.rotation.copy()
    rotation[rows] = np.stack([c * w - s * x, c * x + s * w, c * y - s * z, c * z + s * y], -1)
    dots = np.sum(rotation[1:] * rotation[:-1], axis=-1)
    signs = np.cumprod(np.r_[1, np.where(dots < 0, -1, 1)])
    return dataclasses.replace(episode, rotation=(rotation * signs[:, None]).astype(np.float32))


@pytest.mark.parametrize("hz", [3.0, 5.0, 10.0, 30.0])
def test_plausible_motion_passes(hz):
    assert check(make(steps=int(8 * hz), hz=hz)) == []


def test_poses_logged_faster_than_measured_pass():
    slow = make(steps=30, hz=10.0)  # 0.2 m/s
    stale = np.repeat(np.arange(30), 10)  # logged at 100 Hz: the steps that move look 10 x faster
    episode = dataclasses.replace(
        slow,
        time=np.arange(300) / 100,
        **{
            name: getattr(slow, name)[stale]
            for name in ("position", "rotation", "gripper", "gripper_width")
        },
    )
    limits = Limits(speed=0.5, turn=1.0)
    assert check(episode, dataclasses.replace(CARD, limits=limits)) == [plausibility.FROZEN]


def test_a_jittering_clock_passes():
    episode = make()
    time = episode.time.copy()
    time[20] = time[21] - 1e-4
    assert check(dataclasses.replace(episode, time=time)) == []


def test_a_path_that_starts_at_zero_passes():
    episode = make()
    assert check(moved(episode, slice(None), episode.position - episode.position[0])) == []


@pytest.mark.parametrize(
    ("rows", "place", "expected"),
    [
        (10, [0, 0, 0], "position holds a sentinel: zeros on some steps"),
        (slice(0, 4), [0, 0, 0], "position holds a sentinel: zeros on some steps"),
        (-1, [0, 0, 0], "position holds a sentinel: zeros on some steps"),
        (10, [-1e3] * 3, "position holds a sentinel: a constant far away on some steps"),
        ([3, 30], [0, 0, 99.0], "position holds a sentinel: a constant far away on some steps"),
        (10, [0.5, 0.0, 2.6], "position is out of the robot's reach"),
        (slice(None), [-1e3] * 3, "position is out of the robot's reach"),
        (slice(30, None), [0.5, 0.5, 0.4], "the arm teleports"),
        (30, [0.5, 0.5, 0.4], "the arm teleports"),
        (30, [0.5, 0.25, 0.25], "the arm teleports"),  # 2 m/s at 10 Hz, among steps of 1 cm
    ],
)
def test_places(rows, place, expected):
    assert reason(moved(make(), rows, place)) == expected


def test_turning_on_the_spot_passes():
    assert check(moved(make(), slice(None), [0.5, 0.0, 0.2])) == []


def test_units_of_millimetres_are_out_of_reach():
    episode = make()
    assert "reach" in reason(moved(episode, slice(None), 1000 * episode.position))


def test_an_arm_that_is_always_too_fast():
    assert reason(make(steps=20, hz=100.0)) == "the arm is faster than its limit"


def test_a_jump_of_the_orientation():
    expected = "the orientation jumps"
    assert reason(turned(make(), slice(30, None), 2.0)) == expected
    assert reason(turned(make(), 30, 2.0)) == expected
    lax = dataclasses.replace(CARD, limits=Limits(turn=25.0))
    assert check(turned(make(), 30, 2.0), lax) == []


def test_an_arm_that_always_turns_too_fast():
    assert reason(make(steps=40, turns=60.0)) == "the arm turns faster than its limit"


def test_orientation_is_not_judged_where_it_is_not_recorded():
    card = dataclasses.replace(CARD, rotation=None)
    assert check(turned(make(), 30, 2.0), card) == []


def test_constant_pose():
    still = moved(make(turns=0.0), slice(None), [0.5, 0, 0.2])
    assert reason(still) == "the arm never moves"
    noise = np.random.default_rng(0).uniform(-3e-5, 3e-5, still.position.shape)
    assert reason(moved(still, slice(None), still.position + noise)) == "the arm never moves"


def test_flags():
    episode = make()
    rows = np.minimum(np.arange(60), 20)
    frozen = dataclasses.replace(
        episode, position=episode.position[rows], rotation=episode.rotation[rows]
    )
    assert check(frozen) == [plausibility.FROZEN]
    constant = dataclasses.replace(episode, gripper=np.ones(60, np.float32))
    assert check(constant) == [plausibility.NO_GRIP]
    assert check(constant, dataclasses.replace(CARD, gripper=None)) == []
    assert check(episode, gripper=2 * episode.gripper - 1) == [plausibility.BEYOND_ENDS]
    assert check(episode, gripper=1.02 * episode.gripper) == []
    assert check(make(steps=9, radius=0.05)) == [plausibility.SHORT]


def test_two_and_three_steps():
    for steps in (2, 3):
        flags = check(make(steps=steps, hz=1.0))
        assert plausibility.SHORT in flags


def test_no_real_episode_is_rejected():
    data = os.environ.get("BRIDGEACT_TEST_DATA")
    if not data:
        pytest.skip("BRIDGEACT_TEST_DATA does not name the folder of real data")
    dataset = open_rlds(pathlib.Path(data) / "bridge_sample" / "1.0.0")
    card = load_card("bridge")
    keys = bind_card(card, dataset)
    flags = []
    for index, columns in enumerate(dataset.episodes("train", set(keys.values()))):
        episode = interpret_episode(card, keys, columns, index)
        flags += plausibility.check_plausible(card, keys, columns, episode)
    assert index == 24
    assert set(flags) <= {plausibility.NO_GRIP}
