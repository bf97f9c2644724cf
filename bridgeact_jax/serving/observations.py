"""What clients send, checked: a message becomes a `Request`, or an error that names the key."""

from typing import Any, NamedTuple

import numpy as np

from bridgeact_jax.errors import UserError, nearest
from bridgeact_jax.planning.protocol import NORM_TOLERANCE
from bridgeact_jax.sim.follower import PADDED_WAYPOINTS

KINDS = ("act", "plan", "reset")
MOST_POSES = PADDED_WAYPOINTS - 1  # of a plan, besides the pose it is issued at
MOST_POINTS = 200_000
MOST_PIXELS = 1920 * 1200
FARTHEST = 10.0  # metres from the base; what is beyond is no position in metres

KEYS = {
    "position": "(3,) m, of the tool in the base frame",
    "rotation": "(4,) w x y z, of the tool in the base frame",
    "gripper_width": "(), measured, 0 closed to 1 open; left out or NaN where it is not measured",
    "gripper": "(), as last commanded, 1 = open; left out: as the last answer had it",
    "cloud": "(M, 3) m, base frame, without the robot's own points",
    "depth": "(h, w) m, or uint16 mm, along the optical axis, 0 = unknown, also where the robot is "
    "seen; instead of cloud",
    "intrinsics": "(3, 3) of the depth camera, pixels",
    "camera_pose": "(4, 4) of the depth camera in the base; x right, y down, z forward",
    "image": "(h, w, 3) uint8 of the depth camera, for the server's planner",
    "prompt": "what to do, for the server's planner, asked when it changes",
    "plan": "{position (K, 3), rotation (K, 4), gripper (K,)}: poses to pass from here on",
    "time": "s, of the client's clock, when the pose was measured",
    "sent": "s, of the same clock, when the message was sent",
    "request": "act (left out), plan or reset",
    "seed": "of the samples, with a reset",
}


class Poses(NamedTuple):
    """Poses to pass after the current one: position (K, 3), rotation (K, 4), gripper (K,)."""

    position: np.ndarray
    rotation: np.ndarray
    gripper: np.ndarray

    def same_as(self, other: "Poses | None") -> bool:
        """Whether both are the same to the bit."""
        return other is not None and all(map(np.array_equal, self, other))


class Sight(NamedTuple):
    """A depth camera's view: depth (h, w) m, image (h, w, 3) uint8 or None.

    intrinsics (4,) fx, fy, cx, cy, pixels; T_base_camera (4, 4).
    """

    depth: np.ndarray
    intrinsics: np.ndarray
    T_base_camera: np.ndarray
    image: np.ndarray | None


class Request(NamedTuple):
    """A checked message.

    position (3,) m, rotation (4,) unit wxyz, gripper_width () and cloud (M, 3) m are float32; the
    width is NaN where it is not measured. What was not sent is None.
    """

    kind: str
    position: np.ndarray | None = None
    rotation: np.ndarray | None = None
    gripper_width: float = np.nan
    gripper: float | None = None
    cloud: np.ndarray | None = None
    sight: Sight | None = None
    prompt: str | None = None
    plan: Poses | None = None
    time: float | None = None
    sent: float | None = None
    seed: int | None = None


def parse(message: Any) -> Request:
    """The request of a message. Raises UserError that says which key should be what."""
    if not isinstance(message, dict):
        raise UserError(f"a message is {_kind(message)}: must be a map of {', '.join(KEYS)}")
    for key in message:
        if key not in KEYS:
            raise UserError(f"unknown key {key[:40]!r}: {nearest(key[:40], KEYS)}")
    message = {key: value for key, value in message.items() if value is not None}
    kind = message.get("request", "act")
    if not isinstance(kind, str) or kind not in KINDS:
        raise _wrong("request", repr(kind[:40]) if isinstance(kind, str) else _kind(kind))
    if kind == "reset":
        return Request(kind, seed=_whole(message, "seed"))
    if missing := [key for key in ("position", "rotation") if key not in message]:
        raise UserError(f"no '{missing[0]}': must be {KEYS[missing[0]]}")
    width = _number(message, "gripper_width", 0, 1, nan=True)
    return Request(
        kind,
        _position(message["position"]),
        _rotation(message["rotation"]),
        np.float32(np.nan if width is None else width),
        _number(message, "gripper", 0, 1),
        _cloud(message["cloud"]) if "cloud" in message else None,
        _sight(message) if "depth" in message else None,
        _prompt(message["prompt"]) if "prompt" in message else None,
        _plan(message["plan"]) if "plan" in message else None,
        _number(message, "time", -1e12, 1e12),
        _number(message, "sent", -1e12, 1e12),
    )


def _wrong(key: str, what: str) -> UserError:
    top = key.partition(".")[0]
    return UserError(f"'{key}' is {what}: must be {KEYS[top]}")


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} {value.dtype}"
    return f"a {type(value).__name__}"


