"""Labels that are painted: from the colours of a mask to class ids, and the reader that suits an index.

Which colours a dataset uses is in its index; single-channel labels are `decode.py`'s business. Free of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from hwdkit.data.decode import decode_image, decode_label
from hwdkit.data.index import DatasetIndex
from hwdkit.errors import DataError

Colour = tuple[int, int, int]
Ids = npt.NDArray[np.uint8] | npt.NDArray[np.int32]
LabelReader = Callable[[bytes, str], Ids]
"""From a label file's content, and what to call it in an error, to (H, W) raw ids."""

LISTED = 6
"""Unknown colours of a mask that an error spells out, the most frequent first."""


def label_reader(index: DatasetIndex) -> LabelReader:
    """Give the function that decodes the label files of a dataset to raw ids; processes may share it."""
    return reader_of(index.label_colours)


def reader_of(colours: Mapping[Colour, int] | None) -> LabelReader:
    """Give a reader for labels painted in these colours; None: for labels that hold their ids."""
    return read_ids if colours is None else PaintedLabels(colours)


def read_ids(data: bytes, where: str) -> Ids:
    """Decode a label that holds its ids."""
    return decode_label(data, where=where)


class PaintedLabels:
    """Decodes colour masks.

    Args:
        colours: colour -> raw id.
    """

    def __init__(self, colours: Mapping[Colour, int]) -> None:
        codes = {_code(colour): raw for colour, raw in colours.items()}
        self._codes = np.array(sorted(codes), dtype=np.int32)
        kind = np.uint8 if max(codes.values()) <= 255 else np.int32
        self._ids = np.array([codes[code] for code in sorted(codes)], dtype=kind)

    def __call__(self, data: bytes, where: str) -> Ids:
        """Decode a mask to (H, W) ids. A palette gives its colours; transparency is not looked at.

        Raises:
            DataError: not an image, or colours that stand for nothing, each with its number of pixels.
        """
        red, green, blue = np.moveaxis(decode_image(data, where=where).astype(np.int32), -1, 0)
        codes = red << 16 | green << 8 | blue
        places = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        unknown = self._codes[places] != codes
        if unknown.any():
            raise DataError(_describe(codes[unknown], data), where=where)
        ids: Ids = self._ids[places]
        return ids


def _code(colour: Colour) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def _describe(codes: npt.NDArray[np.int32], data: bytes) -> str:
    values, counts = np.unique(codes, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    listed = ", ".join(
        f"({values[i] >> 16}, {values[i] >> 8 & 255}, {values[i] & 255}) on {counts[i]} pixels"
        for i in order[:LISTED]
    )
    more = f" and {len(values) - LISTED} more colours" if len(values) > LISTED else ""
    lossy = "; a JPEG smears colours: masks must be PNG" if data.startswith(b"\xff\xd8") else ""
    return f"unknown colour {listed}{more}{lossy}"
