"""A plan drawn on its picture: anchors, the curve, numbered waypoints and gripper events."""

from typing import NamedTuple

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bridgeact_jax.geometry.cameras import project
from bridgeact_jax.geometry.guidance import Guidance, Waypoints, is_open
from bridgeact_jax.planning.protocol import Anchor, View

SMALLEST = 480  # pixels of the shorter side: smaller pictures are enlarged
FINER = 2  # drawn that many times larger and reduced, against jagged edges
OPEN, CLOSED, ANCHOR = (64, 190, 255), (255, 150, 30), (255, 70, 200)
CASING, PAPER, INK = (15, 15, 20), (250, 250, 248), (30, 30, 35)
HIDDEN_BEHIND = 0.015  # metres behind what the camera measured
DASH = 5  # pixels of a dash and of a gap
SAME_SPOT = 5  # pixels within which waypoints share a label
ROUND = np.radians(np.arange(0, 360, 22.5))
AWAY = (17, 23, 30, 40, 52, 66)  # pixels of a label's middle from its point
TEXT, SMALL = 13, 12  # pixels
FOOT_LINE = 17

_project = jax.jit(project)


class Label(NamedTuple):
    """A text that wants to stand near a point (2,) of the picture."""

    point: np.ndarray
    text: str
    colour: tuple[int, int, int]


def draw_plan(
    view: View, waypoints: Waypoints, guidance: Guidance, anchors: tuple[Anchor, ...],
    instruction: str,
) -> np.ndarray:
    """(h, w, 3) uint8: the view's picture, at least 480 pixels a side, and a key below it.

    The curve is blue where the gripper is open and orange where it is closed, dashed where the
    view's depth says that something hides it. Where the gripper changes stands a square in the
    colour it changes to; a ring is where the tool ends.

    Args:
      waypoints, guidance: base frame; waypoint 0 is where the tool is.
      anchors: with pixels of the view's picture.
    """
    height, width = view.picture.shape[:2]
    scale = max(1.0, SMALLEST / min(height, width))
    size = round(width * scale), round(height * scale)
    zoom = scale * FINER
    picture = Image.fromarray(view.picture).resize(
        (size[0] * FINER, size[1] * FINER), Image.Resampling.BICUBIC
    )
    canvas = ImageDraw.Draw(picture)
    shown = _curve(canvas, view, guidance, zoom)
    count = int(waypoints.count)
    spots, ahead = _pixels(view, waypoints.position[:count], zoom)
    changes = np.flatnonzero(np.diff(np.asarray(is_open(waypoints.gripper[:count])).astype(int)))
    _marks(canvas, spots, ahead, np.asarray(waypoints.gripper[:count]), changes + 1)
    pointed_at = (np.array([anchor.pixel for anchor in anchors]).reshape(-1, 2) + 0.5) * zoom
    for spot in pointed_at:
        _diamond(canvas, spot)
    colours = [OPEN if opens else CLOSED for opens in is_open(waypoints.gripper[:count])]
    numbers = ["start", *map(str, range(1, count))]
    shown_spots = [i for i in range(count) if ahead[i]]
    labels = _labels(
        spots[shown_spots], [numbers[i] for i in shown_spots], [colours[i] for i in shown_spots]
    )
    labels += _labels(pointed_at, [anchor.label for anchor in anchors], [ANCHOR] * len(anchors))
    marks = np.concatenate([spots[ahead], pointed_at])
    boxes = label_boxes(labels, picture.size, marks, shown)
    _write(canvas, labels, boxes)
    outside = int(np.sum(~ahead | _beyond(spots, picture.size)))
    opened = np.asarray(is_open(guidance.gripper))
    entries = [
        ("gripper open", OPEN, opened.any()), ("closed", CLOSED, not opened.all()),
        ("square: it changes", None, len(changes)), ("anchor", ANCHOR, len(anchors)),
        ("dashed: hidden", None, _is_hidden(view, guidance.position).any()),
        (f"{outside} waypoints outside", None, outside),
    ]
    entries = [(text, colour) for text, colour, there in entries if there]
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(_with_key(picture, instruction, entries))


