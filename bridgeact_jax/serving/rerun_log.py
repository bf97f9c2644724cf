"""What a robot saw and was told, as a file for the Rerun viewer: `rerun FILE.rrd`.

Every stream is a tree of its own: cloud, guidance, chunk and path in the base frame, metres.
"""

import os
from collections import deque
from pathlib import Path

import numpy as np

from bridgeact_jax.errors import UserError

TRAIL = 600  # poses of the path that are shown, at most: a minute
APPLICATION = "bridgeact_jax"
_GREY, _GREEN, _RED = (150, 150, 150), (60, 170, 60), (210, 50, 50)
_OPEN, _CLOSED = (40, 110, 230), (250, 150, 30)  # of a chunk's rows, by their gripper


class RerunLog:
    """Writes `path` step by step; to be used by one thread. A context manager.

    Raises UserError if rerun-sdk is not installed or the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike):
        try:
            import rerun
        except ImportError:
            raise UserError(
                "a .rrd log needs the package rerun-sdk: `.venv/bin/uv pip install -e '.[rerun]'`"
            ) from None
        path = Path(path)
        if path.suffix != ".rrd":
            raise UserError(f"{path}: must end in .rrd")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("wb").close()
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from None
        self._rerun = rerun
        self._recording = rerun.RecordingStream(APPLICATION)
        self._recording.save(path)
        self._recording.log("/", rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        self._trails: dict[str, deque] = {}
        self._guidance: dict[str, np.ndarray | None] = {}

    def step(
        self,
        stream: str,
        number: int,
        *,
        time: float | None,
        position: np.ndarray,
        cloud: np.ndarray | None = None,
        colours: np.ndarray | None = None,
        guidance: np.ndarray | None = None,
        actions: np.ndarray | None = None,
    ) -> None:
        """One observation and what was answered; positions are metres in the base frame.

        Args:
          stream: the robot's name; number: of the step; time: seconds by the robot's clock.
          position: (3,) of the tool. cloud: (M, 3), with colours (M, 3) uint8 if they are known.
          guidance: (P, 3) points of the curve; None for no plan. actions: (H, 8) as sent.
        """
        rerun = self._rerun
        self._at(number, time)
        trail = self._trails.setdefault(stream, deque(maxlen=TRAIL))
        trail.append(np.asarray(position, np.float32))
        self._log([stream, "path"], rerun.LineStrips3D([np.stack(trail)], colors=[_RED]))
        self._log([stream, "tool"], rerun.Points3D([trail[-1]], colors=[_RED], radii=0.006))
        if cloud is not None:
            cloud = np.asarray(cloud, np.float32)
            finite = np.isfinite(cloud).all(axis=1)
            shades = [_GREY] if colours is None else colours[finite]
            self._log([stream, "cloud"], rerun.Points3D(cloud[finite], colors=shades, radii=0.0015))
        if stream not in self._guidance or not _same(self._guidance[stream], guidance):
            self._guidance[stream] = guidance
            curve = [] if guidance is None else [np.asarray(guidance, np.float32)]
            self._log([stream, "guidance"], rerun.LineStrips3D(curve, colors=[_GREEN]))
        self._chunk(stream, actions)

    def picture(
        self,
        stream: str,
        number: int,
        *,
        time: float | None,
        depth: np.ndarray,
        intrinsics: np.ndarray,
        camera_pose: np.ndarray,
        image: np.ndarray | None = None,
    ) -> None:
        """What the camera measured: `depth` (h, w) uint16 mm or metres, `image` (h, w, 3) uint8.

        Args:
          intrinsics: (3, 3) pixels. camera_pose: (4, 4) T_base_camera, x right, y down, z ahead.
        """
        rerun = self._rerun
        height, width = depth.shape
        self._at(number, time)
        pose = rerun.Transform3D(translation=camera_pose[:3, 3], mat3x3=camera_pose[:3, :3])
        self._log([stream, "camera"], pose)
        pinhole = rerun.Pinhole(
            image_from_camera=intrinsics, width=width, height=height, image_plane_distance=0.1
        )
        self._log([stream, "camera"], pinhole)
        meter = 1000.0 if depth.dtype == np.uint16 else 1.0
        self._log([stream, "camera", "depth"], rerun.DepthImage(depth, meter=meter))
        if image is not None:
            self._log([stream, "camera", "image"], rerun.Image(image).compress(jpeg_quality=85))

    def close(self) -> None:
        """Write what is left."""
        self._recording.flush()
        self._recording.disconnect()

    def __enter__(self) -> "RerunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _at(self, number: int, time: float | None) -> None:
        self._recording.set_time("step", sequence=number)
        if time is not None:
            self._recording.set_time("robot", duration=time)

    def _chunk(self, stream: str, actions: np.ndarray | None) -> None:
        if actions is None:
            rows = self._rerun.Points3D([])
        else:
            shades = [_OPEN if gripper > 0.5 else _CLOSED for gripper in actions[:, 7]]
            rows = self._rerun.Points3D(actions[:, :3], colors=shades, radii=0.004)
        self._log([stream, "chunk"], rows)

    def _log(self, entity: list[str], value: object) -> None:
        self._recording.log(entity, value)


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is other or (one is not None and other is not None and np.array_equal(one, other))
