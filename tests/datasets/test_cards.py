"""The shipped cards and the messages for cards that do not hold together."""

import datetime
import pathlib
import shutil
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeact_jax.cli import main
from bridgeact_jax.datasets import resources
from bridgeact_jax.datasets.card_format import Card, Limits
from bridgeact_jax.datasets.card_parser import parse_card
from bridgeact_jax.datasets.cards import card_paths, find_card, load_card, require_convertible
from bridgeact_jax.errors import UsageError, UserError

TOP = """
name = "whole"
title = "A card with everything"
dataset_names = ["whole", "whole_dataset"]
robot = "none"
licence = "none"
homepage = ""
citation = ""
"""
WHOLE = TOP + """
[position]
key = "observation/state"
slice = [0, 3]
scale = 0.001
low_key = "observation/low"
high_key = "observation/high"
claim = "documented"
[rotation]
key = "observation/state"
slice = [3, 6]
convention = "euler"
axes = "zyx"
order = "intrinsic"
unit = "deg"
scale = 100
turned = [0, 1, 0, 0]
claim = "inferred"
note = "n"
[gripper]
source = "change"
key = "action"
slice = [6, 7]
closed = 1.0
open = -1.0
thresholds = [0.3, 0.7]
claim = "assumed"
[gripper_width]
key = "observation/width"
closed = 0
open = 0.08
claim = "documented"
[clock]
key = "observation/time"
scale = 1e-9
claim = "documented"
[instruction]
key = "language_instruction"
claim = "documented"
[cloud]
key = "observation/cloud"
scale = 0.001
claim = "documented"
[[cameras]]
name = "front"
depth = "observation/depth"
depth_scale = 0.001
intrinsics = [600, 600.5, 320, 240]
T_base_camera = [0, -1, 0, 0.5, 1, 0, 0, 0, 0, 0, 1, 0.7, 0, 0, 0, 1]
axes = "opengl"
max_depth = 2.0
claim = "documented"
[[cameras]]
name = "wrist"
depth = "observation/wrist_depth"
intrinsics_key = "observation/intrinsics"
pose_key = "observation/pose"
pose = "T_camera_base"
claim = "documented"
[rotation_action]
key = "action"
slice = [3, 6]
convention = "axis_angle"
frame = "tool"
claim = "documented"
[limits]
speed = 1.5
note = "slow"
[base]
z_up = true
claim = "documented"
[tool]
frame = "z forward"
claim = "documented"
"""


def parse(content: dict) -> Card:
    return parse_card(content, pathlib.Path("card.toml"), "0")


@pytest.mark.parametrize("name", card_paths())
def test_shipped_cards_load_under_their_file_names(name):
    card = load_card(name)
    assert card.name == name
    assert all(column.claim for column in card.columns().values())
    assert all(find_card(dataset) == card for dataset in card.dataset_names)
    assert card.title and "\n" not in card.title + card.robot + card.licence
    assert card.refused or {"position"} <= set(card.columns())


def test_no_dataset_belongs_to_two_cards():
    names = [word for name in card_paths() for word in load_card(name).dataset_names]
    assert len(names) == len(set(names))


def test_bridge_and_demonstrations_are_there():
    assert {"bridge", "demonstrations"} <= set(card_paths())
    assert load_card("bridge").rotation.axes == "xyz"
    assert find_card("bridge_dataset") == load_card("bridge")
    assert load_card("demonstrations").cloud is not None
    assert find_card("nowhere") is None


