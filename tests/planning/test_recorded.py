"""Plans that are kept and repeated."""

import dataclasses
import json

import pytest

from bridgeact_jax.errors import UserError
from bridgeact_jax.planning import lines
from bridgeact_jax.planning.protocol import Anchor, Plan, PlannedPose, PlanningError
from bridgeact_jax.planning.recorded import FilePlanner, line, read_plans, request_name

TARGET = PlannedPose((0.0, 0.1, 0.5), 1.0, (1.0, 0.0, 0.0, 0.0))


ANCHORS = (Anchor("grasp", (3, 4), (0.1, 0.2, 0.3)),)
PLANS = [Plan((), TARGET, ANCHORS, f"plan {n}", usage={"seconds": 0.5}) for n in range(3)]


@pytest.fixture
def requests(request_):
    """Two by key, one of which was refused once, and one by what it asks."""
    return [
        dataclasses.replace(request_, key="lift/0/1/0"),
        dataclasses.replace(request_, key="lift/0/1/0", refused=("too fast",)),
        request_,
    ]


def test_recorded_plans_are_repeated(requests, tmp_path):
    path = tmp_path / "plans.jsonl"
    for request, plan in zip(requests, PLANS, strict=True):
        lines.append(path, line(request, plan))
    planner = FilePlanner(path)
    assert [planner.plan(request) for request in requests] == PLANS
    assert list(read_plans(path)) == [request_name(request) for request in requests]
    lines.append(path, line(requests[0], PLANS[2]))
    assert FilePlanner(path).plan(requests[0]) == PLANS[2]  # the last counts


def test_names(requests, request_):
    first, refused, bare = map(request_name, requests)
    assert (first, refused) == ("lift/0/1/0", "lift/0/1/0#1")
    assert len(bare) == 16 and bare == request_name(dataclasses.replace(request_))
    view = request_.views[0]
    changed = {
        "instruction": "lift the ball",
        "position": request_.position + 1e-6,
        "refused": ("no",),
        "history": ("x",),
        "views": (dataclasses.replace(view, depth=view.depth + 0.01),),
    }
    others = {
        request_name(dataclasses.replace(request_, **{field: value}))
        for field, value in changed.items()
    }
    assert len({bare, *others}) == 1 + len(changed)


def test_an_unknown_request(requests, tmp_path):
    path = tmp_path / "plans.jsonl"
    lines.append(path, line(requests[0], PLANS[0]))
    unknown = dataclasses.replace(requests[0], key="lift/0/2/0")
    with pytest.raises(PlanningError) as error:
        FilePlanner(path).plan(unknown)
    for part in (str(path), "1 plans", "'lift/0/2/0'", "'lift the cube'", "lift/0/1/0"):
        assert part in str(error.value)


def test_a_torn_last_line_is_no_plan_and_no_harm(requests, tmp_path):
    path = tmp_path / "plans.jsonl"
    whole = line(requests[0], PLANS[0])
    path.write_text(f"{whole}\n{whole[: len(whole) // 2]}")
    assert list(read_plans(path)) == ["lift/0/1/0"]
    lines.append(path, line(requests[1], PLANS[1]))
    assert list(read_plans(path)) == ["lift/0/1/0", "lift/0/1/0#1"]


VERSION = '{"schema_version": 1, "request": "a", "plan": {"schema_version": 7}}'


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "cannot be read"),
        (b"\x80\x81", "not a text file"),
        (b"waypoints: none\n", "line 1 is not JSON"),
        (b"{}\n", "line 1 is no recorded plan"),
        (b"[1]\n", "line 1 is no recorded plan"),
        (f"\n{VERSION}\n".encode(), "line 2: a plan of schema version 7: this program reads 1"),
        (b'{"request": "a"}\n', "line 1: a plan of schema version None"),
    ],
)
def test_a_file_of_something_else(tmp_path, content, message):
    path = tmp_path / "plans.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        FilePlanner(path)
    assert str(path) in str(error.value)


def test_lines_are_json_with_their_versions(requests):
    row = json.loads(line(requests[1], PLANS[1]))
    assert row["schema_version"] == row["plan"]["schema_version"] == 1
    assert row["request"] == "lift/0/1/0#1" and row["instruction"] == "lift the cube"
