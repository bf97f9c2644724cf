"""What policies work with, drawn without a graphics library: cloud, plan, path, hand, and words."""

import functools
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

EYE, LOOK_AT = np.array([1.28, -0.61, 0.73]), np.array([0.47, 0.0, 0.15])
FOCAL = 1.4  # of the picture's width
SKY, TABLE = (250, 250, 248), (206, 203, 196)
LOW, HIGH = np.array([70, 110, 160]), np.array([225, 120, 60])
COLOUR_HEIGHT = 0.25  # metres over which a point's colour goes from LOW to HIGH
CURVE, PATH, HAND = (40, 150, 90), (200, 40, 60), (20, 20, 20)
TABLE_HEIGHT = 0.004  # metres below which a point is drawn as table
TOLD, THOUGHT = (110, 108, 104), (20, 20, 20)
LETTERS, LINE, MARGIN = 54, 14, 8  # in a line of words; pixels


def _axes() -> np.ndarray:
    forward = (LOOK_AT - EYE) / np.linalg.norm(LOOK_AT - EYE)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


def _pixels(points: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    x, y, z = _axes() @ (np.asarray(points, np.float64).reshape(-1, 3) - EYE).T
    width, height = size
    scale = FOCAL * width / np.maximum(z, 0.05)
    return np.stack([width / 2 + scale * x, height / 2 + scale * y], axis=1), z


def draw_scene(
    cloud: np.ndarray,
    plan: np.ndarray,
    curve: np.ndarray,
    path: np.ndarray,
    gripper_width: float,
    *,
    width: int = 320,
    height: int = 240,
) -> np.ndarray:
    """A picture (height, width, 3) uint8 from a fixed viewpoint.

    Args:
      cloud: (M, 3) metres, base frame, coloured by height.
      plan: (K, 3) waypoints and curve: (P, 3) the guidance through them, green.
      path: (T, 3) where the tool has been, red; its end is the hand, two strokes as far apart as
        the fingers are.
      gripper_width: in [0, 1].
    """
    image = Image.new("RGB", (width, height), SKY)
    canvas = ImageDraw.Draw(image)
    size = (width, height)

    pixels, depth = _pixels(cloud, size)
    share = np.clip(np.asarray(cloud, np.float64)[:, 2] / COLOUR_HEIGHT, 0, 1)[:, None]
    colours = (LOW + share * (HIGH - LOW)).astype(int)
    for i in np.argsort(-depth):
        table = cloud[i, 2] < TABLE_HEIGHT
        colour, radius = (TABLE, 0.7) if table else (tuple(colours[i]), 1.3)
        (u, v) = pixels[i]
        canvas.ellipse((u - radius, v - radius, u + radius, v + radius), fill=colour)

    def line(points, colour, thickness):
        canvas.line([tuple(p) for p in _pixels(points, size)[0]], fill=colour, width=thickness)

    line(curve, CURVE, 1)
    for u, v in _pixels(plan, size)[0]:
        canvas.ellipse((u - 2.5, v - 2.5, u + 2.5, v + 2.5), outline=CURVE)
    if len(path) > 1:
        line(path, PATH, 2)
    tool = np.asarray(path[-1], np.float64)
    aside, up = np.array([0.0, 0.04 * gripper_width + 0.004, 0.0]), np.array([0.0, 0.0, 0.05])
    line([tool - aside, tool - aside + up, tool + aside + up, tool + aside], HAND, 3)
    return np.asarray(image)


def draw_words(
    picture: np.ndarray, told: str, thought: str, *, width: int = 320, height: int = 240
) -> np.ndarray:
    """A picture (height, width, 3) uint8 of what a model sees, is told and thinks.

    `picture` (H, W, 3) uint8 is shown as large as fits. Words that do not fit end in an ellipsis.
    """
    image = Image.new("RGB", (width, height), SKY)
    canvas, font = ImageDraw.Draw(image), _font()
    lines = [(line, TOLD) for line in textwrap.wrap(told, LETTERS, max_lines=2)]
    lines += [(line, THOUGHT) for line in textwrap.wrap(thought, LETTERS, max_lines=6)]
    top = height - MARGIN - LINE * len(lines)
    large = Image.fromarray(picture)
    share = min((width - 2 * MARGIN) / large.width, (top - 2 * MARGIN) / large.height)
    size = round(share * large.width), round(share * large.height)
    image.paste(large.resize(size, Image.Resampling.NEAREST), (MARGIN, MARGIN))
    for number, (line, colour) in enumerate(lines):
        canvas.text((MARGIN, top + LINE * number), line, fill=colour, font=font)
    return np.asarray(image)


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    import matplotlib  # takes a while; Pillow's own font has no multiplication sign

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", 10)
