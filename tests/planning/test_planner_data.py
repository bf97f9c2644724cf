"""Fine-tuning data of whole datasets: what is written, counted, kept and refused."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from bridgeact_jax import cli
from bridgeact_jax.datasets.cards import load_card
from bridgeact_jax.datasets.rlds_writer import write_rlds
from bridgeact_jax.errors import UsageError, UserError
from bridgeact_jax.evaluation.films import can_render
from bridgeact_jax.planning import planner_data
from bridgeact_jax.planning.anchors import anchors_of
from bridgeact_jax.planning.answers import parse_plan
from bridgeact_jax.planning.conversations import FORMATS, conversation
from bridgeact_jax.planning.data_files import is_validation
from bridgeact_jax.planning.planner_data import write_planner_data
from bridgeact_jax.planning.remote import RemotePlanner
from bridgeact_jax.sim import demos
from tests.planning.endpoint import Endpoint, text_of
from tests.planning.seen import BOX, DOWN, depth_of_box, texts_of


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