def _array(key: str, value: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """Finite float64 of a shape; None stands for any size."""
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise _wrong(key, _kind(value)) from None
    fits = array.ndim == len(shape) and all(
        size in (None, own) for size, own in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise _wrong(key, f"of shape {array.shape}")
    if not np.isfinite(array).all():
        raise _wrong(key, "not finite")
    return array


def _position(value: Any, key: str = "position") -> np.ndarray:
    position = _array(key, value, (3,) if key == "position" else (None, 3))
    if len(position) and np.abs(position).max() > FARTHEST:
        raise _wrong(key, f"up to {np.abs(position).max():.4g}, more than {FARTHEST:g} m away")
    return position.astype(np.float32)


def _rotation(value: Any, key: str = "rotation") -> np.ndarray:
    rotation = _array(key, value, (4,) if key == "rotation" else (None, 4))
    norm = np.linalg.norm(rotation, axis=-1, keepdims=True)
    if np.any(np.abs(norm - 1) > NORM_TOLERANCE):
        raise _wrong(key, f"a quaternion of length {norm.flat[np.abs(norm - 1).argmax()]:.3g}")
    exact = np.abs(norm - 1) < 1e-6  # as it came, to the bit
    return np.where(exact, rotation, rotation / norm).astype(np.float32)


def _number(
    message: dict, key: str, low: float, high: float, *, nan: bool = False
) -> float | None:
    if key not in message:
        return None
    value = message[key]
    if not isinstance(value, bool | int | float | np.ndarray | np.generic) or np.size(value) != 1:
        raise _wrong(key, _kind(value))
    number = float(np.reshape(value, ()))
    if not (low <= number <= high or (nan and np.isnan(number))):
        raise _wrong(key, f"{number:.6g}")
    return number


def _whole(message: dict, key: str) -> int | None:
    value = _number(message, key, 0, 2**31 - 1)
    if value is not None and value != int(value):
        raise _wrong(key, f"{value:.6g}, no whole number")
    return None if value is None else int(value)


def _prompt(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _wrong("prompt", "empty" if isinstance(value, str) else _kind(value))
    return value


def _cloud(value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.shape[1] != 3:
        raise _wrong("cloud", _kind(value))
    if value.dtype.kind != "f" or len(value) > MOST_POINTS:
        raise _wrong("cloud", f"{_kind(value)}, not floating point of at most {MOST_POINTS} rows")
    with np.errstate(over="ignore"):  # too far for float32 is far
        return value.astype(np.float32)


def _sight(message: dict) -> Sight:
    depth = message["depth"]
    if not isinstance(depth, np.ndarray) or depth.ndim != 2 or not 0 < depth.size <= MOST_PIXELS:
        raise _wrong("depth", _kind(depth))
    if depth.dtype.kind == "f":
        metres = depth.astype(np.float32)
    elif depth.dtype == np.uint16:
        metres = depth.astype(np.float32) / 1000
    else:
        raise _wrong("depth", _kind(depth))
    for key in ("intrinsics", "camera_pose"):
        if key not in message:
            raise UserError(f"'depth' without '{key}': must be {KEYS[key]}")
    matrix = _array("intrinsics", message["intrinsics"], (3, 3))
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise _wrong("intrinsics", f"with focal lengths {matrix[0, 0]:.4g}, {matrix[1, 1]:.4g}")
    T_base_camera = _array("camera_pose", message["camera_pose"], (4, 4))
    turn = T_base_camera[:3, :3]
    if np.abs(turn @ turn.T - np.eye(3)).max() > 0.01 or np.linalg.det(turn) < 0:
        raise _wrong("camera_pose", "no rotation and translation")
    image = message.get("image")
    if image is not None and (
        not isinstance(image, np.ndarray)
        or image.shape != (*depth.shape, 3)
        or image.dtype != np.uint8
    ):
        raise _wrong("image", f"{_kind(image)} beside a depth of {depth.shape}")
    return Sight(metres, matrix[[0, 1, 0, 1], [0, 1, 2, 2]], T_base_camera, image)


def _plan(value: Any) -> Poses:
    if not isinstance(value, dict) or set(value) != set(Poses._fields):
        what = f"a map of {len(value)} other keys" if isinstance(value, dict) else _kind(value)
        raise _wrong("plan", what)
    poses = Poses(
        _position(value["position"], "plan.position"),
        _rotation(value["rotation"], "plan.rotation"),
        _array("plan.gripper", value["gripper"], (None,)).astype(np.float32),
    )
    if not 1 <= len(poses.position) <= MOST_POSES:
        raise _wrong("plan", f"of {len(poses.position)} poses, not 1 to {MOST_POSES}")
    if len({len(column) for column in poses}) > 1:
        raise _wrong("plan", f"of {', '.join(str(len(column)) for column in poses)} rows")
    if np.any((poses.gripper < 0) | (poses.gripper > 1)):
        raise _wrong("plan.gripper", "not from 0 to 1")
    return poses