def test_a_whole_card():
    card = parse(tomllib.loads(WHOLE))
    assert card.refused is None and card.recorded == {
        "rotation": "full", "gripper": True, "gripper_width": True
    }
    columns = {table: column.key for table, column in card.columns().items()}
    assert columns == {
        "position": "observation/state",
        "position_low": "observation/low",
        "position_high": "observation/high",
        "rotation": "observation/state",
        "gripper": "action",
        "gripper_width": "observation/width",
        "instruction": "language_instruction",
        "cloud": "observation/cloud",
        "rotation_action": "action",
        "clock": "observation/time",
    }
    assert card.columns()["position_low"].slice == slice(0, 3)
    assert card.gripper.thresholds == (0.3, 0.7)
    assert card.rotation.scale == 100 and card.rotation.turned == (0, 1, 0, 0)
    assert card.limits == Limits(speed=1.5)
    front, wrist = card.cameras
    assert front.lacks == () and front.columns() == {"depth": "observation/depth"}
    assert wrist.lacks == ("depth_scale",) and wrist.pose == "T_camera_base"
    assert set(wrist.columns()) == {"depth", "intrinsics", "pose"}


def test_the_example_of_the_readme():
    readme = pathlib.Path(__file__).parents[2] / "data" / "README.md"
    example = readme.read_text().split("```toml\n")[1].split("```")[0]
    card = parse(tomllib.loads(example))
    assert card.name == "example" and set(card.columns()) == {"position", "rotation", "gripper"}


def test_what_a_card_leaves_out_is_not_recorded():
    content = tomllib.loads(WHOLE)
    content["rotation"] |= {"axes": "z"}
    del content["gripper"]
    assert parse(content).recorded["rotation"] == "yaw"
    for table in ("rotation", "gripper_width", "rotation_action", "limits", "cameras"):
        del content[table]
    card = parse(content)
    assert card.recorded == {"rotation": "none", "gripper": False, "gripper_width": False}
    assert card.rotation is None and card.limits == Limits() and card.cameras == ()


