"""The knowledge test as a command: every question asked once, counted by group."""

import json

from bridgeact_jax import cli
from bridgeact_jax.vla import knowledge
from tests.vla.tiny import write_imagetext


def test_answers_are_counted_by_group_and_in_all(tmp_path, monkeypatch, capsys):
    folder = write_imagetext(tmp_path / "test", count=12, kind="knowledge")
    path = folder / "samples.jsonl"
    samples = [json.loads(line) for line in path.read_text().splitlines()]
    for number, sample in enumerate(samples):
        sample |= {"question": f"{number}", "answer": f"{number}", "group": "ab"[number > 3]}
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))

    class Forgetful:
        """Knows the answers from 2 to 9."""

        def __init__(self, vla, batch):
            assert vla == "W" and batch == 5

        def say(self, pictures, prompts, *, robot):
            assert len(pictures) == len(prompts) <= 5 and not robot
            return [prompt if 2 <= int(prompt) <= 9 else "?" for prompt in prompts]

    monkeypatch.setattr(knowledge, "BATCH", 5)
    monkeypatch.setattr(knowledge, "load_vla", lambda checkpoint: checkpoint)
    monkeypatch.setattr(knowledge, "Speaker", Forgetful)
    assert knowledge.examine("W", folder) == {"a": (2, 4), "b": (6, 8)}
    assert cli.main(["bridgeact", "knowledge", "--checkpoint=W", f"--test={folder}"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["a", "2", "of", "4", "50", "%"], ["b", "6", "of", "8", "75", "%"],
        ["all", "8", "of", "12", "67", "%"],
    ]  # fmt: skip


def test_a_folder_of_something_else_is_one_clear_line(tmp_path, capsys):
    words = ["bridgeact", "knowledge", "--checkpoint=W", f"--test={tmp_path}"]
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert "no folder of `bridgeact vla-data`" in error and error.count("\n") == 1
