"""From the bytes of a file to an array of pixels or label ids, with every way that can go wrong named.

Free of torch, so that the processes which check a dataset start quickly; tensors begin in `dataset.py`.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hwdkit.errors import DataError
from hwdkit.types import IGNORE

IMAGE_MODES = ("RGB", "L", "P", "RGBA", "LA", "CMYK", "YCbCr", "1")
LABEL_MODES = ("L", "P", "I;16", "I")
UNKNOWN = -1

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF")
"""What may be decoded. Pillow knows forty more, among them EPS, which it hands to Ghostscript."""


def read_bytes(path: Path) -> bytes:
    """Read a whole file; one that cannot be read is the user's to mend, not a bug."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path)) from error


def decode_image(data: bytes, *, where: str) -> npt.NDArray[np.uint8]:
    """Decode a photograph completely.

    Args:
        data: the file's content.
        where: what to call the file in an error.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: truncated, not an image, or more than 8 bits a channel.
    """
    image = _load(data, where)
    if image.mode not in IMAGE_MODES:
        raise DataError(f"image has mode {image.mode}; 8-bit RGB or gray is needed", where=where)
    return np.array(image.convert("RGB"))


def decode_label(data: bytes, *, where: str) -> npt.NDArray[np.uint8] | npt.NDArray[np.int32]:
    """Decode a label file to the ids that are stored in it, before any label map.

    A palette PNG gives its indices. Decoders that convert it to gray would give the luminance of the colours.

    Returns:
        (H, W) uint8, or int32 for files of 16 or 32 bits.

    Raises:
        DataError: truncated, not an image, or colours instead of ids.
    """
    image = _load(data, where)
    if image.mode in ("RGB", "RGBA", "CMYK"):
        raise DataError(
            f"label has colours (mode {image.mode}), not class ids; a one-channel PNG is needed",
            where=where,
        )
    if image.mode not in LABEL_MODES:
        raise DataError(f"label has mode {image.mode}; needed: {', '.join(LABEL_MODES)}", where=where)
    ids: npt.NDArray[np.uint8] | npt.NDArray[np.int32]
    ids = np.array(image) if image.mode in ("L", "P") else np.array(image).astype(np.int32)
    return ids


def _load(data: bytes, where: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        image.load()
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        # Pillow's own text names a BytesIO object; it says nothing about the file.
        reason = "not an image" if "cannot identify" in str(error) else str(error)
        raise DataError(f"cannot be decoded ({reason})", where=where) from error
    return image


class LabelLookup:
    """Maps raw label ids to classes, and says which ids it does not know.

    Args:
        label_map: raw id -> class, 255 = ignore; None = identity over the classes, 255 = ignore.
        classes: number of classes.
    """

    def __init__(self, label_map: Mapping[int, int] | None, *, classes: int) -> None:
        known = {**{c: c for c in range(classes)}, IGNORE: IGNORE} if label_map is None else dict(label_map)
        self.known = {raw: known[raw] for raw in sorted(known)}
        # Ids below 0 exist on paper (Cityscapes' license plate) but no PNG can hold them.
        self._table = np.full(max(255, *known) + 1, UNKNOWN, dtype=np.int16)
        for raw, mapped in known.items():
            if raw >= 0:
                self._table[raw] = mapped

    def __call__(
        self, ids: npt.NDArray[np.uint8] | npt.NDArray[np.int32], *, where: str
    ) -> npt.NDArray[np.uint8]:
        """Map (H, W) raw ids to (H, W) uint8 classes.

        Raises:
            DataError: ids that the map does not know, each with its pixel count.
        """
        if ids.dtype != np.uint8 and (int(ids.min()) < 0 or int(ids.max()) >= len(self._table)):
            raise DataError(self._describe_unknown(ids), where=where)
        mapped = self._table[ids]
        if int(mapped.min()) == UNKNOWN:
            raise DataError(self._describe_unknown(ids), where=where)
        return mapped.astype(np.uint8)

    def unknown(self, counts: Mapping[int, int]) -> str:
        """Describe the unknown ids of a histogram; empty when there are none."""
        strange = [f"id {raw} on {counts[raw]} pixels" for raw in sorted(counts) if raw not in self.known]
        if not strange:
            return ""
        listed = ", ".join(strange[:8]) + (f" and {len(strange) - 8} more ids" if len(strange) > 8 else "")
        return f"unknown label {listed} (known: {_ranges(list(self.known))})"

    def _describe_unknown(self, ids: npt.NDArray[np.uint8] | npt.NDArray[np.int32]) -> str:
        return self.unknown(histogram(ids))


def histogram(ids: npt.NDArray[np.uint8] | npt.NDArray[np.int32]) -> dict[int, int]:
    """Count the pixels of each raw id."""
    if ids.dtype == np.uint8:
        counts = np.bincount(ids.ravel(), minlength=256)
        return {int(raw): int(counts[raw]) for raw in np.flatnonzero(counts)}
    values, numbers = np.unique(ids, return_counts=True)
    return {int(raw): int(count) for raw, count in zip(values, numbers, strict=True)}


def _ranges(ids: list[int]) -> str:
    """Write [0, 1, 2, 5] as 0-2, 5."""
    runs: list[list[int]] = []
    for raw in ids:
        if runs and raw == runs[-1][-1] + 1:
            runs[-1].append(raw)
        else:
            runs.append([raw])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
