"""Depth of a plane and a box, rendered by intersecting rays, must come back as their surface."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from bridgeact_jax.datasets import depth_clouds
from bridgeact_jax.datasets.bind import bind_card
from bridgeact_jax.datasets.card_format import Camera
from bridgeact_jax.datasets.cards import load_card
from bridgeact_jax.datasets.episode import RejectedEpisode
from bridgeact_jax.datasets.interpret import interpret_episode
from bridgeact_jax.datasets.rlds_reader import open_rlds
from bridgeact_jax.errors import UserError
from bridgeact_jax.geometry import clouds

STEPS, WIDTH, HEIGHT = 3, 160, 120
FX, FY, CX, CY = 150.0, 145.0, 81.5, 58.0
BOX_LOW, BOX_HIGH = np.array([0.28, -0.07, 0.0]), np.array([0.38, 0.05, 0.08])
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
HALF_FLOAT = 5e-4  # m: half the spacing of float16 between 0.5 and 1, per axis


def look_at(eye, target):
    """4x4 pose of a camera: x right, y down, z forward."""
    forward = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=-1)
    pose[:3, 3] = eye
    return pose


POSE = look_at([0.35, -0.5, 0.45], [0.33, 0.0, 0.03])
SIDE = look_at([0.85, 0.1, 0.3], [0.33, 0.0, 0.03])


def render(pose):
    """(HEIGHT, WIDTH) metres along the optical axis to the plane z = 0 or the box; 0 where none."""
    depth = np.zeros((HEIGHT, WIDTH))
    for row in range(HEIGHT):
        for column in range(WIDTH):
            ray = pose[:3, :3] @ [(column - CX) / FX, (row - CY) / FY, 1.0]
            hits = [-pose[2, 3] / ray[2]] if ray[2] < 0 else []
            first, second = (BOX_LOW - pose[:3, 3]) / ray, (BOX_HIGH - pose[:3, 3]) / ray
            enter, leave = np.minimum(first, second).max(), np.maximum(first, second).min()
            hits += [enter] if 0 < enter < leave else []
            depth[row, column] = min(hits, default=0.0)
    return depth


DEPTH, SIDE_DEPTH = render(POSE), render(SIDE)


def to_surface(points):
    """(N,) distance to the plane z = 0 or to the box's surface, the nearer."""
    outside = np.linalg.norm(np.maximum(0, np.maximum(BOX_LOW - points, points - BOX_HIGH)), axis=1)
    inside = np.minimum(points - BOX_LOW, BOX_HIGH - points).min(axis=1)
    box = np.where(outside > 0, outside, np.abs(inside))
    return np.minimum(np.abs(points[:, 2]), box)


def png(pixels):
    data = io.BytesIO()
    if pixels.dtype == np.float32:
        pixels = pixels[..., None].view(np.uint8)
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def picture(dtype, channels=1):
    return {"image": {"shape": {"dimensions": [str(HEIGHT), str(WIDTH), str(channels)]},
                      "dtype": dtype, "encodingFormat": "png"}}  # fmt: skip


class Case:
    """A dataset of one episode with columns of a camera, and its card."""

    def __init__(self, rlds, toy, folder):
        self.rlds, self.toy, self.folder = rlds, toy, folder

    def __call__(self, extra, table, pictures=()):
        """extra: {key: (dtype, shape, values)}; pictures: {key: feature of features.json}."""
        columns = self.toy.columns(0, STEPS)
        shapes = dict(self.toy.shapes)
        for key, (dtype, shape, values) in extra.items():
            shapes[key] = (dtype, shape, "none")
            columns[f"steps/{key}"] = values
        self.rlds.write([columns], shapes)
        path = self.rlds.directory / "features.json"
        features = json.loads(path.read_text())
        leaves = features["featuresDict"]["features"]["steps"]["sequence"]["feature"]
        leaves = leaves["featuresDict"]["features"]["observation"]["featuresDict"]["features"]
        for key, feature in dict(pictures).items():
            leaves[key] = feature
        path.write_text(json.dumps(features))
        card = self.folder / "camera.toml"
        card.write_text(self.toy.card_text + table)
        self.dataset, self.card = open_rlds(self.rlds.directory), load_card(card)
        return self

    def clouds(self, index=0):
        keys = bind_card(self.card, self.dataset)
        keys |= depth_clouds.cloud_keys(self.card, self.dataset)
        (columns,) = self.dataset.episodes("train", set(keys.values()))
        episode = interpret_episode(self.card, keys, columns, index)
        self.position = episode.position
        return depth_clouds.episode_clouds(self.card, keys, columns, episode)


@pytest.fixture
def case(rlds, toy, tmp_path):
    return Case(rlds, toy[2], tmp_path)


def numbers(matrix):
    return ", ".join(f"{value:.17g}" for value in np.ravel(matrix))


