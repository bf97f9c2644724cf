"""Fine-tuning data: what is written is read back by the parser of the remote planner."""

import base64
import dataclasses
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from bridgeact_jax import cli
from bridgeact_jax.datasets.cards import load_card
from bridgeact_jax.datasets.episode import Episode
from bridgeact_jax.datasets.keyframing import thinned
from bridgeact_jax.datasets.rlds_writer import write_rlds
from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.evaluation.films import can_render
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.planning import planner_data
from bridgeact_jax.planning.anchors import anchors_of, places
from bridgeact_jax.planning.answers import parse_anchors, parse_plan
from bridgeact_jax.planning.conversations import FORMATS, conversation, record_text
from bridgeact_jax.planning.data_files import is_validation
from bridgeact_jax.planning.planner_data import write_planner_data
from bridgeact_jax.planning.protocol import (
    Anchor,
    PlanRequest,
    View,
    plan_of_waypoints,
    waypoints_of,
)
from bridgeact_jax.planning.remote import RemotePlanner
from bridgeact_jax.sim import demos
from bridgeact_jax.sim.environment import Environment
from bridgeact_jax.sim.tasks import TASKS
from tests.planning.endpoint import Endpoint, text_of

HALF_STEP = 0.5e-3 * 3**0.5  # metres that rounding to millimetres moves a point by, at most
TURN = 2 * 0.5e-3 * 4**0.5 * 1.05  # radians likewise, of a quaternion rounded to three decimals
DOWN = np.array([0.0, 1.0, 0.0, 0.0])


def texts_of(form, record):
    """The two answers in a record of any format."""
    record = json.loads(record)
    if form == "llava":
        return [turn["value"] for turn in record["conversations"] if turn["from"] == "gpt"]
    return [turn["content"] for turn in record["messages"] if turn["role"] == "assistant"]


def assert_reads_back(waypoints, request, anchors):
    """Whatever the format, parsing the answers gives these waypoints, base frame, and anchors."""
    view = request.views[0]
    plan = plan_of_waypoints(waypoints, view.camera, anchors=anchors)
    about = conversation("a", "pictures/a.png", b"png", request, anchors, plan)
    (first, second), *others = [texts_of(form, record_text(form, about)) for form in FORMATS]
    assert all(other == [first, second] for other in others)
    read_anchors = parse_anchors(first, view.width, view.height)
    assert [(a.label, a.pixel) for a in read_anchors] == [(a.label, a.pixel) for a in anchors]
    read = waypoints_of(parse_plan(second, view), request)
    assert len(read.gripper) == int(waypoints.count)
    np.testing.assert_array_equal(read.gripper[1:], waypoints.gripper[1:])
    away = np.linalg.norm(read.position - waypoints.position, axis=1)
    assert away.max() <= HALF_STEP + 1e-6
    turns = [Rotation.from_quat(x.rotation, scalar_first=True) for x in (read, waypoints)]
    assert (turns[0] * turns[1].inv()).magnitude().max() <= TURN


@st.composite
def plans(draw):
    """Waypoints above the bare table, the first of which is where the tool is."""
    count = draw(st.integers(2, 22))
    reach = st.tuples(st.floats(0.3, 0.7), st.floats(-0.05, 0.25), st.floats(0.0, 0.35))
    quaternion = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)
    position = np.array([draw(reach) for _ in range(count)], np.float32)
    rotation = np.array([draw(quaternion) for _ in range(count)])
    rotation /= np.linalg.norm(rotation, axis=1, keepdims=True)
    gripper = np.array([draw(st.sampled_from([0.0, 1.0])) for _ in range(count)], np.float32)
    return Waypoints(position, rotation.astype(np.float32), gripper, np.int32(count))


@settings(max_examples=25, deadline=None)
@given(waypoints=plans(), pixel=st.tuples(st.integers(2, 59), st.integers(0, 39)))
def test_whatever_is_written_reads_back(waypoints, pixel, request_):
    request = dataclasses.replace(
        request_, position=waypoints.position[0], rotation=waypoints.rotation[0]
    )
    anchor = Anchor("grasp", tuple(map(float, pixel)), (0.1, 0.0, 0.8))
    assert_reads_back(waypoints, request, (anchor,))


