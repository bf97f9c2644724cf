"""Episodes made from columns: the gripper, units, what is filled in and what is rejected."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeact_jax.datasets.card_format import Gripper, Position, Rotation
from bridgeact_jax.datasets.cards import load_card
from bridgeact_jax.datasets.episode import RejectedEpisode, align_hemispheres
from bridgeact_jax.datasets.interpret import (
    binarise,
    hold_changes,
    interpret_episode,
    raw_numbers,
)
from tests.datasets.by_hand import elementary, flattened, homogeneous, matrix_of


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0, 0.5), st.floats(0.5, 1))
def test_hysteresis_equals_the_loop(values, low, high):
    state = float(values[0] > (low + high) / 2)
    expected = []
    for value in values:
        if value > high:
            state = 1.0
        elif value < low:
            state = 0.0
        expected.append(state)
    assert binarise(np.array(values), low, high).tolist() == expected


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.3, 1.0]), min_size=1, max_size=40))
def test_changes_hold_until_the_next(commands):
    closing, opening = [value == 1.0 for value in commands], [value == -1.0 for value in commands]
    first = next((step for step, pair in enumerate(zip(closing, opening, strict=True)) if any(pair)
                  ), None)
    state = 1.0 if first is None or closing[first] else 0.0
    expected = []
    for close, open_ in zip(closing, opening, strict=True):
        state = 0.0 if close else 1.0 if open_ else state
        expected.append(state)
    fraction = (np.array(commands) - 1.0) / -2.0
    assert hold_changes(fraction, 0.25, 0.75).tolist() == expected


def test_hysteresis_does_not_reopen_while_holding():
    width = np.array([1.0, 0.8, 0.5, 0.45, 0.5, 0.55, 0.5, 0.9, 1.0])
    assert binarise(width, 0.4, 0.6).tolist() == [1, 1, 1, 1, 1, 1, 1, 1, 1]
    width[3] = 0.35
    assert binarise(width, 0.4, 0.6).tolist() == [1, 1, 1, 0, 0, 0, 0, 1, 1]


def test_hemispheres_are_aligned_and_rotations_kept():
    rng = np.random.default_rng(4)
    half = np.cumsum(rng.uniform(0, 0.3, 50))
    smooth = np.stack([np.cos(half), np.sin(half), 0 * half, 0 * half], 1)
    flipped = smooth * rng.choice([-1.0, 1.0], (50, 1))
    np.testing.assert_allclose(align_hemispheres(flipped) * np.sign(flipped[0, 0]), smooth)


def toy_columns(toy, **changed):
    columns = {
        key: values if isinstance(values, list) else values.copy()
        for key, values in toy.columns(0).items()
    }
    for key, (index, value) in changed.items():
        columns[{"state": "steps/observation/state", "action": "steps/action"}[key]][index] = value
    return columns


KEYS = {
    "position": "steps/observation/state",
    "rotation": "steps/observation/state",
    "gripper": "steps/action",
    "gripper_width": "steps/observation/state",
    "instruction": "steps/language_instruction",
}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"state": ((3, 1), np.nan)}, "position is not finite"),
        ({"state": ((3, 4), np.inf)}, "rotation is not finite"),
        ({"state": ((3, slice(3, 7)), 0.0)}, "quaternion is not of unit length"),
        ({"action": ((0, 6), np.nan)}, "gripper is not finite"),
    ],
)
def test_unusable_episodes_are_rejected(toy, changed, reason):
    _, card, data = toy
    with pytest.raises(RejectedEpisode, match=reason):
        interpret_episode(load_card(card), KEYS, toy_columns(data, **changed), 0)


def test_too_short_and_ragged_episodes_are_rejected(toy):
    _, path, data = toy
    card = load_card(path)
    with pytest.raises(RejectedEpisode, match="fewer than 2 steps"):
        interpret_episode(card, KEYS, data.columns(0, steps=1), 0)
    columns = data.columns(0)
    columns["steps/action"] = columns["steps/action"][:-1]
    with pytest.raises(RejectedEpisode, match="columns differ in length"):
        interpret_episode(card, KEYS, columns, 0)


def test_width_scale_time_and_missing_columns(toy):
    _, path, data = toy
    card = load_card(path)
    card = dataclasses.replace(
        card,
        gripper_width=None,
        instruction=None,
        position=dataclasses.replace(card.position, scale=0.001),
        gripper=dataclasses.replace(
            card.gripper, source="width", key="w", slice=slice(7, 8), closed=0.0, open=0.08,
            thresholds=(0.4, 0.6),
        ),
        clock=dataclasses.replace(card.clock, hz=None, key="observation/time", scale=0.001),
    )
    columns = toy_columns(data)
    state = columns["steps/observation/state"]
    state[:, 7] = 0.08
    state[5:8, 7] = 0.03
    columns["steps/observation/time"] = 5000.0 + 200.0 * np.arange(12)
    keys = KEYS | {"gripper": KEYS["position"], "clock": "steps/observation/time"}
    episode = interpret_episode(card, keys, columns, 7)
    np.testing.assert_allclose(episode.time, 0.2 * np.arange(12), atol=1e-12)
    np.testing.assert_allclose(episode.position, state[:, :3] / 1000, rtol=1e-6)
    assert episode.gripper.tolist() == [1.0] * 5 + [0.0] * 3 + [1.0] * 4
    assert np.isnan(episode.gripper_width).all()
    assert episode.instruction == "" and episode.index == 7
    columns["steps/observation/time"][4] = 0.0
    with pytest.raises(RejectedEpisode, match="time does not increase"):
        interpret_episode(card, keys, columns, 7)


def interpret(card, columns):
    """The episode of `columns` under full keys that are the card's own."""
    keys = {table: f"steps/{column.key}" for table, column in card.columns().items()}
    return interpret_episode(card, keys, columns, 0)


