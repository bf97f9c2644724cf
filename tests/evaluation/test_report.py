"""The report: well-formed, self-contained, escaped, and sane without figures."""

import base64
import io
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bridgeact_jax.evaluation import figures, media, plots, report
from bridgeact_jax.evaluation.conditions import SWEEPS, Condition, sweep
from bridgeact_jax.evaluation.statistics import summarise, wilson

HORIZONS = {"lift": "short", "pick_and_place": "middle"}
VOID = {"meta", "img", "br", "rect", "circle", "path", "polyline"}


class Page(HTMLParser):
    """Checks that elements nest and collects text and addresses."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.addresses, self.tags = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def result(label, *, noise=0.0, successes=3, episodes=4, policy="expert", **changes):
    records = [
        {"task": task, "success": i < successes, "failure_kind": "missed_grasp",
         "wrong_object": i == 0, "valid": True, "subgoals": {"grasped": i < 2, "lifted": False},
         "cause": None if i < successes else "planner"}
        for task in HORIZONS for i in range(episodes)
    ]
    settings = {"policy": policy, "planner": "oracle", "suite": "all", "seed": 0, "arm": "panda",
                "ablation": "none", "waypoint_noise": noise, "depth_noise": 0.0,
                "checkpoint": None, **changes}
    return {"label": label, **summarise(records, horizons=HORIZONS, settings=settings)}


def page_of(tmp_path, results, **options):
    path = tmp_path / "report.html"
    report.write_report(path, results, title="A title", **options)
    assert list(tmp_path.iterdir()) == [path]
    return Page(path.read_text(encoding="utf-8"))


def test_figures_and_settings_are_shown(tmp_path):
    page = page_of(
        tmp_path, [result("expert, 2 cm", noise=0.02)], notes=["A note."],
        commands=["bridgeact evaluate --out=x"], config={"steps": 5},
    )
    text = " ".join(page.text)
    low, high = wilson(3, 4)
    for expected in ("expert, 2 cm", "75 %", "3/4", f"{100 * low:.0f}–{100 * high:.0f}",
                     "1 missed grasp", "waypoint noise 0.02", "A note.", "25 %", "grasped 2",
                     "Failures by cause", "bridgeact evaluate --out=x", '"steps": 5', "jax "):
        assert expected in text
    assert "svg" in page.tags and page.addresses == []


def test_an_axis_that_varies_is_drawn_as_curves(tmp_path):
    results = [
        result(f"{policy} {noise}", policy=policy, noise=noise)
        for policy in ("expert", "spline") for noise in (0.0, 0.02)
    ]
    assert figures.curves_of(results) == ["expert", "expert", "spline", "spline"]
    page = page_of(tmp_path, results)
    assert "Success against waypoint noise" in page.text and "waypoint noise (m)" in page.text
    for other in (
        result("expert, other", policy="expert", noise=0.02),  # two at one point of a curve
        result("ablated", noise=0.02, ablation="empty_cloud"),  # a curve of one point
        result("two axes", noise=0.05, latency=2),
    ):
        labels = [r["label"] for r in [*results, other]]
        assert figures.curves_of([*results, other]) == labels


@pytest.mark.parametrize("axis", list(SWEEPS))
def test_every_sweep_is_drawn(axis, tmp_path):
    """From conditions to the page; a value that is off stands in no result."""
    conditions = sweep(Condition("spline"), axis)
    results = [
        {**result(label), "arm": condition.arm, **condition.axes}
        for label, condition in conditions.items()
    ]
    assert [figures.value_of(r, axis) for r in results] == list(SWEEPS[axis])
    text = " ".join(page_of(tmp_path, results).text)
    drawn = f"Success against {axis.replace('_', ' ')}" in text
    assert drawn != isinstance(SWEEPS[axis][0], str)
    assert all(label in text for label in conditions)


def test_what_the_planner_was_asked_is_shown_where_it_was_asked_more(tmp_path):
    plain, guarded = result("plain"), result("guarded")
    assert "Planning" not in page_of(tmp_path, [plain]).text
    planning = {"answers": 17, "refused": {"off_object": 3}, "alarms": {"target_moved": 2}}
    guarded["tasks"]["lift"]["planning"] = planning
    text = " ".join(page_of(tmp_path, [plain, guarded]).text)
    for expected in ("Planning", "17", "3 off object", "2 target moved"):
        assert expected in text


def test_points_are_shown_where_a_model_thought(tmp_path):
    plain, thinking = result("plain"), result("thinking")
    assert "Reading" not in page_of(tmp_path, [plain]).text
    assert "unparsable" not in report.format_table([plain])
    found = {"ocr": {"mean": 3.58, "out_of": 4, "ci95": [3.31, 3.79], "total": 186}}
    thinking["tasks"]["lift"] |= {"points": found, "unparsable": 7}
    text = " ".join(page_of(tmp_path, [plain, thinking]).text)
    assert all(one in text for one in ("Reading and reasoning", "3.58", "of 4", "3.31–3.79", "7"))
    last = report.format_table([plain, thinking]).splitlines()[-1]
    assert last.split()[0] == "thinking" and "3.58 of 4" in last and last.endswith("7")


def test_series_are_told_apart_in_few_words():
    results = [
        result("a", policy="expert", checkpoint="w1"),
        result("b", policy="expert", checkpoint="w1", ablation="empty_cloud"),
        result("c", policy="spline"),
    ]
    assert figures.series_of(results) == ["expert", "expert, empty_cloud", "spline"]


def test_the_page_is_offline_and_carries_its_pictures(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (5, 24, 32, 3), dtype=np.uint8)
    encoded = media.encode(frames, frames_per_second=10)
    moving = media.Media("moving", encoded, "image/webp", "lift", True)
    page = page_of(tmp_path, [result("expert")], media=[moving])
    (address,) = page.addresses
    kind, data = address.split(";base64,")
    assert kind == "data:image/webp"
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert picture.size == (32, 24) and picture.n_frames == 5
    source = (tmp_path / "report.html").read_text()
    assert "http://" not in source and "https://" not in source and "url(" not in source


HOSTILE = '<script>alert("x")</script> & \'quoted"'


def test_markup_in_any_text_is_escaped(tmp_path):
    hostile = result(HOSTILE, policy=HOSTILE, planner=HOSTILE, suite=HOSTILE, checkpoint=HOSTILE)
    task = {"failures": {HOSTILE: 1}, "subgoals": {HOSTILE: 1}, "causes": {HOSTILE: 1}}
    hostile["tasks"] = {HOSTILE: {**hostile["tasks"]["lift"], **task}}
    for other in ([], [result("plain", noise=0.02)]):
        path = tmp_path / "report.html"
        item = media.Media(HOSTILE, b"", "image/png", HOSTILE)
        report.write_report(
            path, [hostile, *other], title=HOSTILE, media=[item], notes=[HOSTILE],
            commands=[HOSTILE], config={HOSTILE: HOSTILE},
        )
        page = Page(path.read_text())
        assert "script" not in page.tags and '<script>alert("x")' in "".join(page.text)


def empty_task(horizon):
    return {"horizon": horizon, "episodes": 0, "successes": 0, "success_rate": None,
            "ci95": [0.0, 1.0], "subgoals": {}, "subgoal_share": None, "failures": {},
            "wrong_object": 0, "wrong_object_rate": None, "invalid": 0}


@pytest.mark.parametrize("tasks", [{}, {"lift": empty_task(None)}, {"lift": empty_task("short")}])
def test_without_episodes(tmp_path, tasks):
    results = [{**result("expert"), "tasks": tasks}]
    page_of(tmp_path, results)
    assert report.format_table(results).startswith("condition")


def test_without_results(tmp_path):
    page_of(tmp_path, [])
    assert report.format_table([]).startswith("condition")


def test_the_terminal_table_is_aligned():
    table = report.format_table([result("expert"), result("a much longer label", successes=0)])
    lines = table.splitlines()
    column = lines[0].index("task")
    assert len(lines) == 6
    assert all(line[column - 1] == " " and line[column] != " " for line in lines[2:])
    assert "3/4" in lines[2] and "75 %" in lines[2] and "0/4" in lines[4]


rates = st.floats(0, 1)
points = st.lists(
    st.builds(plots.Point, st.floats(0, 100), rates, rates, rates), min_size=1, max_size=6
)


@given(st.lists(st.tuples(st.text(), st.integers(0, 20), points), min_size=1, max_size=4),
       st.text())
def test_plots_are_well_formed_xml(series, title):
    def xml(text):
        # Control characters cannot be written in XML at all; HTML parsers drop them.
        return "".join(c for c in text if c.isprintable())

    series = [(xml(name), colour, found) for name, colour, found in series]
    ElementTree.fromstring(plots.line_panel(xml(title), "noise", series))
    bars = [(name, [(name, colour, 1), (name, 3, 2)], 4) for name, colour, _ in series]
    ElementTree.fromstring(plots.stacked_panel(bars))
    rows = [(name, colour, found[0]) for name, colour, found in series]
    ElementTree.fromstring(plots.dot_panel(xml(title), rows))


def test_a_failed_write_leaves_the_old_page(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(KeyError):
        report.write_report(path, [{"label": "no figures"}], title="x")
    assert path.read_text() == "old"