@pytest.mark.parametrize("task", TASKS)
def test_every_tasks_plan_reads_back(task, camera):
    env = Environment(task)
    env.reset(0, 1)
    view = View(picture=np.zeros((40, 60, 3), np.uint8), camera=camera)
    waypoints = env.waypoints()
    request = PlanRequest(
        (view,), env.instruction, waypoints.position[0], waypoints.rotation[0], 1.0
    )
    anchors, _ = anchors_of(waypoints, view)
    assert anchors
    assert_reads_back(waypoints, request, anchors[:10])
    assert [label for label, _ in places(waypoints)] == PLACES[task]


PLACES = {
    "reach": ["touch"], "lift": ["grasp"], "push_into_bay": ["touch"] * 2,
    "press_button": ["touch"], "pick_and_place": ["grasp", "place"],
    "stack_two": ["grasp", "place"], "open_drawer": ["grasp", "place"],
    "insert_peg": ["grasp", "place"], "stack_three": ["grasp", "place"] * 2,
    "put_in_drawer": ["grasp", "place"] * 3, "sort_three": ["grasp", "place"] * 3,
    "swap_two": ["grasp", "place"] * 3,
}


# ---- anchors ------------------------------------------------------------------------------------

BOX, TOP = (0.52, 0.12), 0.04  # metres: middle and height of a box 6 cm wide, seen from above


def grasp_at(x, y, z):
    position = np.array([[0.45, 0.05, 0.3], [x, y, z + 0.1], [x, y, z], [x, y, z + 0.1]])
    return Waypoints(
        position.astype(np.float32), np.tile(DOWN, (4, 1)).astype(np.float32),
        np.float32([1, 1, 0, 0]), np.int32(4),
    )


def depth_of_box(camera, height=40, width=60):
    """(H, W) metres of a table 0.8 m below the camera with the box on it."""
    v, u = np.mgrid[:height, :width]
    z = 0.8 - TOP
    x = camera.T_base_camera.position[0] + (u - camera.cx) / camera.fx * z
    y = camera.T_base_camera.position[1] - (v - camera.cy) / camera.fy * z
    inside = (np.abs(x - BOX[0]) < 0.03) & (np.abs(y - BOX[1]) < 0.03)
    return np.where(inside, z, 0.8).astype(np.float32)


def test_an_anchor_lies_on_the_surface_above_the_tool(view, camera):
    seen = View(view.picture, camera, depth_of_box(camera))
    (anchor,), left_out = anchors_of(grasp_at(*BOX, 0.025), seen)
    assert anchor.label == "grasp" and left_out == {}
    assert anchor.pixel == tuple(map(round, anchor.pixel))
    x, y, z = anchor.point  # the camera looks straight down, its x as the base's
    assert z == pytest.approx(0.8 - TOP, abs=1e-6)
    np.testing.assert_allclose([0.5 + x, 0.1 - y], BOX, atol=0.5 * z / 50 + 1e-6)


def test_an_anchor_that_is_not_seen_is_left_out_and_counted(view, camera):
    depth = depth_of_box(camera)
    assert anchors_of(grasp_at(1.5, 0.1, 0.02), View(view.picture, camera, depth))[1] == {
        "outside": 1
    }
    lamp = np.full_like(depth, 0.4)
    assert anchors_of(grasp_at(*BOX, 0.02), View(view.picture, camera, lamp))[1] == {"hidden": 1}
    floating = grasp_at(*BOX, 0.5)
    assert anchors_of(floating, View(view.picture, camera, depth))[1] == {"no surface": 1}
    (anchor,), _ = anchors_of(floating, View(view.picture, camera))  # no depth: the tool itself
    np.testing.assert_allclose(anchor.point, [0.02, -0.02, 0.3], atol=1e-6)


# ---- keyframes ----------------------------------------------------------------------------------