def camera(name="front", depth="observation/depth", scale=0.001, more="", pose=POSE,
           axes="opencv", intrinsics=f"intrinsics = [{FX}, {FY}, {CX}, {CY}]"):  # fmt: skip
    fixed = "" if pose is None else f"T_base_camera = [{numbers(pose)}]"
    return f"""
[[cameras]]
name = "{name}"
depth = "{depth}"
depth_scale = {scale}
{intrinsics}
{fixed}
axes = "{axes}"
claim = "documented"
{more}
"""


def millimetres(depth):
    return np.round(1000 * depth).astype(np.uint16)


def as_png(pixels):
    return ("string", (), [png(pixels)] * STEPS)


def check_scene(cloud, position, tolerance, edge=0.01):
    """Every point on a surface, the box's top seen from edge to edge, the table bounded."""
    assert cloud.shape == (STEPS, 2048, 3) and cloud.dtype == np.float16
    for points, centre in zip(cloud.astype(np.float64), position, strict=True):
        assert to_surface(points).max() < tolerance
        assert np.linalg.norm(points - centre, axis=1).max() <= depth_clouds.RADIUS + 1e-3
        on_box = (points[:, 2] > 0.01).mean()
        assert 0.7 < on_box <= 1.0, "the table has at most a quarter"
        assert (points[:, 2] < 0.005).mean() > 0.2
        top = points[np.abs(points[:, 2] - BOX_HIGH[2]) < 2e-3]
        for axis in range(2):
            low, high = BOX_LOW[axis], BOX_HIGH[axis]
            np.testing.assert_allclose(top[:, axis].min(), low, atol=edge)
            np.testing.assert_allclose(top[:, axis].max(), high, atol=edge)


QUANTISED = 0.5e-3 * 1.3 + 2 * HALF_FLOAT  # half a millimetre along a ray, and float16


@pytest.mark.parametrize("axes", ["opencv", "opengl"])
@pytest.mark.parametrize("direction", ["card", "T_base_camera", "T_camera_base"])
def test_conventions(case, axes, direction):
    pose = POSE @ FLIP if axes == "opengl" else POSE
    extra = {"observation/depth": as_png(millimetres(DEPTH))}
    fixed, more = pose, ""
    if direction != "card":
        column = pose if direction == "T_base_camera" else np.linalg.inv(pose)
        extra["observation/pose"] = ("float32", (4, 4), np.tile(column.ravel(), STEPS))
        fixed, more = None, f'pose_key = "observation/pose"\npose = "{direction}"'
    table = camera(pose=fixed, axes=axes, more=more)
    case(extra, table, {"depth": picture("uint16")})
    check_scene(case.clouds(), case.position, QUANTISED)


def test_a_picture_of_floats(case):
    extra = {"observation/depth": as_png(DEPTH.astype(np.float32))}
    case(extra, camera(scale=1.0), {"depth": picture("float32")})
    check_scene(case.clouds(), case.position, 2 * HALF_FLOAT)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (HEIGHT, WIDTH, 1)])
def test_numbers(case, dtype, shape):
    depth = DEPTH.copy() if dtype == "float32" else millimetres(DEPTH)
    values = np.tile(depth.ravel(), STEPS)
    case({"observation/depth": (dtype, shape, values)},
         camera(scale=1.0 if dtype == "float32" else 0.001))  # fmt: skip
    check_scene(case.clouds(), case.position, QUANTISED)


def test_intrinsics_and_pose_as_columns(case):
    matrix = np.array([[FX, 0, CX], [0, FY, CY], [0, 0, 1]])
    extra = {
        "observation/depth": as_png(np.round(1024 * DEPTH).astype(np.uint16)),
        "observation/matrix": ("float32", (3, 3), np.tile(matrix.ravel(), STEPS)),
        "observation/to_camera": ("float32", (4, 4),
                                  np.tile(np.linalg.inv(POSE).ravel(), STEPS)),
    }  # fmt: skip
    table = camera(
        scale=1 / 1024,
        pose=None,
        intrinsics='intrinsics_key = "observation/matrix"',
        more='pose_key = "observation/to_camera"\npose = "T_camera_base"',
    )
    case(extra, table, {"depth": picture("uint16")})
    check_scene(case.clouds(), case.position, QUANTISED)


def test_unknown_depth_is_left_out(case):
    depth = DEPTH.astype(np.float32)
    depth[:, ::3] = np.nan
    depth[::4] = 0.0
    depth[1::7] = 9.0
    depth[2::7] = np.inf
    extra = {"observation/depth": ("float32", (HEIGHT, WIDTH), np.tile(depth.ravel(), STEPS))}
    case(extra, camera(scale=1.0, more="max_depth = 3.0"))
    check_scene(case.clouds(), case.position, 2 * HALF_FLOAT, edge=0.03)


def test_two_cameras_see_more_sides(case):
    extra = {
        "observation/depth": as_png(millimetres(DEPTH)),
        "observation/side": as_png(millimetres(SIDE_DEPTH)),
    }
    table = camera() + camera("side", "observation/side", pose=SIDE)
    case(extra, table, {"depth": picture("uint16"), "side": picture("uint16")})
    cloud = case.clouds()
    check_scene(cloud, case.position, QUANTISED)
    for axis, face in ((0, BOX_HIGH[0]), (1, BOX_LOW[1])):
        points = cloud[0].astype(np.float64)
        assert ((np.abs(points[:, axis] - face) < 1e-3) & (points[:, 2] > 0.01)).sum() > 100


