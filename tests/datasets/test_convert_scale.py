"""One store, whoever makes its parts and whatever ends a run: processes, signals, kills."""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from bridgeact_jax.cli import main
from bridgeact_jax.datasets import convert, parts
from bridgeact_jax.datasets.convert import convert_dataset
from bridgeact_jax.datasets.rlds_reader import open_rlds
from bridgeact_jax.errors import UserError
from tests.datasets.conftest import content


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "PART_EPISODES", 3)
    monkeypatch.setattr(parts, "CHUNK_EPISODES", 2)


def test_parts_cover_the_split_in_order(many, small_parts):
    planned = parts.plan_parts(open_rlds(many[0]), "train")
    assert [part.number for part in planned] == list(range(10))
    assert [(part.shard, part.start, part.stop) for part in planned[:4]] == [
        (0, 0, 3), (0, 3, 4), (1, 0, 3), (1, 3, 4)
    ]
    indices = [part.first + i for part in planned for i in range(part.stop - part.start)]
    assert indices == list(range(20))


def test_how_the_parts_are_cut_does_not_matter(many, tmp_path, monkeypatch):
    directory, card = many
    whole = convert_dataset(directory, tmp_path / "whole", card=card)
    monkeypatch.setattr(parts, "PART_EPISODES", 3)
    monkeypatch.setattr(parts, "CHUNK_STEPS", 20)
    assert convert_dataset(directory, tmp_path / "cut", card=card) == whole
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    assert [entry["index"] for entry in whole["rejected_episodes"]] == [7, 13]


@pytest.mark.slow
def test_the_number_of_processes_does_not_matter(many, tmp_path):
    directory, card = many
    convert_dataset(directory, tmp_path / "one", card=card, workers=1)
    convert_dataset(directory, tmp_path / "three", card=card, workers=3)
    assert content(tmp_path / "one") == content(tmp_path / "three")


def test_a_run_goes_on_from_the_finished_parts(many, tmp_path, monkeypatch, capsys):
    directory, card = many
    undisturbed = convert_dataset(directory, tmp_path / "undisturbed", card=card)
    made = []

    def make(job, part, stop_at=None):
        if part.number == stop_at:
            raise KeyboardInterrupt
        made.append(part.number)
        return parts.make_part(job, part)

    monkeypatch.setattr(convert, "make_part", lambda *one: make(*one, stop_at=3))
    with pytest.raises(KeyboardInterrupt):
        convert_dataset(directory, tmp_path / "store", card=card)
    assert not (tmp_path / "store").exists()
    assert f"kept in {tmp_path}/store.partial (3): the same command" in capsys.readouterr().err
    monkeypatch.setattr(convert, "make_part", make)
    assert convert_dataset(directory, tmp_path / "store", card=card) == undisturbed
    assert made == [0, 1, 2, 3, 4]
    assert content(tmp_path / "store") == content(tmp_path / "undisturbed")
    assert not (tmp_path / "store.partial").exists()
    assert "starting afresh" not in capsys.readouterr().err


@pytest.fixture
def halted(many, tmp_path, monkeypatch):
    """A conversion that ended after 3 parts."""
    directory, card = many

    def make(job, part):
        if part.number == 3:
            raise UserError("the power went")
        return parts.make_part(job, part)

    with monkeypatch.context() as patch:
        patch.setattr(convert, "make_part", make)
        with pytest.raises(UserError, match="the power went"):
            convert_dataset(directory, tmp_path / "store", card=card)
    return directory, card, tmp_path / "store"


def made_again(monkeypatch, directory, card, out) -> list[int]:
    numbers = []

    def make(job, part):
        numbers.append(part.number)
        return parts.make_part(job, part)

    monkeypatch.setattr(convert, "make_part", make)
    convert_dataset(directory, out, card=card)
    return numbers


def test_other_inputs_start_afresh_and_say_so(halted, monkeypatch, capsys):
    directory, card, out = halted
    card.write_text(card.read_text() + "# another card\n")
    capsys.readouterr()
    assert made_again(monkeypatch, directory, card, out) == [0, 1, 2, 3, 4]
    note = f"note: {out}.partial was made with another card: starting afresh"
    assert note in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["shard", "column", "report", "leftovers"])
def test_only_what_is_not_whole_is_made_again(halted, monkeypatch, damage):
    directory, card, out = halted
    part = pathlib.Path(f"{out}.partial/parts/000001")
    if damage == "shard":
        shard = directory / "toy-train.tfrecord-00001-of-00005"
        os.utime(shard, ns=(1, 1))
    elif damage == "column":
        os.truncate(part / "position.npy", 200)
    elif damage == "report":
        (part / "part.json").write_text("{")
    else:
        shutil.copytree(part, f"{part}.123-456")
    again = [] if damage == "leftovers" else [1]
    assert made_again(monkeypatch, directory, card, out) == [*again, 3, 4]