def zigzag():
    """An episode whose path turns sharply every fourth step; its gripper closes at the 30th."""
    corners = np.array([[0.4 + 0.02 * i, 0.06 * (i % 2), 0.2] for i in range(16)])
    position = np.concatenate([
        np.linspace(a, b, 4, endpoint=False) for a, b in zip(corners[:-1], corners[1:], strict=True)
    ]).astype(np.float32)
    gripper = (np.arange(60) < 30).astype(np.float32)
    rotation = np.tile(DOWN, (60, 1)).astype(np.float32)
    return Episode(np.arange(60) / 10, position, rotation, gripper, gripper, "go")


def test_keyframes_are_thinned_to_what_a_plan_can_hold(monkeypatch):
    episode = zigzag()
    rows = np.union1d(np.arange(0, 60, 2), [59])
    same, fits = thinned(episode, rows, 64)
    np.testing.assert_array_equal(same, rows)
    corners, miss = thinned(episode, rows, 18)  # every corner is kept, what lies between goes
    assert set(range(0, 60, 4)) <= set(corners.tolist()) and miss < 0.01
    fewer, worse = thinned(episode, rows, 8)
    assert len(fewer) == 8 and set(fewer) <= set(rows) and fits <= miss < worse < 0.1
    assert {0, 30, 59} <= set(fewer.tolist())
    assert len(thinned(episode, rows, 1)[0]) == 3

    monkeypatch.setattr(planner_data, "keyframes_of", lambda *_: [rows])
    waypoints, worst = planner_data.hindsight(episode)
    assert waypoints.count == 22 and worst < 0.01
    np.testing.assert_array_equal(waypoints.gripper, waypoints.position[:, 0] < 0.545)
    monkeypatch.setattr(planner_data, "keyframes_of", lambda *_: [None])
    with pytest.raises(planner_data.Unusable, match="more than 20 waypoints"):
        planner_data.hindsight(episode)


# ---- whole datasets -----------------------------------------------------------------------------


