"""Drawings of what the worlds hold, without a simulator: sheets with writing, cards and toys.

They are drawn in the perspective of `sim.front_camera` and in its size, in colours and light that
vary; places are metres on the table, base frame.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from bridgeact_jax.sim.front_camera import SIZE, pixel_of
from bridgeact_jax.sim.objects import BOX, COLOURS
from bridgeact_jax.sim.tasks.math_matching import CARD
from bridgeact_jax.sim.tasks.toy_placement import SHAPES

FINER = 3  # times finer than they become are pictures drawn
TABLE = np.array([253.0, 215.0, 166.0])
SHADE = 0.12  # of the table's and the things' brightness, to either side
OTHER_GROUND = 0.3  # share of the drawings on another colour than the table's
ROUND = np.linspace(0, 2 * np.pi, 24, endpoint=False)
UP, TOWARDS, ASIDE = 1.15, 0.72, 0.9  # brightness of a thing's faces


class Drawing:
    """A drawing under way; later things cover earlier ones.

    Args:
      rng: for the ground and the light.
    """

    def __init__(self, rng: np.random.Generator):
        self._rng = rng
        ground = TABLE if rng.uniform() > OTHER_GROUND else rng.uniform(110, 250, 3)
        near, far = ground * (1 + SHADE * rng.uniform(-1, 1, (2, 1)))
        rows = np.linspace(0, 1, FINER * SIZE[0])[:, None, None]
        shape = (FINER * SIZE[0], FINER * SIZE[1], 3)
        shaded = np.broadcast_to(far + (near - far) * rows, shape)
        self._picture = Image.fromarray(np.clip(shaded, 0, 255).astype(np.uint8))

    def picture(self) -> np.ndarray:
        """(*SIZE, 3) uint8."""
        return np.asarray(self._picture.resize(SIZE[::-1], Image.Resampling.BOX))

    def sheet(self, corners: np.ndarray, writing: np.ndarray) -> None:
        """Put writing (h, w, 3) uint8 on a sheet.

        Args:
          corners: (4, 2) pixels of its upper left, upper right, lower right and lower left corner.
        """
        height, width = writing.shape[:2]
        there = _finer(corners)
        own = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
        size, mask = self._picture.size, Image.new("L", (width, height), 255)
        back = _perspective(there, own)
        warp = Image.Transform.PERSPECTIVE, back, Image.Resampling.BILINEAR
        self._picture.paste(
            Image.fromarray(writing).transform(size, *warp), (0, 0), mask.transform(size, *warp)
        )

    def card(self, xy: np.ndarray, yaw: float, scale: float, writing: np.ndarray) -> None:
        """A standing card at (2,) metres, of `CARD` times `scale`, with writing on its face."""
        depth, width, height = scale * np.array(CARD)
        corners = _turned(xy, yaw, [(depth, y, 0.0) for y in (-width, width, width, -width)])
        corners[:, 2] = [2 * height, 2 * height, 0, 0]
        behind = _turned(xy, yaw, [(-depth, -width, 0.0), (-depth, width, 0.0)])
        behind[:, 2] = 2 * height
        self._face(np.concatenate([behind, corners[1::-1]]), np.full(3, 235.0), UP)
        self.sheet(pixel_of(corners), writing)

    def toy(
        self, colour: str, shape: str, xy: np.ndarray, yaw: float, scale: float, on: float = 0.0
    ) -> float:
        """A toy at (2,) metres, `on` metres above the table; returns the height of its top."""
        kind, size = SHAPES[shape]
        size, base = scale * np.array(size), 255 * np.array(COLOURS[colour][:3])
        top = on + 2 * size[-1]
        if kind == BOX:
            (x, y), levels = size[:2], (on, top)
            outline = [(-x, -y), (-x, y), (x, y), (x, -y)]
        else:
            levels = on, top
            outline = [(size[0] * np.cos(a), size[0] * np.sin(a)) for a in ROUND]
        low, high = (_turned(xy, yaw, [(*point, z) for point in outline]) for z in levels)
        middle = low.mean(axis=0)
        for i in range(len(low)):
            j = (i + 1) % len(low)
            outwards = (low[i] + low[j]) / 2 - middle
            if outwards[0] > 0:  # towards the camera
                lean = outwards[0] / np.linalg.norm(outwards)
                light = TOWARDS * lean + ASIDE * (1 - lean)
                self._face(np.array([low[i], low[j], high[j], high[i]]), base, light)
        self._face(high, base, UP)
        return top

    def _face(self, points: np.ndarray, colour: np.ndarray, light: float) -> None:
        shade = light * (1 + SHADE / 2 * self._rng.uniform(-1, 1))
        fill = tuple(np.clip(shade * colour, 0, 255).astype(int).tolist())
        outline = [tuple(point) for point in _finer(pixel_of(points)).tolist()]
        ImageDraw.Draw(self._picture).polygon(outline, fill=fill)


def _turned(xy: np.ndarray, yaw: float, points: Sequence) -> np.ndarray:
    """(n, 3) points of a thing's own frame, put at (2,) metres and turned about the vertical."""
    points, (cos, sin) = np.array(points, float), (np.cos(yaw), np.sin(yaw))
    points[:, :2] = np.asarray(xy) + points[:, :2] @ np.array([[cos, sin], [-sin, cos]])
    return points


def _finer(pixels: np.ndarray) -> np.ndarray:
    """Coordinates in the finer drawing, whose origin is a corner."""
    return (np.asarray(pixels, float) + 0.5) * FINER


def _perspective(there: np.ndarray, own: np.ndarray) -> list[float]:
    """The 8 numbers by which Pillow takes points (4, 2) of `there` back to those of `own`."""
    rows, values = [], []
    for (u, v), (x, y) in zip(there, own, strict=True):
        rows += [[u, v, 1, 0, 0, 0, -x * u, -x * v], [0, 0, 0, u, v, 1, -y * u, -y * v]]
        values += [x, y]
    return np.linalg.solve(np.array(rows), np.array(values)).tolist()
