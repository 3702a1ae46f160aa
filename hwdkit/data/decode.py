"""From the bytes of a file to an array of pixels or label ids, with every way that can go wrong named.

Free of torch, so that the processes which check a dataset start quickly; tensors begin in `dataset.py`.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from hwdkit.data.matlab import is_matlab, read_matrix
from hwdkit.errors import DataError
from hwdkit.types import IGNORE

Pixels = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.uint8] | npt.NDArray[np.int32]

IMAGE_MODES = ("RGB", "L", "P", "RGBA", "LA", "CMYK", "YCbCr", "1")
LABEL_MODES = ("L", "P", "I;16", "I")
UNKNOWN = -1

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF")
"""What may be decoded. Pillow knows forty more, among them EPS, which it hands to Ghostscript."""


MATLAB_LABELS = ("S", "GTcls.Segmentation")
"""Where a MATLAB file keeps its label: COCO-Stuff 10k, SBD."""


def read_bytes(path: Path) -> bytes:
    """Read a whole file; raise a DataError where that fails."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path)) from error


def decode_image(data: bytes, *, where: str) -> Pixels:
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
    if image.mode == "P":
        image.info.pop("transparency", None)  # dropped all the same, and Pillow would warn of it
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def decode_label(data: bytes, where: str) -> Ids:
    """Decode a label file to the ids that are stored in it, before any label map.

    A palette PNG gives its indices. Decoders that convert it to gray would give the luminance of the colours.
    A MATLAB file, known by its content or its name, gives the first of `MATLAB_LABELS`.

    Returns:
        (H, W) uint8, or int32 for files with more than 8 bits.

    Raises:
        DataError: truncated, neither image nor MATLAB file, or colours instead of ids.
    """
    if is_matlab(data) or where.endswith(".mat"):
        return _whole(read_matrix(data, MATLAB_LABELS, where=where), where)
    image = _load(data, where)
    if image.mode in ("RGB", "RGBA", "CMYK"):
        raise DataError(
            f"label has colours (mode {image.mode}), not class ids; a one-channel PNG is needed",
            where=where,
        )
    if image.mode not in LABEL_MODES:
        raise DataError(f"label has mode {image.mode}; needed: {', '.join(LABEL_MODES)}", where=where)
    ids = np.array(image)
    return ids if image.mode in ("L", "P") else ids.astype(np.int32)


def _whole(values: npt.NDArray[Any], where: str) -> Ids:
    """Numbers of any type as ids; MATLAB's default type is double."""
    limits = np.iinfo(np.int32)
    low, high = values.min(), values.max()  # NaN if there is one, which the comparison refuses
    if not limits.min <= low <= high <= limits.max or np.any(values != np.trunc(values)):
        raise DataError(f"label holds numbers from {low} to {high} that are not class ids", where=where)
    return values.astype(np.uint8) if low >= 0 and high <= 255 else values.astype(np.int32)


def _load(data: bytes, where: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # From 89 megapixels on Pillow warns, once a process; what is too large, 179, is an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
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
        if label_map is None:
            label_map = {**{c: c for c in range(classes)}, IGNORE: IGNORE}
        self.label_map = dict(sorted(label_map.items()))
        # Ids below 0 exist on paper (Cityscapes' license plate) but no PNG can hold them.
        self._table = np.full(max(255, *label_map) + 1, UNKNOWN, dtype=np.int16)
        for raw, mapped in label_map.items():
            if raw >= 0:
                self._table[raw] = mapped
        # Where ids are bytes, a value that is not a class marks the unknown; there may be none left.
        self._unused = next((value for value in range(256) if value not in label_map.values()), None)
        first = self._table[:256]
        self._bytes = np.where(first == UNKNOWN, self._unused or 0, first).astype(np.uint8).tobytes()

    def __call__(self, ids: Ids, *, where: str) -> Pixels:
        """Map (H, W) raw ids to (H, W) uint8 classes.

        Raises:
            DataError: ids that the map does not know, each with its pixel count.
        """
        if ids.dtype == np.uint8 and self._unused is not None:
            # A third of the time that indexing takes.
            mapped = np.frombuffer(ids.tobytes().translate(self._bytes), np.uint8).reshape(ids.shape)
            unknown = bool((mapped == self._unused).any())
        else:
            if ids.dtype != np.uint8 and (int(ids.min()) < 0 or int(ids.max()) >= len(self._table)):
                raise DataError(self.unknown(histogram(ids)), where=where)
            wide = self._table[ids]
            mapped, unknown = wide.astype(np.uint8), int(wide.min()) == UNKNOWN
        if unknown:
            raise DataError(self.unknown(histogram(ids)), where=where)
        return mapped

    def unknown(self, counts: Mapping[int, int]) -> str:
        """Describe the unknown ids of a histogram; empty when there are none."""
        strange = [f"id {raw} on {counts[raw]} pixels" for raw in sorted(counts) if raw not in self.label_map]
        if not strange:
            return ""
        listed = ", ".join(strange[:8]) + (f" and {len(strange) - 8} more ids" if len(strange) > 8 else "")
        return f"unknown label {listed} (known: {_ranges(list(self.label_map))})"


def raw_ids(label_map: Mapping[int, int] | None, *, classes: int) -> npt.NDArray[np.uint16]:
    """Invert a label map: the id that stands for each class, as benchmarks expect predictions.

    Args:
        label_map: raw id -> class; None = identity.
        classes: number of classes.

    Returns:
        (classes,) uint16; of several ids the lowest, of those that an image can hold.

    Raises:
        DataError: a class that no id stands for.
    """
    if label_map is None:
        label_map = {c: c for c in range(classes)}
    lowest: dict[int, int] = {}
    for raw in sorted(raw for raw in label_map if 0 <= raw <= np.iinfo(np.uint16).max):
        lowest.setdefault(label_map[raw], raw)
    missing = [c for c in range(classes) if c not in lowest]
    if missing:
        raise DataError(f"the label map has no id that a PNG can hold for class {missing[0]}")
    return np.array([lowest[c] for c in range(classes)], dtype=np.uint16)


def histogram(ids: Ids) -> dict[int, int]:
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