def test_two_runs_do_not_share_a_place(halted):
    import fcntl

    directory, card, out = halted
    with open(f"{out}.partial/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is converting to"):
            convert_dataset(directory, out, card=card)
    assert convert_dataset(directory, out, card=card)["episodes"] == 18


def test_what_a_finished_run_left_is_removed(many, tmp_path):
    directory, card = many
    out, left = tmp_path / "store", tmp_path / "store.partial"
    convert_dataset(directory, out, card=card)
    (left / "parts").mkdir(parents=True)
    (left / "published").touch()
    with pytest.raises(UserError, match="exists: choose another path"):
        convert_dataset(directory, out, card=card)
    assert not left.exists()


@pytest.mark.parametrize(("limit", "passes"), [(2, True), (0.1, True), (1, False), (0.09, False)])
def test_too_many_rejected_episodes(many, tmp_path, limit, passes, capsys):
    directory, card = many
    flags = [f"--rlds={directory}", f"--out={tmp_path}/store", f"--card={card}"]
    flags += [f"--max_rejected={limit}", "--workers=1"]
    status = main(["bridgeact", "convert", *flags])
    assert status == (0 if passes else 1)
    assert (tmp_path / "store").exists() == passes
    if not passes:
        assert (
            f"{directory}: 2 of the first 16 episodes were rejected, more than "
            f"--max_rejected={limit} permits: fewer than 2 steps (1), "
            "quaternion is not of unit length (1)"
        ) in capsys.readouterr().err


COMMAND = [sys.executable, "-m", "bridgeact_jax.cli", "convert"]


def start(directory, card, out, *flags) -> subprocess.Popen:
    """The command in a process group of its own, heeding Ctrl-C even if these tests do not."""
    return subprocess.Popen(
        [*COMMAND, f"--rlds={directory}", f"--card={card}", f"--out={out}", *flags],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture
def long(rlds, toy):
    """A dataset that keeps two processes busy for some seconds; (directory, card)."""
    _, card, data = toy
    base = data.columns(1, steps=60)
    rlds.write([base] * 3000, data.shapes, shards=40)
    return rlds.directory, card


@pytest.mark.slow
def test_killed_five_times_it_ends_with_the_same_bytes(long, tmp_path, monkeypatch):
    """At seeded moments: some while it starts, most after some more parts, the last in the end."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    directory, card = long
    convert_dataset(directory, tmp_path / "undisturbed", card=card)
    out, dice = tmp_path / "store", random.Random(0)
    folder = pathlib.Path(f"{out}.partial")
    kept = [0]
    for number in range(5):
        process = start(directory, card, out, f"--workers={1 + number % 2}")
        if number == 4:
            wait_for((folder / "store").exists)
        elif number % 3:
            more = kept[-1] + dice.randint(1, 4)
            wait_for(lambda more=more: finished(folder) >= more)
            time.sleep(dice.uniform(0, 0.1))
        else:
            time.sleep(dice.uniform(0, 2))
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stderr.close()
        kept.append(finished(folder))
    assert kept == sorted(kept) and kept[-2] < 40
    process = start(directory, card, out, "--workers=2")
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert content(out) == content(tmp_path / "undisturbed")
    assert not folder.exists()


def finished(folder: pathlib.Path) -> int:
    return sum("." not in path.name for path in (folder / "parts").glob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_parts(long, tmp_path, how):
    directory, card = long
    process = start(directory, card, tmp_path / "store", "--workers=2")
    folder = tmp_path / "store.partial" / "parts"
    wait_for(lambda: any("." not in path.name for path in folder.glob("*")))
    os.kill(process.pid, how)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "finished parts are kept in" in err and "error: interrupted" in err
    assert "Traceback" not in err
    assert not (tmp_path / "store").exists() and list(folder.glob("0*"))


@pytest.mark.slow
def test_a_dead_worker_is_reported(long, tmp_path):
    directory, card = long
    process = start(directory, card, tmp_path / "store", "--workers=2")
    folder = tmp_path / "store.partial" / "parts"
    wait_for(lambda: any("." not in path.name for path in folder.glob("*")))
    half_made = next(path for path in iter(lambda: next(folder.glob("*.*"), None), 0) if path)
    os.kill(int(half_made.name.split(".")[1].split("-")[0]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: a worker process died (out of memory?): use fewer --workers" in err
    assert "finished parts are kept in" in err


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
