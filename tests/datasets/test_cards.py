"""The shipped cards and the messages for cards that do not hold together."""

import shutil

import pytest

from bridgeact_jax.cli import main
from bridgeact_jax.datasets import resources
from bridgeact_jax.datasets.cards import card_paths, find_card, load_card
from bridgeact_jax.errors import UsageError, UserError


@pytest.mark.parametrize("name", card_paths())
def test_shipped_cards_load_under_their_file_names(name):
    card = load_card(name)
    assert card.name == name
    assert all(column.claim for column in card.columns().values())
    assert all(find_card(dataset) == card for dataset in card.dataset_names)


def test_no_dataset_belongs_to_two_cards():
    names = [word for name in card_paths() for word in load_card(name).dataset_names]
    assert len(names) == len(set(names))


def test_bridge_and_demonstrations_are_there():
    assert {"bridge", "demonstrations"} <= set(card_paths())
    assert load_card("bridge").rotation.axes == "xyz"
    assert load_card("demonstrations").cloud is not None
    assert find_card("nowhere") is None


def test_installed_cards_come_before_those_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "PACKAGE", tmp_path / "package")
    assert resources.data_directory("cards") == tmp_path / "data" / "cards"
    (tmp_path / "package" / "_data" / "cards").mkdir(parents=True)
    assert resources.data_directory("cards") == tmp_path / "package" / "_data" / "cards"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('order = "wxyz"', 'order = "wxzy"', "[rotation] 'order' must be one of wxyz, xyzw"),
        ('order = "wxyz"', "", "[rotation] lacks 'order' (one of wxyz, xyzw)"),
        ("slice = [3, 7]", "slice = 3", "[rotation] 'slice' must be [start, stop]"),
        ('claim = "inferred"', 'claim = "guessed"', "[gripper] 'claim' must be one of documented"),
        ("hz = 10.0", "hz = 0", "[clock] 'hz' must be a positive number, not 0"),
        ("hz = 10.0", "herz = 10.0", "[clock] lacks 'hz' (a positive number); it has herz"),
        ("open = -1.0", "open = 1.0", "[gripper] 'closed' and 'open' must differ"),
        ("open = -1.0", "open = true", "[gripper] 'open' must be a number"),
        ("[instruction]", "[instructions]", "unknown entry 'instructions': did you mean 'instr"),
        ('robot = "none"', "", "lacks 'robot' (text)"),
        ("[clock]", "[clock", "is not valid TOML"),
        ("z_up = true", "z_up = 1", "[base] 'z_up' must be true or false, not 1"),
    ],
)
def test_faulty_cards_are_named(toy, old, new, message):
    _, path, data = toy
    assert old in data.card_text
    path.write_text(data.card_text.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        load_card(path)
    assert message in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_cards(tmp_path):
    with pytest.raises(UsageError, match="unknown card 'bridg': did you mean 'bridge'"):
        load_card("bridg")
    with pytest.raises(UsageError, match="cannot read the card .*absent.toml: No such file"):
        load_card(tmp_path / "absent.toml")


def test_datasets_command(capsys):
    assert main(["bridgeact", "datasets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 + len(card_paths())
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