def test_positions_and_rotations_of_transforms(toy):
    matrices = homogeneous(steps=12)
    for order in ("row", "column"):
        for claimed in (order, "detect"):
            place = {"key": "pose", "slice": slice(2, 18), "claim": "assumed", "note": ""}
            card = dataclasses.replace(
                load_card(toy[1]),
                position=Position(**place, scale=0.01, convention="matrix", order=claimed),
                rotation=Rotation(**place, convention="matrix", order=claimed),
            )
            scaled = matrices.copy()
            scaled[:, :3, 3] *= 100
            pose = np.concatenate([np.ones((12, 2)), flattened(scaled, order)], 1)
            episode = interpret(card, toy[2].columns(0) | {"steps/pose": pose})
            np.testing.assert_allclose(episode.position, matrices[:, :3, 3], atol=1e-6)
            for quaternion, matrix in zip(episode.rotation, matrices, strict=True):
                np.testing.assert_allclose(matrix_of(quaternion), matrix[:3, :3], atol=1e-6)


def test_yaw_only(toy):
    card = dataclasses.replace(
        load_card(toy[1]),
        rotation=Rotation("yaw", slice(None), "assumed", "", convention="euler",
                          order="extrinsic", axes="z", unit="deg"),
    )
    yaw = np.linspace(-170, 350, 12)
    episode = interpret(card, toy[2].columns(0) | {"steps/yaw": yaw})
    for quaternion, angle in zip(episode.rotation, np.radians(yaw), strict=True):
        np.testing.assert_allclose(matrix_of(quaternion), elementary("z", angle), atol=1e-6)
    assert (np.sum(episode.rotation[1:] * episode.rotation[:-1], axis=-1) > 0).all()
    assert card.recorded["rotation"] == "yaw"


def test_what_is_not_recorded_is_filled(toy):
    card = dataclasses.replace(
        load_card(toy[1]), rotation=None, gripper=None, gripper_width=None, instruction=None
    )
    episode = interpret(card, toy[2].columns(0))
    assert episode.rotation.dtype == episode.gripper.dtype == np.float32
    assert episode.rotation.tolist() == [[1.0, 0.0, 0.0, 0.0]] * 12
    assert episode.gripper.tolist() == [1.0] * 12
    assert np.isnan(episode.gripper_width).all() and episode.instruction == ""


def test_positions_normalised_between_bounds(toy):
    card = load_card(toy[1])
    card = dataclasses.replace(
        card,
        position=Position("value", slice(1, 4), "documented", "", scale=0.1, low_key="low",
                          high_key="high"),
    )
    rng = np.random.default_rng(5)
    low = rng.uniform(-2, -1, (12, 5))
    high = rng.uniform(1, 2, (12, 5))
    truth = rng.uniform(-1, 1, (12, 5))
    columns = toy[2].columns(0) | {
        "steps/low": low, "steps/high": high, "steps/value": (truth - low) / (high - low)
    }
    np.testing.assert_allclose(interpret(card, columns).position, truth[:, 1:4] * 0.1, atol=1e-6)
    keys = {table: f"steps/{column.key}" for table, column in card.columns().items()}
    np.testing.assert_allclose(raw_numbers(card, keys, columns, "position"), truth[:, 1:4])
    columns["steps/high"][3, 1] = np.nan
    with pytest.raises(RejectedEpisode, match="position is not finite"):
        interpret(card, columns)


def change_gripper(**place) -> Gripper:
    return Gripper(**place, claim="assumed", note="", source="change", closed=1.0, open=-1.0,
                   thresholds=(0.25, 0.75))


def test_gripper_of_changes(toy):
    card = dataclasses.replace(
        load_card(toy[1]), gripper=change_gripper(key="change", slice=slice(None))
    )
    change = np.float32([0, 0, 1, 1, 0, 0.1, 0, -1, 0, 0, 1, 0])
    episode = interpret(card, toy[2].columns(0) | {"steps/change": change})
    assert episode.gripper.tolist() == [1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float64", "bfloat16"])
def test_numbers_of_any_kind(toy, dtype):
    import ml_dtypes

    dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    card = load_card(toy[1])
    card = dataclasses.replace(
        card,
        gripper=dataclasses.replace(
            card.gripper, key="closed", slice=slice(None), closed=1.0, open=0.0
        ),
    )
    for shape in ((12,), (12, 1)):
        closed = np.array([0, 1] * 6).reshape(shape).astype(dtype)
        episode = interpret(card, toy[2].columns(0) | {"steps/closed": closed})
        assert episode.gripper.tolist() == [1.0, 0.0] * 6


@pytest.mark.parametrize("steps", [0, 1])
def test_too_few_steps_are_rejected(toy, steps):
    columns = {key: values[:steps] for key, values in toy[2].columns(0).items()}
    with pytest.raises(RejectedEpisode, match="fewer than 2 steps"):
        interpret(load_card(toy[1]), columns)


def test_two_steps_are_enough(toy):
    columns = {key: values[:2] for key, values in toy[2].columns(0).items()}
    assert len(interpret(load_card(toy[1]), columns)) == 2


def test_a_long_episode(toy):
    columns = toy[2].columns(1, steps=100_000)
    columns["steps/observation/state"][1::2, 3:7] *= -1
    episode = interpret(load_card(toy[1]), columns)
    assert len(episode) == 100_000
    np.testing.assert_allclose(episode.rotation[:, 0], np.cos(
        0.25 * np.linspace(0, 1, 100_000) + 0.1), atol=1e-6)
