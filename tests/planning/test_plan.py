"""`bridgeact plan`: a plan for a picture in files, printed and drawn."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from bridgeact_jax import cli
from bridgeact_jax.errors import UserError
from bridgeact_jax.evaluation.films import can_render
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.planning import recorded
from bridgeact_jax.planning.guard import Refusal
from bridgeact_jax.planning.plan import describe
from bridgeact_jax.planning.protocol import Anchor, Plan, PlannedPose, View, waypoints_of
from bridgeact_jax.planning.request_files import read_camera, read_depth, read_request
from bridgeact_jax.planning.sketch import FINER, Label, draw_plan, label_boxes
from bridgeact_jax.planning.sweep import guidance_of

DOWN = (0.0, 1.0, 0.0, 0.0)
INSTRUCTION = "put the red cube into the tray that is farther away"
STATE = {"position": [0.45, 0.05, 0.3], "rotation": DOWN, "gripper": 1}


def camera_fields(camera):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat(camera.T_base_camera.rotation, scalar_first=True).as_matrix()
    pose[:3, 3] = camera.T_base_camera.position
    numbers = {name: float(getattr(camera, name)) for name in ("fx", "fy", "cx", "cy")}
    return numbers | {"T_base_camera": pose.tolist()}


@pytest.fixture
def files(tmp_path, camera, view):
    """The flags of a request in files."""
    Image.fromarray(view.picture).save(tmp_path / "picture.png")
    (tmp_path / "camera.json").write_text(json.dumps(camera_fields(camera)))
    (tmp_path / "state.json").write_text(json.dumps(STATE))
    np.save(tmp_path / "depth.npy", view.depth)
    return {
        "picture": str(tmp_path / "picture.png"), "camera": str(tmp_path / "camera.json"),
        "instruction": INSTRUCTION, "state": str(tmp_path / "state.json"),
        "depth": str(tmp_path / "depth.npy"),
    }


@pytest.fixture
def plan():
    """Down to the table, closing there, and up again; the camera looks straight down."""
    return Plan(
        (PlannedPose((0.0, 0.0, 0.6), 1.0), PlannedPose((0.0, 0.0, 0.78), 0.0)),
        PlannedPose((0.2, 0.1, 0.5), 0.0, (1.0, 0.0, 0.0, 0.0)),
        (Anchor("grasp", (30, 20), (0.0, 0.0, 0.8)),), "I see a cube.\nI take it.", 0.75,
        {"seconds": 1.5, "queries": 2},
    )


def run(*words):
    return cli.main(["bridgeact", "plan", *words])


def test_a_request_is_read_from_files(files, camera, view):
    request = read_request(**files)
    assert request.instruction == INSTRUCTION and request.gripper == 1
    np.testing.assert_array_equal(request.views[0].picture, view.picture)
    np.testing.assert_array_equal(request.views[0].depth, view.depth)
    read = request.views[0].camera
    np.testing.assert_allclose(read[1:], camera[1:])
    np.testing.assert_allclose(read.T_base_camera.position, camera.T_base_camera.position)
    assert abs(read.T_base_camera.rotation @ camera.T_base_camera.rotation) == pytest.approx(1)
    inline = read_request(**files | {"state": json.dumps(STATE), "depth": None})
    assert inline.views[0].depth is None
    np.testing.assert_array_equal(inline.position, request.position)


def test_depth_in_millimetres_and_in_metres(tmp_path):
    millimetres = np.array([[0, 800, 1234], [1, 2000, 65535]], np.uint16)
    Image.fromarray(millimetres).save(tmp_path / "depth.png")
    depth = read_depth(str(tmp_path / "depth.png"), (2, 3))
    np.testing.assert_allclose(depth, millimetres / 1000, rtol=1e-6)
    np.save(tmp_path / "depth.npy", np.array([[np.nan, -1, 0.5], [np.inf, 0, 2]]))
    depth = read_depth(str(tmp_path / "depth.npy"), (2, 3))
    np.testing.assert_allclose(depth, [[0, 0, 0.5], [0, 0, 2]])
    with pytest.raises(UserError, match=r"\(2, 3\), the picture \(3, 2\)"):
        read_depth(str(tmp_path / "depth.npy"), (3, 2))
    Image.fromarray(millimetres.astype(np.uint8)).save(tmp_path / "eight.png")
    with pytest.raises(UserError, match="16-bit"):
        read_depth(str(tmp_path / "eight.png"), (2, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fx": None}, "fx missing"), ({"fx": -1.0}, "must be positive"),
        ({"cx": "middle"}, "'cx' must be a finite number"),
        ({"T_base_camera": [1] * 12}, "'T_base_camera' must be 16 finite numbers"),
        ({"T_base_camera": [[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "rotation"),
        ({"T_camera_base": 1}, "unknown key 'T_camera_base': did you mean 'T_base_camera'"),
    ],
)
def test_a_camera_that_is_none(change, message, camera, tmp_path):
    fields = camera_fields(camera) | change
    path = tmp_path / "camera.json"
    path.write_text(json.dumps({key: value for key, value in fields.items() if value is not None}))
    with pytest.raises(UserError, match=message):
        read_camera(str(path))
    path.write_text("{")
    with pytest.raises(UserError, match="no JSON"):
        read_camera(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rotation": [1, 1, 0, 0]}, "unit quaternion"), ({"gripper": 80}, "from 0 to 1"),
        ({"position": [0, 0]}, "3 finite numbers"), ({"grip": 1}, "did you mean 'gripper'"),
    ],
)
def test_a_state_that_is_none(change, message, files):
    with pytest.raises(UserError, match=message):
        read_request(**files | {"state": json.dumps(STATE | change)})


def test_a_recorded_plan_is_printed_and_drawn(files, plan, tmp_path, capsys):
    """What is written is itself a file of plans."""
    plans, out = tmp_path / "plans.jsonl", tmp_path / "new" / "folder" / "drawn.png"
    plans.write_text(recorded.line(read_request(**files), plan) + "\n")
    words = [f"--{name}={value}" for name, value in files.items()]
    assert run(*words, "--planner=file", f"--plans={plans}", f"--out={out}") == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in (INSTRUCTION, "grasp", "target", "I take it.", "0.75"))
    written = json.loads(out.with_suffix(".json").read_text())
    # The camera is 0.8 m above the table at (0.5, 0.1) and looks down, its x as the base's.
    np.testing.assert_allclose(
        written["base_frame"]["position"],
        [STATE["position"], [0.5, 0.1, 0.2], [0.5, 0.1, 0.02], [0.7, 0.0, 0.3]], atol=1e-6,
    )
    assert written["base_frame"]["gripper"] == [1, 1, 0, 0] and written["refusals"] is None
    with Image.open(out) as drawing:
        assert drawing.width == 720 and drawing.height > 480  # twelve times larger, and the key
    assert sorted(path.name for path in out.parent.iterdir()) == ["drawn.json", "drawn.png"]
    again = tmp_path / "again.png"
    repeated = f"--plans={out.with_suffix('.json')}"
    assert run(*words, "--planner=file", repeated, f"--out={again}") == 0
    assert json.loads(again.with_suffix(".json").read_text()) == written


def test_no_planner_is_asked_for_a_drawing_that_cannot_be_written(files, tmp_path, capsys):
    """A planner that was asked would say that it has no plan for this request."""
    (tmp_path / "file").write_text("")
    (tmp_path / "none.jsonl").write_text("")
    words = [f"--{name}={value}" for name, value in files.items()]
    words += ["--planner=file", f"--plans={tmp_path / 'none.jsonl'}"]
    for out in ("file/x.png", "file/folder/x.png"):
        assert run(*words, f"--out={tmp_path / out}") == 1
        error = capsys.readouterr().err
        assert "cannot be made a folder" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "either --task or --picture"),
        (["--task=lift", "--picture=x.png"], "either --task or --picture"),
        (["--picture=x.png"], "also needs --camera, --instruction, --state"),
        (["--task=lfit"], "did you mean 'lift'"),
        (["--task=lift", "--planner=orakle"], "did you mean 'oracle'"),
        (["--task=lift", "--out=plan.jpg"], "must end in .png"),
    ],
)
def test_a_wrong_command_line(words, message, capsys):
    assert run(*words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--planner=oracle"], "--task only"), (["--planner=file"], "needs --plans"),
        (["--planner=remote"], "needs --planner_model and --planner_url"),
    ],
)
def test_planners_say_what_they_lack(words, message, files, capsys):
    assert run(*[f"--{name}={value}" for name, value in files.items()], *words) == 2
    assert message in capsys.readouterr().err


def test_the_curve_passes_where_its_points_project(view, plan, request_):
    """Drawn colours stand where the waypoints project to, and nowhere far from the plan."""
    waypoints = waypoints_of(plan, request_)
    flat = View(np.full((480, 720, 3), 128, np.uint8), view.camera._replace(
        fx=600.0, fy=624.0, cx=359.5, cy=239.5
    ))  # fmt: skip
    drawn = draw_plan(flat, waypoints, guidance_of(waypoints), plan.anchors, "go")
    assert drawn.shape[1] == 720 and drawn.shape[0] > 480
    changed = np.any(drawn[:480] != 128, axis=-1)
    for x, y, z in [pose.position for pose in (*plan.waypoints, plan.target)]:
        u, v = 600 * x / z + 359.5, 624 * y / z + 239.5
        assert changed[round(v), round(u)]
    assert not changed[:, 700:].any() and not changed[440:].any()


def test_what_is_hidden_is_dashed(view, plan, request_):
    waypoints = waypoints_of(plan, request_)
    camera = view.camera._replace(fx=600.0, fy=624.0, cx=359.5, cy=239.5)
    picture = np.full((480, 720, 3), 128, np.uint8)
    inked = []
    for depth in (0.8, 0.1):  # the table; something right before the camera
        seen = View(picture, camera, np.full((480, 720), depth, np.float32))
        drawn = draw_plan(seen, waypoints, guidance_of(waypoints), (), "go")
        inked.append(np.sum(np.any(drawn[:480] != 128, axis=-1)))
    assert inked[1] < inked[0]


@pytest.mark.parametrize("seed", range(4))
def test_labels_keep_apart_and_inside(seed):
    rng = np.random.default_rng(seed)
    size = (480 * FINER, 480 * FINER)
    points = rng.uniform(150, 330, (12, 2)) * FINER
    labels = [Label(point, f"{i}, {i + 9}", (0, 0, 0)) for i, point in enumerate(points)]
    boxes = label_boxes(labels, size, points, points[:0])
    for i, (middle, half) in enumerate(boxes):
        assert np.all(middle - half >= 0) and np.all(middle + half <= size)
        for other, other_half in boxes[:i]:
            assert np.any(np.abs(middle - other) >= half + other_half)
    outside = Label(np.array([-5.0, 10.0]), "1", (0, 0, 0))
    assert label_boxes([outside], size, points, points[:0]) == [None]


def test_a_plan_far_outside_the_picture_is_drawn(view, request_):
    position = np.float32([[0.45, 0.05, 0.3], [9, 9, 0.1], [0.5, 0.1, 2.0]])  # beside, behind
    waypoints = Waypoints(
        position, np.tile(np.float32(DOWN), (3, 1)), np.float32([1, 1, 0]), np.int32(3)
    )
    drawn = draw_plan(view, waypoints, guidance_of(waypoints), (), "go " * 60)
    assert drawn.shape[1] == 720 and drawn.shape[0] > 500


def test_the_guards_reasons_are_printed(plan, request_):
    waypoints = waypoints_of(plan, request_)
    refusals = (Refusal("workspace", "waypoint 2 is under the table"),)
    assert "waypoint 2 is under the table" in describe(plan, waypoints, "go", refusals)
    assert "no objection" in describe(plan, waypoints, "go", ())


@pytest.mark.slow
@pytest.mark.skipif(can_render() is not None, reason="no graphics library")
def test_the_oracle_plans_for_a_task(tmp_path, capsys):
    out = tmp_path / "lift.png"
    assert run("--task=lift", "--seed=3", f"--out={out}") == 0
    assert "guard: no objection" in capsys.readouterr().out
    assert run("--task=lift", "--seed=3", f"--out={out}", "--wrong_waypoint=millimetres") == 0
    assert "guard: refused" in capsys.readouterr().out