# ---- on the picture -----------------------------------------------------------------------------


def _pixels(view: View, points: np.ndarray, zoom: float) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) places on the canvas of base-frame points, and (N,) which are before the camera."""
    pixels, depth = map(np.asarray, _project(view.camera, np.asarray(points, np.float32)))
    return (pixels + 0.5) * zoom, depth > 0


def _beyond(spots: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.any((spots < 0) | (spots > np.array(size)), axis=-1)


def _is_hidden(view: View, points: np.ndarray) -> np.ndarray:
    """(N,) whether the view measured something well before the point; False where it did not."""
    if view.depth is None:
        return np.zeros(len(points), bool)
    pixels, depth = map(np.asarray, _project(view.camera, np.asarray(points, np.float32)))
    height, width = view.depth.shape
    column, row = np.nan_to_num(np.rint(np.clip(pixels, -1, max(height, width)))).astype(int).T
    inside = (depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    seen = np.where(inside, view.depth[row.clip(0, height - 1), column.clip(0, width - 1)], 0.0)
    return inside & (seen > 0) & (depth > seen + HIDDEN_BEHIND)


def _curve(
    canvas: ImageDraw.ImageDraw, view: View, guidance: Guidance, zoom: float
) -> np.ndarray:
    """Draw the curve; (N, 2) its places on the canvas."""
    points = np.asarray(guidance.position)
    spots, ahead = _pixels(view, points, zoom)
    opened, hidden = np.asarray(is_open(guidance.gripper)), _is_hidden(view, points)
    strokes, way = [], 0.0
    for i in range(1, len(points)):
        length = float(np.linalg.norm(spots[i] - spots[i - 1]))
        if not (ahead[i] and ahead[i - 1]) or length < 1e-3:
            continue
        pieces = max(1, int(np.ceil(length / (DASH * FINER / 2))))
        ends = spots[i - 1] + np.linspace(0, 1, pieces + 1)[:, None] * (spots[i] - spots[i - 1])
        for start, end in zip(ends[:-1], ends[1:], strict=True):
            if not hidden[i] or way % (2 * DASH * FINER) < DASH * FINER:
                strokes.append((tuple(start), tuple(end), OPEN if opened[i] else CLOSED))
            way += length / pieces
    for start, end, _ in strokes:
        _stroke(canvas, start, end, CASING, 5 * FINER)
    for start, end, colour in strokes:
        _stroke(canvas, start, end, colour, 3 * FINER)
    return spots[ahead]


def _stroke(canvas, start, end, colour, thickness) -> None:
    canvas.line([start, end], fill=colour, width=thickness)
    for spot in (start, end):
        _disc(canvas, spot, thickness / 2 - 0.5, fill=colour)


def _disc(canvas, spot, radius: float, **look) -> None:
    u, v = spot
    canvas.ellipse((u - radius, v - radius, u + radius, v + radius), **look)


def _marks(canvas, spots, ahead, gripper, changes) -> None:
    """Dots at waypoints, squares where the gripper changes, a ring at the end."""
    for i, (u, v) in enumerate(spots):
        if not ahead[i]:
            continue
        colour = OPEN if gripper[i] > 0.5 else CLOSED
        if i == len(spots) - 1:
            _disc(canvas, (u, v), 9 * FINER, outline=CASING, width=5 * FINER)
            _disc(canvas, (u, v), 8 * FINER, outline=colour, width=3 * FINER)
        if i in changes:
            for half, fill in ((7, CASING), (5.5, colour)):
                half *= FINER
                canvas.rectangle((u - half, v - half, u + half, v + half), fill=fill)
        _disc(canvas, (u, v), 4 * FINER, fill=PAPER, outline=CASING, width=FINER)


def _diamond(canvas, spot) -> None:
    u, v = spot
    for radius, thickness, colour in ((13, 5, CASING), (12, 3, ANCHOR)):
        ring = [
            (u + x * radius * FINER, v + y * radius * FINER)
            for x, y in ((1, 0), (0, 1), (-1, 0), (0, -1), (1, 0), (0, 1))
        ]
        canvas.line(ring, fill=colour, width=thickness * FINER, joint="curve")


def _labels(spots, texts, colours) -> list[Label]:
    """Labels of points (N, 2); those of one spot share one, in the colour of the last."""
    labels, done = [], set()
    for i, spot in enumerate(spots):
        if i in done:
            continue
        near = np.linalg.norm(spots - spot, axis=1) < SAME_SPOT * FINER
        group = [int(j) for j in np.flatnonzero(near) if j not in done]
        done |= set(group)
        words = dict.fromkeys(texts[j] for j in group)
        labels.append(Label(spot, ", ".join(words), colours[group[-1]]))
    return labels


def _font(pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(pixels)


def label_boxes(
    labels: list[Label], size: tuple[int, int], marks: np.ndarray, curve: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray] | None]:
    """Where labels stand: middle (2,) and half size (2,), pixels; None for points outside.

    Each stands near its point where it covers least: of other labels, the border, marks (N, 2) and
    the curve (M, 2).
    """
    font, boxes = _font(TEXT * FINER), []
    for label in labels:
        if _beyond(label.point[None], size)[0]:
            boxes.append(None)
            continue
        half = np.array([font.getlength(label.text) + 6 * FINER, 17 * FINER]) / 2
        others = [box for box in boxes if box is not None]
        best, least = None, np.inf
        for rank, away in enumerate(AWAY):
            for angle in ROUND:
                direction = np.array([np.cos(angle), np.sin(angle)])
                middle = label.point + direction * (away * FINER + abs(direction[0]) * half[0])
                cost = rank + 1e-3 * angle + _covered(middle, half, others, marks, curve, size)
                if cost < least:
                    best, least = middle, cost
        boxes.append((best, half))
    return boxes


def _write(canvas, labels, boxes) -> None:
    font = _font(TEXT * FINER)
    written = [(label, *box) for label, box in zip(labels, boxes, strict=True) if box is not None]
    for label, middle, _ in written:
        canvas.line([tuple(label.point), tuple(middle)], fill=CASING, width=3 * FINER)
        canvas.line([tuple(label.point), tuple(middle)], fill=label.colour, width=FINER)
    for label, middle, half in written:
        canvas.rounded_rectangle(
            (*(middle - half), *(middle + half)), 4 * FINER, fill=CASING, outline=label.colour,
            width=FINER,
        )
        canvas.text(tuple(middle), label.text, PAPER, font, anchor="mm")


def _covered(middle, half, boxes, points, curve, size) -> float:
    """What a label in a box would cover: labels and the border count most, then marks, curve."""
    gap = 2 * FINER
    over_labels = sum(
        bool(np.all(np.abs(middle - other) < half + other_half + gap))
        for other, other_half in boxes
    )
    over_border = np.any(middle - half < gap) or np.any(middle + half > np.array(size) - gap)
    over_points = np.sum(np.all(np.abs(points - middle) < half + 8 * FINER, axis=1))
    over_curve = np.any(np.all(np.abs(curve - middle) < half + gap, axis=1)) if len(curve) else 0
    return 1000 * (over_labels + over_border) + 20 * over_points + 8 * over_curve


# ---- below it -----------------------------------------------------------------------------------


def _with_key(
    picture: Image.Image, instruction: str, entries: list[tuple[str, tuple[int, int, int] | None]]
) -> Image.Image:
    """The picture with the instruction and the meaning of colours below it."""
    font = _font(SMALL)
    lines = _wrapped(instruction, font, picture.width - 16)
    foot = FOOT_LINE * (len(lines) + 1) + 8
    sheet = Image.new("RGB", (picture.width, picture.height + foot), PAPER)
    sheet.paste(picture)
    canvas = ImageDraw.Draw(sheet)
    v = picture.height + 4
    for line in lines:
        canvas.text((8, v), line, INK, font)
        v += FOOT_LINE
    u = 8.0
    for text, colour in entries:
        if colour is not None:
            canvas.rectangle((u, v + 3, u + 10, v + 12), fill=colour, outline=CASING)
            u += 15
        canvas.text((u, v), text, INK, font)
        u += canvas.textlength(text, font) + 12
    return sheet


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
