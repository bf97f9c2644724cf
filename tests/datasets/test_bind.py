"""A card's columns against a dataset that lacks them or holds something else."""

import dataclasses

import pytest

from bridgeact_jax.datasets.bind import bind_camera, bind_card
from bridgeact_jax.datasets.card_format import Camera, Cloud, Column, RotationAction
from bridgeact_jax.datasets.cards import load_card
from bridgeact_jax.datasets.rlds_reader import open_rlds
from bridgeact_jax.errors import UserError

SHAPES = {
    "observation/state": ("float32", (8,), "none"),
    "observation/pose": ("float64", (4, 4), "none"),
    "observation/bounds": ("float32", (3,), "none"),
    "observation/depth": ("float32", (4, 5), "none"),
    "observation/points": ("float32", (100, 3), "none"),
    "observation/flat_points": ("float32", (6144,), "none"),
    "observation/cloud": ("float16", (2048, 3), "none"),
    "observation/ragged": ("float32", (-1, 3), "none"),
    "closed": ("bool", (), "none"),
    "stage": ("bfloat16", (1,), "none"),
    "action": ("float32", (7,), "none"),
    "language_instruction": ("string", (), "none"),
}


def place(key, start=None, stop=None) -> dict:
    return {"key": key, "slice": slice(start, stop), "claim": "assumed", "note": ""}


@pytest.fixture
def card(toy):
    return load_card(toy[1])


@pytest.fixture
def dataset(rlds):
    return open_rlds(rlds.write([], SHAPES))


def replaced(card, table, **entries):
    changed = dataclasses.replace(getattr(card, table), **entries)
    return dataclasses.replace(card, **{table: changed})


def fails(card, dataset, *parts):
    with pytest.raises(UserError) as caught:
        bind_card(card, dataset)
    message = str(caught.value)
    assert all(part in message for part in (f"card {card.path}: ", *parts)), message


def test_every_column_is_bound(card, dataset):
    card = dataclasses.replace(
        replaced(card, "position", low_key="observation/bounds", high_key="observation/bounds"),
        rotation_action=RotationAction(
            **place("action", 3, 6), convention="axis_angle", frame="base"
        ),
        cloud=Cloud(**place("observation/cloud"), scale=1.0),
    )
    state = "steps/observation/state"
    assert bind_card(card, dataset) == {
        "position": state,
        "position_low": "steps/observation/bounds",
        "position_high": "steps/observation/bounds",
        "rotation": state,
        "gripper": "steps/action",
        "gripper_width": state,
        "instruction": "steps/language_instruction",
        "cloud": "steps/observation/cloud",
        "rotation_action": "steps/action",
    }


@pytest.mark.parametrize("key", ["closed", "stage"])
def test_numbers_of_any_kind_are_bound(card, dataset, key):
    card = replaced(card, "gripper", key=key, slice=slice(None))
    assert bind_card(card, dataset)["gripper"] == f"steps/{key}"


def test_transforms_have_16_numbers(card, dataset):
    pose = {"key": "observation/pose", "slice": slice(None), "convention": "matrix"}
    card = replaced(card, "position", **pose, order="detect")
    card = replaced(card, "rotation", **pose, order="detect")
    assert bind_card(card, dataset)["position"] == "steps/observation/pose"
    fails(replaced(card, "position", slice=slice(0, 3)), dataset, "16 would be right")
    nine = {"slice": slice(0, 9)}
    fails(replaced(card, "rotation", **nine), dataset, "[rotation] ", "takes 9; 16 would")
    row = replaced(card, "rotation", **nine, order="row")
    assert bind_card(row, dataset)["rotation"] == "steps/observation/pose"
    fails(replaced(row, "rotation", slice=slice(0, 10)), dataset, "takes 10; 9 or 16 would be")


def test_wrong_columns_are_named(card, dataset):
    bounds = replaced(card, "position", low_key="observation/low", high_key="observation/state")
    fails(bounds, dataset, "[position_low] key 'observation/low' is not in", "did you mean")
    bounds = replaced(card, "position", low_key="closed", high_key="closed")
    fails(bounds, dataset, "[position_low] key 'closed' has 1 numbers a step, and the slice rea")
    action = RotationAction(**place("action"), convention="axis_angle", frame="base")
    fails(dataclasses.replace(card, rotation_action=action), dataset,
          "[rotation_action] key 'action' has 7 numbers a step; 3 would be right")
    yaw = {"convention": "euler", "order": "extrinsic", "axes": "z"}
    fails(replaced(card, "rotation", **yaw), dataset, "of which the slice takes 4; 1 would be")
    fails(replaced(card, "gripper", key="language_instruction"), dataset,
          "[gripper] key 'language_instruction' holds text, not numbers of a fixed shape")
    fails(replaced(card, "gripper", key="observation/ragged"), dataset, "holds a varying shape")
    fails(dataclasses.replace(card, instruction=Column(**place("action"))), dataset,
          "[instruction] key 'action' holds float32, not text")


@pytest.mark.parametrize("key", ["observation/points", "observation/ragged"])
def test_clouds_of_other_sizes_are_not_copied(card, dataset, key):
    card = dataclasses.replace(card, cloud=Cloud(**place(key), scale=1.0))
    if key == "observation/points":
        assert "cloud" not in bind_card(card, dataset)
    else:
        fails(card, dataset, "[cloud] ", "has shape (None, 3), not (points, 3)")
    flat = dataclasses.replace(card, cloud=Cloud(**place("observation/flat_points"), scale=1.0))
    fails(flat, dataset, "[cloud] key 'observation/flat_points' has shape (6144,), not (points, 3)")


def test_refused_cards_are_not_bound(card, dataset):
    with pytest.raises(UserError, match="^toy: refused: no pose$"):
        bind_card(dataclasses.replace(card, refused="no pose"), dataset)


def camera(**entries) -> Camera:
    return Camera(**{
        "name": "front", "depth": "observation/depth", "depth_scale": 0.001, "intrinsics": None,
        "intrinsics_key": None, "T_base_camera": None, "pose_key": None, "pose": None,
        "axes": "opencv", "max_depth": None, "claim": "assumed", "note": "",
    } | entries)


def test_cameras_are_bound(card, dataset):
    full = camera(intrinsics=(1.0, 1.0, 0.0, 0.0), pose_key="observation/pose",
                  pose="T_base_camera")
    assert full.lacks == ()
    assert bind_camera(card, full, dataset) == {
        "depth": "steps/observation/depth", "pose": "steps/observation/pose"
    }
    for entries, part in [
        ({"depth": "observation/dept"}, "key 'observation/dept' is not in"),
        ({"depth": "language_instruction"}, "holds text, not depth"),
        ({"intrinsics_key": "observation/pose"}, "has 16 numbers a step; 9 would be right"),
        ({"pose_key": "observation/state"}, "has 8 numbers a step; 16 would be right"),
    ]:
        with pytest.raises(UserError) as caught:
            bind_camera(card, camera(**entries), dataset)
        assert f"card {card.path}: [[cameras]] front: key " in str(caught.value)
        assert part in str(caught.value)