def test_large_pictures_are_thinned():
    column, row = np.meshgrid(np.arange(640), np.arange(480))
    rays = np.stack([(column - 300) / 500, (row - 250) / 500, np.ones_like(row)], -1)
    depth = -POSE[2, 3] / (rays @ POSE[2, :3])
    front = Camera(
        name="front", depth="", depth_scale=1.0, intrinsics=None, intrinsics_key=None,
        T_base_camera=None, pose_key=None, pose=None, axes="opencv", max_depth=None,
        claim="assumed", note="",
    )  # fmt: skip
    points = depth_clouds.lift(front, depth, np.array([500, 500, 300, 250]), POSE)
    assert depth_clouds.MOST_PIXELS / 3 < len(points) <= depth_clouds.MOST_PIXELS
    assert np.abs(points[:, 2]).max() < 1e-5


def test_seeded_by_index_and_step(case):
    extra = {"observation/depth": as_png(millimetres(DEPTH))}
    case(extra, camera(), {"depth": picture("uint16")})
    first, again, other = case.clouds(), case.clouds(), case.clouds(index=1)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first[0] != first[1]).any()


def test_an_empty_cloud_is_an_empty_crop(case):
    import jax

    extra = {"observation/depth": as_png(np.zeros((HEIGHT, WIDTH), np.uint16))}
    case(extra, camera(), {"depth": picture("uint16")})
    cloud = case.clouds()
    assert (cloud == depth_clouds.FAR).all()
    points, mask = clouds.crop(jax.random.key(0), cloud[0], case.position[0], 0.3, 128)
    assert not mask.any() and (points == 0).all()


@pytest.mark.parametrize("count", [1, 5, 512, 5000])
def test_recorded_points(case, count):
    points = np.random.default_rng(0).uniform(-500, 500, (STEPS, count, 3)).astype(np.float32)
    points[1, 0] = np.nan
    table = '\n[cloud]\nkey = "observation/points"\nscale = 0.001\nclaim = "documented"\n'
    case({"observation/points": ("float32", (count, 3), points)}, table)
    cloud = case.clouds()
    assert cloud.shape == (STEPS, 2048, 3) and cloud.dtype == np.float16
    for step in range(STEPS):
        known = points[step][np.isfinite(points[step]).all(axis=1)]
        if not len(known):
            assert (cloud[step] == depth_clouds.FAR).all()
            continue
        rows = {tuple(row) for row in (known * np.float32(0.001)).astype(np.float16)}
        found, often = np.unique(cloud[step], axis=0, return_counts=True)
        assert {tuple(row) for row in found} <= rows
        assert len(found) == min(len(rows), 2048)
        assert np.ptp(often) <= 1


def test_a_recorded_cloud_of_the_right_size_is_copied(case):
    points = np.random.default_rng(0).uniform(0, 1, (STEPS, 2048, 3)).astype(np.float32)
    table = '\n[cloud]\nkey = "observation/points"\nclaim = "documented"\n'
    case({"observation/points": ("float32", (2048, 3), points)}, table)
    np.testing.assert_array_equal(case.clouds(), points.astype(np.float16))


def test_a_damaged_picture_rejects_the_episode(case):
    good = png(millimetres(DEPTH))
    for bad in (b"", b"no picture", good[: len(good) // 2], png(np.zeros((4, 4, 3), np.uint8))):
        case({"observation/depth": ("string", (), [good, bad, good])}, camera(),
             {"depth": picture("uint16")})  # fmt: skip
        with pytest.raises(RejectedEpisode, match="depth picture"):
            case.clouds()


def test_what_cannot_be_lifted_is_refused(case):
    extra = {"observation/depth": as_png(millimetres(DEPTH))}
    case(extra, "", {"depth": picture("uint16")})
    with pytest.raises(UserError, match=r"neither \[cloud\] nor \[\[cameras\]\]"):
        case.clouds()
    case(extra, camera(pose=None, intrinsics=""), {"depth": picture("uint16")})
    with pytest.raises(UserError, match="camera front lacks intrinsics and pose"):
        case.clouds()
    case(extra, camera(), {"depth": picture("uint8", 3)})
    with pytest.raises(UserError, match="a depth picture's would be"):
        case.clouds()
    case(extra, camera(depth="observation/dept"), {"depth": picture("uint16")})
    with pytest.raises(UserError, match="observation/dept"):
        case.clouds()


def test_pictures_are_declared(case):
    case({"observation/depth": as_png(millimetres(DEPTH))}, camera(), {"depth": picture("uint16")})
    spec = case.dataset.find_column("observation/depth")
    assert (spec.dtype, spec.pixel, spec.encoding) == ("image", "uint16", "png")
    assert spec.shape == (HEIGHT, WIDTH, 1)