def recorded_steps(camera, count=24):
    """Steps of a grasp of the box, as `bridgeact demos --pictures` names them, small pictures."""
    way = np.concatenate([
        np.linspace([0.45, 0.05, 0.3], [*BOX, 0.125], count // 3),
        np.linspace([*BOX, 0.125], [*BOX, 0.025], count // 3),
        np.linspace([*BOX, 0.025], [*BOX, 0.2], count - 2 * (count // 3)),
    ])
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat(camera.T_base_camera.rotation, scalar_first=True).as_matrix()
    pose[:3, 3] = camera.T_base_camera.position
    observed = {
        "image": np.full((40, 60, 3), 90), "depth": np.rint(depth_of_box(camera) * 1000),
        "camera_intrinsics": [[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]],
        "camera_pose": pose, "ee_rotation": DOWN, "gripper_width": 1.0,
        "cloud": np.zeros((2048, 3)),
    }
    flags = {"is_first": False, "is_last": False, "is_terminal": False}
    closed = np.arange(count) >= 2 * (count // 3) - 1
    return [
        flags | {
            "observation": observed | {"ee_position": position},
            "action": [*position, *DOWN, 0.0 if closed[i] else 1.0],
            "language_instruction": "lift the box", "reward": 0.0, "discount": 1.0,
        }
        for i, position in enumerate(way)
    ]


def dataset_of(path, camera, *, pictures=True, episodes=3):
    steps = recorded_steps(camera)
    small = {name: (40, 60, 3) if name == "image" else (40, 60) for name in ("image", "depth")}
    observed = dict(demos.FEATURES["steps"]["observation"])
    for name, feature in demos.PICTURES.items() if pictures else ():
        observed[name] = feature._replace(shape=small.get(name, feature.shape))
    for step in steps:
        step["observation"] = {name: step["observation"][name] for name in observed}
    features = demos.FEATURES | {"steps": demos.FEATURES["steps"] | {"observation": observed}}
    metadata = {"task": "lift", "seed": 0, "episode": 0, "success": True}
    stories = [{"steps": steps, "episode_metadata": metadata}] * episodes
    write_rlds(path, demos.NAME, stories, features)
    return path


@pytest.fixture(scope="module")
def rlds(tmp_path_factory, camera):
    return dataset_of(tmp_path_factory.mktemp("rlds") / "rlds", camera)


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_a_remote_planner_asks_what_the_data_asks(rlds, tmp_path, monkeypatch):
    """Answered by the data, it is led through the data's own conversation to the data's plan."""
    requests = []

    def noted(*about):
        requests.append(about[3])
        return conversation(*about)

    monkeypatch.setattr(planner_data, "conversation", noted)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    write_planner_data(tmp_path / "out", rlds=rlds, episodes=1, validation_share=0.0)
    (line,) = (tmp_path / "out" / "train.jsonl").read_text().splitlines()
    data = json.loads(line)["messages"]
    with Endpoint(lambda messages: data[len(messages)]["content"]) as endpoint:
        plan = RemotePlanner("a-model", endpoint.base_url).plan(requests[0])
    assert [len(body["messages"]) for body in endpoint.requests] == [2, 4]
    for asked, said in zip(endpoint.requests[-1]["messages"], data, strict=False):
        assert asked["role"] == said["role"] and text_of(asked) == text_of(said)
    assert plan.waypoints == parse_plan(data[4]["content"]).waypoints


@pytest.mark.parametrize("form", FORMATS)
def test_a_dataset_with_a_camera(form, rlds, tmp_path, camera):
    figures = write_planner_data(tmp_path / "out", rlds=rlds, form=form)
    assert figures.total == 3 and figures.left_out == {} and figures.hidden == {}
    written = files_of(tmp_path / "out")
    suffix = FORMATS[form].suffix
    texts = [written[f"{part}{suffix}"].decode() for part in ("train", "validation")]
    if form == "llava":
        records = [record for text in texts for record in json.loads(text)]
    else:
        records = [json.loads(line) for text in texts for line in text.splitlines()]
    assert len(records) == 3
    for record in records:
        first, second = texts_of(form, json.dumps(record))
        assert json.loads(first)["anchors"][0]["label"] == "grasp"
        target = parse_plan(second).target
        np.testing.assert_allclose(target.position, [0.02, -0.02, 0.6], atol=1e-3)
        assert target.gripper == 0 and len(json.loads(second)["waypoints"]) <= 6
        if form == "openai":
            (shown, said) = record["messages"][1]["content"]
            png = base64.b64decode(shown["image_url"]["url"].removeprefix("data:image/png;base64,"))
            asked = said["text"]
        else:
            png = written[record["image"] if form == "llava" else record["images"][0]]
            asked = (
                record["conversations"][0]["value"] if form == "llava"
                else record["messages"][1]["content"]
            )
            assert asked.startswith("<image>") and json.dumps(record).count("<image>") == 1
        assert "60 x 40" in asked and "lift the box" in asked
        assert Image.open(io.BytesIO(png)).size == (60, 40)
    card = written["README.md"].decode()
    assert "3 demonstrations" in card and "Apache-2.0" in card and f"--format={form}" in card
    assert str(tmp_path) not in card and Image.open(io.BytesIO(written["examples.png"])).width > 480


def test_anchors_that_an_answer_cannot_hold_are_counted(rlds, tmp_path, monkeypatch):
    def twelve(waypoints, view):
        anchors, _ = anchors_of(waypoints, view)
        return anchors * 12, {"hidden": 1}

    monkeypatch.setattr(planner_data, "anchors_of", twelve)
    figures = write_planner_data(tmp_path / "out", rlds=rlds, episodes=1)
    assert figures.hidden == {"hidden": 1, "more than 10": 2}


def test_a_camera_that_looks_along_minus_z(rlds, tmp_path, camera):
    """The same camera told with OpenGL's axes gives the same data."""
    shipped = load_card("demonstrations").path.read_text()
    card = tmp_path / "gl.toml"
    gl = np.diag([1.0, -1, -1, 1])
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat(camera.T_base_camera.rotation, scalar_first=True).as_matrix()
    pose[:3, 3] = camera.T_base_camera.position
    given = ", ".join(f"{x:.6f}" for x in (pose @ gl).reshape(-1))
    told = shipped.replace(
        'pose_key = "observation/camera_pose"\npose = "T_base_camera"',
        f'T_base_camera = [{given}]\naxes = "opengl"',
    )
    assert told != shipped
    card.write_text(told)
    for name, chosen in (("a", None), ("b", str(card))):
        write_planner_data(tmp_path / name, rlds=rlds, card=chosen, form="qwen")
    one, two = (files_of(tmp_path / name) for name in "ab")
    assert one["train.jsonl"] == two["train.jsonl"]
    for written, named in ((one, b"--card=demonstrations "), (two, b"--card=CARD ")):
        assert named in written["README.md"] and named in written["planner_data.json"]


def test_the_split_is_of_the_name_and_the_seed_alone():
    names = [f"lift_{number:05d}" for number in range(4000)]
    chosen = [is_validation(name, 0, 0.1) for name in names]
    assert 320 < sum(chosen) < 480
    wider = [is_validation(name, 0, 0.3) for name in names]
    assert all(b for a, b in zip(chosen, wider, strict=True) if a)
    assert [is_validation(name, 1, 0.1) for name in names] != chosen
    assert not any(is_validation(name, 0, 0.0) for name in names)
    assert all(is_validation(name, 0, 1.0) for name in names)


def test_existing_data_is_replaced_only_when_told(rlds, tmp_path):
    out = tmp_path / "out"
    write_planner_data(out, rlds=rlds, form="qwen", episodes=1)
    first = files_of(out)
    with pytest.raises(UserError, match="--overwrite"):
        write_planner_data(out, rlds=rlds, form="qwen")
    assert files_of(out) == first
    write_planner_data(out, rlds=rlds, form="qwen", episodes=1, overwrite=True)
    assert files_of(out) == first
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("dear")
    with pytest.raises(UserError, match="choose another path"):
        write_planner_data(foreign, rlds=rlds, overwrite=True)


def test_what_cannot_be_used(rlds, tmp_path, camera):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="cards with one: demonstrations, maniskill"):
        write_planner_data(out, rlds=rlds, card="droid")
    with pytest.raises(UsageError, match="did you mean 'planner'"):
        write_planner_data(out, rlds=rlds, camera="planer")
    with pytest.raises(UsageError, match="did you mean 'lift'"):
        write_planner_data(out, tasks="lfit")
    with pytest.raises(UsageError, match="did you mean 'llava'"):
        write_planner_data(out, rlds=rlds, form="lava")
    blind = dataset_of(tmp_path / "blind", camera, pictures=False, episodes=1)
    with pytest.raises(UserError, match="recorded without pictures"):
        write_planner_data(out, rlds=blind)
    assert not out.exists()


@pytest.mark.parametrize("words", [[], ["--tasks=lift", "--rlds=x"]])
def test_one_source_is_needed(words, capsys, tmp_path):
    status = cli.main(["bridgeact", "planner-data", f"--out={tmp_path / 'out'}", *words])
    assert status == 2 and "either --tasks or --rlds" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(can_render() is not None, reason="no graphics library")
def test_demonstrations_of_tasks(tmp_path, monkeypatch):
    """Each is what it is whichever were made before it, by the same process."""

    def last_first(function, jobs, workers, **_):
        return reversed([function(job) for job in reversed(jobs)])

    for name in ("in order", "last first"):
        write_planner_data(
            tmp_path / name, tasks="reach,lift", episodes=1, form="qwen", size=64, workers=1
        )
        monkeypatch.setattr(planner_data, "map_in_processes", last_first)
    one, two = (files_of(tmp_path / name) for name in ("in order", "last first"))
    assert one == two
    assert {"pictures/reach_00000.png", "pictures/lift_00000.png"} <= one.keys()
    assert json.loads(one["planner_data.json"])["groups"] == {"reach": 1, "lift": 1}