def test_refused_cards(tmp_path, monkeypatch, capsys):
    reason = "\"\"\"only joint angles;\n  no pose\"\"\""
    card = parse(tomllib.loads(f"{TOP}refused = {reason}"))
    assert card.refused == "only joint angles; no pose" and card.columns() == {}
    with pytest.raises(UserError, match="^whole: refused: only joint angles; no pose$"):
        require_convertible(card)
    require_convertible(load_card("bridge"))
    with pytest.raises(UserError, match="card card.toml: is refused, so it takes no 'clock'"):
        parse(tomllib.loads(TOP + 'refused = "joints"\n[clock]\nhz = 1'))
    with pytest.raises(UserError, match="'refused' must be text that is not empty"):
        parse(tomllib.loads(TOP + 'refused = " "'))
    folder = tmp_path / "_data" / "cards"
    folder.mkdir(parents=True)
    (folder / "whole.toml").write_text(TOP + f'refused = "{"no pose, " * 40}"')
    shutil.copy(card_paths()["bridge"], folder)
    monkeypatch.setattr(resources, "PACKAGE", tmp_path)
    assert main(["bridgeact", "datasets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["bridge", "whole"]
    assert "refused: no pose, no pose" in lines[3] and len(lines[3]) == 160
    assert lines[-1].startswith("1 can be converted: 1 with full rotation")
    assert lines[-1].endswith("1 refused")
    assert main(["bridgeact", "datasets", "whole"]) == 0
    assert capsys.readouterr().out.startswith("whole cannot be converted: no pose, no pose")


def test_installed_cards_come_before_those_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "PACKAGE", tmp_path / "package")
    assert resources.data_directory("cards") == tmp_path / "data" / "cards"
    (tmp_path / "package" / "_data" / "cards").mkdir(parents=True)
    assert resources.data_directory("cards") == tmp_path / "package" / "_data" / "cards"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"zyx"', '"zyw"', "[rotation] 'axes' must be a word of 1 to 3 letters x, y, z"),
        ('axes = "zyx"', "", "[rotation] lacks 'axes' (a word of 1 to 3 letters x, y, z, no let"),
        ("slice = [3, 6]", "slice = 3", "[rotation] 'slice' must be [start, stop]"),
        ("slice = [3, 6]", "slice = [3, 6, 0]", "[rotation] 'slice' must be [start, stop]"),
        ('claim = "assumed"', 'claim = "guessed"', "[gripper] 'claim' must be one of documented"),
        ('key = "observation/time"', "hz = 0", "[clock] 'hz' must be a positive number, not 0"),
        ('key = "observation/time"', "hz = nan", "[clock] 'hz' must be a positive number, not nan"),
        ('key = "observation/time"', "herz = 1", "[clock] lacks 'hz' (a positive number); it has"),
        ('key = "observation/time"', 'key = "t"\nhz = 1', "[clock] has 'hz' and 'key': keep one"),
        ("open = -1.0", "open = 1.0", "[gripper] 'closed' and 'open' must differ"),
        ("open = -1.0", "open = true", "[gripper] 'open' must be a number"),
        ("[0.3, 0.7]", "[0.7, 0.3]", "[gripper] 'thresholds' must be [low, high] within 0 to 1"),
        ('"change"', '"command"', "[gripper] has an unknown entry 'thresholds'"),
        ("[instruction]", "[instructions]", "unknown entry 'instructions': did you mean 'instr"),
        ('robot = "none"', "", "lacks 'robot' (text)"),
        ("[clock]", "[clock", "is not valid TOML"),
        ("scale = 0.001", f"scale = {'9' * 5000}", "is not valid TOML"),
        ("scale = 0.001", f"scale = 0x{'f' * 5000}", "'scale' must be a positive number, not a "),
        ("z_up = true", "z_up = 1", "[base] 'z_up' must be true or false, not 1"),
        ('high_key = "observation/high"', "", "[position] 'low_key' and 'high_key' belong toget"),
        ('low_key =', 'convention = "matrix"\nlow_key =', "[position] lacks 'order'"),
        ('frame = "tool"', 'frame = "hand"', "[rotation_action] 'frame' must be one of base, to"),
        ('"wrist"', '"front"', "two [[cameras]] have the same 'name'"),
        ("0.7, 0, 0, 0, 1]", "0.7, 0, 0, 0, 2]", "[cameras 1] 'T_base_camera' must be the 16"),
        ("[0, -1, 0, 0.5,", "[0, 1, 0, 0.5,", "[cameras 1] 'T_base_camera' must be the 16"),
        ("intrinsics = [600,", "intrinsics = [0,", "[cameras 1] 'intrinsics' must be [fx, fy, cx"),
        ('pose = "T_camera_base"', "", "[cameras 2] lacks 'pose' (one of T_base_camera, T_cam"),
        ("turned = [0, 1", "turned = [1, 1", "[rotation] 'turned' must be a unit q"),
        ("scale = 100", "scale = 0", "[rotation] 'scale' must be a positive number, not 0"),
        ("pose_key =", "T_base_camera = []\npose_key =", "[cameras 2] has 'T_base_camera' and"),
        ("speed = 1.5", "speed = -1", "[limits] 'speed' must be a positive number, not -1"),
    ],
)
def test_faulty_cards_are_named(tmp_path, old, new, message):
    path = tmp_path / "card.toml"
    assert old in WHOLE
    path.write_text(WHOLE.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        load_card(path)
    assert message in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_faulty_orders_are_named():
    rotation = {"key": "pose", "claim": "assumed"}
    for convention, order, message in [
        ("quaternion", "wxzy", "[rotation] 'order' must be one of wxyz, xyzw, not 'wxzy'"),
        ("quaternion", None, "[rotation] lacks 'order' (one of wxyz, xyzw)"),
        ("matrix", "rows", "[rotation] 'order' must be one of row, column, detect"),
        ("angles", None, "[rotation] 'convention' must be one of quaternion, euler, axis_angle"),
        ("axis_angle", "xyz", "[rotation] has an unknown entry 'order'"),
    ]:
        table = rotation | {"convention": convention} | ({"order": order} if order else {})
        with pytest.raises(UserError) as caught:
            parse(tomllib.loads(WHOLE) | {"rotation": table})
        assert message in str(caught.value)


SCALARS = st.one_of(
    st.text(max_size=8),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 0, 1, True, False, "", "xyz", "detect", "z"]),
    st.floats(),
    st.just(datetime.date(2024, 1, 1)),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def check_parse(content: dict) -> None:
    try:
        assert isinstance(parse(content), Card)
    except UserError as error:
        assert str(error).startswith("card card.toml: ") and "\n" not in str(error)


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=6))
def test_any_tables_are_a_card_or_a_user_error(content):
    check_parse(content)
    check_parse(tomllib.loads(WHOLE) | content)


