"""What a dataset's card says; data/README.md explains the tables of its TOML file."""

import pathlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """Numbers of one column: `key` relative to a step; `slice` of its flattened values."""

    key: str
    slice: slice
    claim: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Position(Column):
    """x, y, z in the base frame, in units of `scale` metres.

    convention "xyz", or "matrix": the translation of a homogeneous transform of 16 numbers, whose
    `order` is "row", "column" or "detect" (per episode, from where its 0, 0, 0, 1 lies).
    low_key, high_key: columns between which x, y, z are normalised to [0, 1], or None.
    """

    scale: float = 1.0
    convention: str = "xyz"
    order: str = ""
    low_key: str | None = None
    high_key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rotation(Column):
    """Orientation of the tool in the base frame.

    convention and its `order`: "quaternion" (wxyz or xyzw), "euler" (extrinsic or intrinsic, about
    `axes` in that order), "axis_angle" (rotation vector), "matrix" (row- or column-major: 9 numbers
    of a rotation, or 16 of a homogeneous transform, which also "detect").
    Angles are in `scale` times `unit` ("rad" or "deg").
    turned: None, or the quaternion wxyz by which the dataset multiplied the orientation from the
      left; it is undone.
    """

    convention: str
    order: str = ""
    axes: str = ""
    unit: str = "rad"
    scale: float = 1.0
    turned: tuple[float, ...] | None = None

    @property
    def yaw_only(self) -> bool:
        """Only a turn about the base's z axis is recorded."""
        return self.convention == "euler" and self.axes == "z"


@dataclass(frozen=True, kw_only=True)
class RotationAction(Rotation):
    """A logged command to rotate, "euler" or "axis_angle", about axes of `frame`.

    frame: "base", "tool" or "unknown". Never converted: it only tests the claim of [rotation].
    """

    frame: str


@dataclass(frozen=True, kw_only=True)
class Gripper(Column):
    """One number, linear from `closed` to `open`.

    source "command": what was commanded. "width": the measured opening, binarised with hysteresis:
    the state becomes open above `thresholds[1]` of the range and closed below `thresholds[0]`.
    "change": commands that hold until the next one, told from "no change" by the same thresholds.
    """

    source: str
    closed: float
    open: float
    thresholds: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Width(Column):
    """One number, linear from `closed` to `open`."""

    closed: float
    open: float


@dataclass(frozen=True)
class Clock:
    """Steps at `hz`, or at the times of column `key`, in units of `scale` seconds."""

    hz: float | None
    key: str | None
    scale: float
    claim: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Cloud(Column):
    """(N, 3) points a step in the base frame, in units of `scale` metres."""

    scale: float


@dataclass(frozen=True)
class Camera:
    """A depth camera. Keys are relative to a step; what is not known is None.

    depth: column of depth pictures, in units of `depth_scale` metres; nothing beyond `max_depth` m.
    intrinsics: fx, fy, cx, cy in pixels, or the 3x3 column `intrinsics_key`.
    T_base_camera: 16 numbers, row by row, of the camera's pose in the base, or the 4x4 row-major
      column `pose_key`, which holds what `pose` says: "T_base_camera" or "T_camera_base".
    axes: of the camera: "opencv" (z forward, y down) or "opengl" (z backward, y up).
    picture: column of its colour pictures, as large as the depth pictures.
    """

    name: str
    depth: str
    depth_scale: float | None
    intrinsics: tuple[float, float, float, float] | None
    intrinsics_key: str | None
    T_base_camera: tuple[float, ...] | None
    pose_key: str | None
    pose: str | None
    axes: str
    max_depth: float | None
    claim: str
    note: str
    picture: str | None = None

    @property
    def lacks(self) -> tuple[str, ...]:
        """What keeps its depth from being lifted to points: none of these is known."""
        known = {
            "depth_scale": self.depth_scale is not None,
            "intrinsics": self.intrinsics is not None or self.intrinsics_key is not None,
            "pose": self.T_base_camera is not None or self.pose_key is not None,
        }
        return tuple(name for name, there in known.items() if not there)

    def columns(self) -> dict[str, str]:
        """{"depth", "intrinsics", "pose": key} of those that are columns; for a cloud."""
        keys = {"depth": self.depth, "intrinsics": self.intrinsics_key, "pose": self.pose_key}
        return {name: key for name, key in keys.items() if key is not None}


@dataclass(frozen=True)
class Limits:
    """What a plausible episode keeps.

    reach: largest coordinate of a position, m; speed: m/s; turn: rad/s.
    """

    reach: float = 2.5
    speed: float = 3.0
    turn: float = 12.0


@dataclass(frozen=True, kw_only=True)
class Card:
    """A dataset's card. Absent tables are None: no such column, or not known.

    refused: why the dataset cannot be converted; then there are no tables. Otherwise None, and
    `position` and `clock` are there.
    """

    name: str
    title: str
    dataset_names: tuple[str, ...]
    robot: str
    licence: str
    homepage: str
    citation: str
    path: pathlib.Path
    sha256: str
    refused: str | None = None
    position: Position | None = None
    rotation: Rotation | None = None
    gripper: Gripper | None = None
    gripper_width: Width | None = None
    clock: Clock | None = None
    instruction: Column | None = None
    cloud: Cloud | None = None
    cameras: tuple[Camera, ...] = ()
    rotation_action: RotationAction | None = None
    limits: Limits = Limits()
    base_z_up: bool = False
    tool_frame: str | None = None

    @property
    def recorded(self) -> dict[str, Any]:
        """What the dataset holds: {"rotation": "full", "yaw" or "none", "gripper": bool,
        "gripper_width": bool}. The rest is filled: identity, 1 and NaN."""
        rotation = "none" if self.rotation is None else "full"
        if self.rotation is not None and self.rotation.yaw_only:
            rotation = "yaw"
        return {
            "rotation": rotation,
            "gripper": self.gripper is not None,
            "gripper_width": self.gripper_width is not None,
        }

    def columns(self) -> dict[str, Column]:
        """The columns conversion reads, by table; "clock" only if it is one.

        The bounds of the position are "position_low" and "position_high". Cameras are not among
        them.
        """
        tables = {
            name: getattr(self, name)
            for name in ("position", "rotation", "gripper", "gripper_width", "instruction",
                         "cloud", "rotation_action")
        }
        columns = {name: column for name, column in tables.items() if column is not None}
        if self.position is not None and self.position.low_key is not None:
            rest = (self.position.slice, self.position.claim, self.position.note)
            columns["position_low"] = Column(self.position.low_key, *rest)
            columns["position_high"] = Column(self.position.high_key, *rest)
        if self.clock is not None and self.clock.key is not None:
            columns["clock"] = Column(
                self.clock.key, slice(None), self.clock.claim, self.clock.note
            )
        return columns
