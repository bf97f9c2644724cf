"""Moving pictures for a report, encoded so that a page can carry them in itself."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

LAST_FRAME = 1200  # ms


class Media(NamedTuple):
    """An encoded picture. `group` is the heading it stands under; `success` tags it."""

    caption: str
    data: bytes
    mime: str
    group: str = ""
    success: bool | None = None


def encode(
    frames: Sequence[np.ndarray], *, frames_per_second: float, quality: int = 60
) -> bytes:
    """An endless animated WebP of `frames`, each (height, width, 3) uint8; the last one stays."""
    period = round(1000 / frames_per_second)
    pictures = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        format="WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=[*[period] * (len(pictures) - 1), LAST_FRAME],
        loop=0,
        quality=quality,
        method=3,
    )
    return buffer.getvalue()
