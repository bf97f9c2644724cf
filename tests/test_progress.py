"""The progress line on a terminal and in a log, under a clock of our own."""

import io

import pytest

from bridgeact_jax import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def test_a_log_gets_whole_lines_now_and_then(clock):
    stream = io.StringIO()
    with progress.Progress(1000, "steps", "train", stream) as shown:
        for _ in range(100):
            clock.now += 0.5
            shown.update(10, loss=0.25)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 6  # after 10, 20, ... 50 s, and the end
    assert lines[0] == "train: 200/1,000 steps  20/s  40 s left  loss 0.25"
    assert lines[-1] == "train: 1,000/1,000 steps  20/s  50 s  loss 0.25"
    assert "\r" not in stream.getvalue()


def test_a_terminal_line_is_rewritten_and_covers_the_longer_one_before(clock):
    stream = Terminal()
    shown = progress.Progress(None, "episodes", "convert", stream)
    clock.now += 1
    shown.update(5, note="a long remark")
    clock.now += 1
    shown.update(5, note="-")
    shown.close()
    shown.close()
    assert stream.getvalue().endswith("\n") and stream.getvalue().count("\n") == 1
    first, second, last = stream.getvalue().rstrip("\n").split("\r")[1:]
    assert len(second) >= len(first)
    assert last.rstrip() == "convert: 10 episodes  5/s  2 s  note -"


def test_start_up_does_not_spoil_the_time_left(clock):
    stream = io.StringIO()
    shown = progress.Progress(11, "steps", "train", stream)
    clock.now += 60  # compilation
    shown.update(1)
    assert stream.getvalue() == "train: 1/11 steps\n"
    clock.now += 20
    shown.update(2)
    assert stream.getvalue().splitlines()[1] == "train: 3/11 steps  0.1/s  1 min 20 s left"


def test_all_in_one_update_still_has_a_rate(clock):
    stream = io.StringIO()
    with progress.Progress(8, "files", "copy", stream) as shown:
        clock.now += 4
        shown.update(8)
    assert stream.getvalue() == "copy: 8/8 files  2/s  4 s\n"


def test_bytes_have_a_rate_and_what_was_done_before_has_none(clock):
    stream = io.StringIO()
    shown = progress.Progress(100, "episodes", "convert", stream, done=40)
    clock.now += 60
    shown.update(10, num_bytes=7_000_000)
    clock.now += 20
    shown.update(10, num_bytes=60_000_000)
    assert stream.getvalue().splitlines() == [
        "convert: 50/100 episodes",
        "convert: 60/100 episodes  0.5/s  3 MB/s  1 min 20 s left",
    ]


def test_nothing_done_is_not_a_division_by_zero(clock):
    stream = io.StringIO()
    progress.Progress(0, "steps", "train", stream).close()
    assert stream.getvalue() == "train: 0/0 steps  0 s\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_format_seconds(seconds, text):
    assert progress.format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (1234567, "1,234,567"), (0.12345, "0.123"), (12345.6, "12,346"),
     (float("nan"), "nan"), (float("inf"), "inf"), (1e20, "100,000,000,000,000,000,000"),
     ("lift", "lift")],
)
def test_figures(clock, value, text):
    stream = io.StringIO()
    shown = progress.Progress(1, "x", "y", stream)
    shown.update(1, figure=value)
    shown.close()
    assert stream.getvalue().endswith(f"  figure {text}\n")