@given(st.data())
def test_mutated_cards_are_a_card_or_a_user_error(data):
    content = tomllib.loads(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        table = content
        names = [name for name, value in content.items() if isinstance(value, dict)]
        inside = data.draw(st.sampled_from(["", "cameras", *names]))
        if inside == "cameras" and isinstance(content.get("cameras"), list):
            tables = [entry for entry in content["cameras"] if isinstance(entry, dict)]
            table = data.draw(st.sampled_from(tables)) if tables else content
        elif inside in names:
            table = content[inside]
        key = data.draw(st.sampled_from(sorted(table)) if table else st.text(max_size=8))
        change = data.draw(st.sampled_from(["delete", "replace", "add", "rename"]))
        if change == "replace":
            table[key] = data.draw(VALUES)
        elif change == "add":
            table[data.draw(st.text(max_size=8))] = data.draw(VALUES)
        elif key in table:
            value = table.pop(key)
            if change == "rename":
                table[data.draw(st.text(max_size=8))] = value
    check_parse(content)


@given(st.binary(max_size=40), st.integers(0, len(WHOLE)), st.integers(0, 20))
def test_any_file_is_a_card_or_a_user_error(tmp_path_factory, noise, start, cut):
    path = tmp_path_factory.getbasetemp() / "noise.toml"
    for content in (noise, WHOLE.encode()[:start] + noise + WHOLE.encode()[start + cut :]):
        path.write_bytes(content)
        try:
            load_card(path)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)


def test_a_deep_card_is_a_user_error(tmp_path):
    path = tmp_path / "deep.toml"
    for text in ("a = " + "[" * 10_000, "a" + ".a" * 10_000 + " = 1", "[[[[" * 5_000):
        path.write_text(text)
        with pytest.raises(UserError, match="deep.toml"):
            load_card(path)


def test_unknown_cards(tmp_path):
    with pytest.raises(UsageError, match="unknown card 'bridg': did you mean 'bridge'"):
        load_card("bridg")
    with pytest.raises(UsageError, match="cannot read the card .*absent.toml: No such file"):
        load_card(tmp_path / "absent.toml")


def test_datasets_command(capsys):
    assert main(["bridgeact", "datasets"]) == 0
    cards, mixtures = capsys.readouterr().out.split("\n\nmixture ", 1)
    assert "demo " in mixtures and "oxe_magic_soup " in mixtures
    lines = cards.splitlines()
    assert len(lines) == 4 + len(card_paths())
    assert all(len(line) <= 160 for line in lines)
    assert {line.split()[0] for line in lines[2:-2]} == set(card_paths())
    assert any(line.startswith("bridge ") and "5 Hz" in line for line in lines)
    assert main(["bridgeact", "datasets", "bridge"]) == 0
    assert "inferred" in capsys.readouterr().out
    assert main(["bridgeact", "datasets", "brige"]) == 2
    assert capsys.readouterr().err == "error: unknown card 'brige': did you mean 'bridge'?\n"


def test_another_folder_of_cards_is_found(tmp_path, monkeypatch):
    folder = tmp_path / "package" / "_data" / "cards"
    folder.mkdir(parents=True)
    shutil.copy(card_paths()["bridge"], folder)
    monkeypatch.setattr(resources, "PACKAGE", tmp_path / "package")
    assert list(card_paths()) == ["bridge"]
