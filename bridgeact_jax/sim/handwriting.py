"""Numbers and equations written by hand: glyphs of several fonts, bent, slanted and thickened.

The fonts are those that come with Matplotlib (DejaVu, STIX and Computer Modern); signs are strokes.
"""

import functools
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy import ndimage

HANDS = {
    "upright": "DejaVuSans.ttf",
    "round": "cmss10.ttf",
    "serif": "DejaVuSerif.ttf",
    "italic": "STIXGeneralItalic.ttf",
    "roman": "cmb10.ttf",
    "typed": "cmtt10.ttf",
    "broad": "DejaVuSans-Bold.ttf",
    "leaning": "DejaVuSans-Oblique.ttf",
    "book": "STIXGeneralBol.ttf",
    "cursive": "DejaVuSerif-Italic.ttf",
}
OPEN_HANDS = ("round", "leaning", "book")  # never in a robot's training data
ROBOT_HANDS = tuple(name for name in HANDS if name not in OPEN_HANDS)
INKS = ((20, 25, 80), (15, 15, 15), (130, 10, 10), (0, 65, 25), (60, 10, 100))

GLYPH = 64  # pixels, height of a digit before it is bent and made smaller
STROKE = 8  # pixels, of a sign
SPACE = 15  # pixels around a sign
GAP = 4  # pixels between digits
UPS_AND_DOWNS, SIZES = 0.05, 0.08  # of a digit's height, to either side
SLANT, TURN = 0.18, 0.05  # to either side
BEND, SMOOTHNESS = 2.0, 13.0  # pixels, of the elastic distortion
FILL = (0.90, 0.86)  # of the width and height of what is written on, at most


def write(
    text: str, height: int, width: int, hand: str, ink: tuple[int, int, int],
    rng: np.random.Generator, paper: tuple[int, int, int] = (250, 250, 247),
) -> np.ndarray:
    """(height, width, 3) uint8: digits and signs in one line, as large as there is room.

    Args:
      text: digits, "+", "-", "×" and spaces, which are ignored.
      hand: one of `HANDS`.
      rng: no two writings are alike.
    """
    mask = _bent(_line(text, hand, rng), rng)
    scale = min(FILL[0] * width / mask.shape[1], FILL[1] * height / mask.shape[0])
    size = np.maximum(np.round(scale * np.array(mask.shape[::-1])).astype(int), 1)
    small = Image.fromarray(mask).resize(tuple(size), Image.Resampling.BOX)
    room = np.array([width, height]) - size
    place = tuple(np.round(room * rng.uniform(0.35, 0.65, 2)).astype(int))
    picture = Image.new("RGB", (width, height), paper)
    picture.paste(Image.new("RGB", small.size, ink), place, small)
    return np.asarray(picture)


def _line(text: str, hand: str, rng: np.random.Generator) -> np.ndarray:
    """(h, w) uint8 ink of the glyphs side by side."""
    glyphs = [
        _sign(piece, rng) if piece in "+-×" else _digit(piece, hand, rng)
        for piece in text if piece != " "
    ]
    margin = GLYPH // 5
    width = sum(glyph.width + GAP for glyph in glyphs) + 2 * margin
    line, u = Image.new("L", (width, GLYPH + 2 * margin)), margin
    for glyph in glyphs:
        v = margin + (GLYPH - glyph.height) / 2 + GLYPH * rng.uniform(-1, 1) * UPS_AND_DOWNS
        line.paste(glyph, (u, round(v)))
        u += glyph.width + GAP
    return np.asarray(line.filter(ImageFilter.MaxFilter(int(rng.choice([1, 3, 5])))))


def _digit(piece: str, hand: str, rng: np.random.Generator) -> Image.Image:
    font = _font(hand)
    left, top, right, bottom = font.getbbox(piece)
    glyph = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(glyph).text((-left, -top), piece, 255, font)
    scale = GLYPH / glyph.height * (1 + rng.uniform(-1, 1) * SIZES)
    return glyph.resize((max(round(glyph.width * scale), 8), round(glyph.height * scale)))


def _sign(piece: str, rng: np.random.Generator) -> Image.Image:
    side, arm = 2 * GLYPH // 3, GLYPH / 3 * rng.uniform(0.8, 1.0)
    glyph = Image.new("L", (side + 2 * SPACE, side))
    canvas, middle = ImageDraw.Draw(glyph), np.array([side / 2 + SPACE, side / 2])
    for angle in {"+": (0, 90), "-": (0,), "×": (45, 135)}[piece]:
        turned = np.radians(angle + rng.uniform(-6, 6))
        reach = arm * np.array([np.cos(turned), np.sin(turned)])
        canvas.line([tuple(middle - reach), tuple(middle + reach)], 255, STROKE)
    return glyph


def _bent(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The ink slanted, turned and bent elastically, cut to where there is any."""
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(float)
    y, x = rows - mask.shape[0] / 2, columns - mask.shape[1] / 2
    slant, turn = rng.uniform(-SLANT, SLANT), rng.uniform(-TURN, TURN)
    grid = tuple(-(-n // 8) + 1 for n in mask.shape)
    waves = [ndimage.gaussian_filter(rng.standard_normal(grid), SMOOTHNESS / 8) for _ in range(2)]
    swing = [
        BEND * ndimage.zoom(wave / wave.std(), 8, order=1)[: mask.shape[0], : mask.shape[1]]
        for wave in waves
    ]
    source = [rows + turn * x + swing[0], columns + slant * y + swing[1]]
    bent = ndimage.map_coordinates(mask, source, order=1)
    inked = bent > 64
    there = [np.flatnonzero(inked.any(axis=axis)) for axis in (1, 0)]
    return bent[there[0][0] : there[0][-1] + 1, there[1][0] : there[1][-1] + 1]


@functools.cache
def _font(hand: str) -> ImageFont.FreeTypeFont:
    import matplotlib  # takes a while, and few need it

    folder = Path(matplotlib.get_data_path()) / "fonts/ttf"
    return ImageFont.truetype(str(folder / HANDS[hand]), GLYPH)
