"""Class maps made visible: colourised, laid over the image, and compared with each other.

Arrays in, arrays or PNG bytes out; which examples to show is not decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Colour = tuple[int, int, int]
Pixels = NDArray[np.uint8]

UNLABELLED: Colour = (128, 128, 128)
"""Drawn for 255 = ignore and for every other index that the palette does not hold."""

AGREE, STUDENT_RIGHT, TEACHER_RIGHT, BOTH_WRONG = range(4)

DISAGREEMENT_COLOURS: tuple[Colour, Colour, Colour, Colour] = (
    UNLABELLED,
    (0, 158, 240),
    (240, 122, 20),
    (214, 62, 158),
)
"""Colour of AGREE (drawn transparent), STUDENT_RIGHT, TEACHER_RIGHT and BOTH_WRONG."""


def colourise(mask: Pixels, palette: Sequence[Colour]) -> Pixels:
    """Paint a class map: (H, W) indices to (H, W, 3) RGB; what has no colour, 255 among it, becomes gray."""
    return _colour_table(palette)[mask]


def overlay(image: Pixels, mask: Pixels, palette: Sequence[Colour], *, opacity: float = 0.6) -> Pixels:
    """Lay a painted class map (H, W) over its image (H, W, 3); pixels without a class show the image alone.

    `opacity` 0 shows the image only, 1 the class map only.
    """
    alpha = np.where(mask < len(palette), opacity, 0.0)[..., None]
    mixed = image * (1 - alpha) + colourise(mask, palette) * alpha
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def disagreement(label: Pixels, student: Pixels, teacher: Pixels, *, ignore: int = 255) -> Pixels:
    """Whether student and teacher differ and which of them is right, for each pixel of (H, W) class maps.

    Returns:
        (H, W) uint8: AGREE, STUDENT_RIGHT, TEACHER_RIGHT or BOTH_WRONG; unlabelled pixels count as agreement.
    """
    verdict = np.full(label.shape, BOTH_WRONG, dtype=np.uint8)
    verdict[student == label] = STUDENT_RIGHT
    verdict[teacher == label] = TEACHER_RIGHT
    verdict[(student == teacher) | (label == ignore)] = AGREE
    return verdict


def shrink(pixels: Pixels, longest: int) -> Pixels:
    """Reduce an image or a class map so that neither side exceeds `longest`; never enlarge.

    Images (H, W, 3) are averaged; class maps (H, W) keep the nearest index, since classes do not mix.
    """
    height, width = pixels.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = Image.Resampling.LANCZOS if pixels.ndim == 3 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(pixels).resize(size, method), dtype=np.uint8)


def image_png(image: Pixels) -> bytes:
    """Encode an (H, W, 3) uint8 RGB image as PNG."""
    return _encode(Image.fromarray(image), "PNG", optimize=True)


def image_jpeg(image: Pixels, *, quality: int = 86) -> bytes:
    """Encode an (H, W, 3) uint8 RGB photograph as JPEG."""
    return _encode(Image.fromarray(image), "JPEG", quality=quality, optimize=True)


def mask_png(mask: Pixels, palette: Sequence[Colour], *, clear: Sequence[int] = ()) -> bytes:
    """Encode a class map as an indexed PNG; indices beyond the palette, and `clear`, are transparent."""
    picture = Image.fromarray(mask, mode="L")
    picture.putpalette(_colour_table(palette).tobytes())  # turns the mode into P
    alpha = bytes(0 if index >= len(palette) or index in clear else 255 for index in range(256))
    return _encode(picture, "PNG", optimize=True, transparency=alpha)


def ids_png(ids: NDArray[np.uint16]) -> bytes:
    """Encode label ids (H, W) as a gray PNG, of 8 bits where they fit."""
    return _encode(Image.fromarray(ids.astype(np.uint8) if int(ids.max()) <= 255 else ids), "PNG")


def _colour_table(palette: Sequence[Colour]) -> Pixels:
    table = np.full((256, 3), UNLABELLED, dtype=np.uint8)
    known = np.asarray(palette, dtype=np.uint8).reshape(-1, 3)[:256]
    table[: len(known)] = known
    return table


def _encode(picture: Image.Image, form: str, **options: bool | int | bytes) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()
