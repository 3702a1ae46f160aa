"""Labels that are painted: from the colours of a mask to class ids.

Which colours a dataset uses is in its index; labels that hold ids are read by `decode.py`. Free of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from hwdkit.data.decode import Ids, decode_image, decode_label
from hwdkit.errors import DataError

Colour = tuple[int, int, int]
LabelReader = Callable[[bytes, str], Ids]
"""From a label file's content, and what to call it in an error, to (H, W) raw ids."""

LISTED = 6
"""Unknown colours of a mask that an error spells out, the most frequent first."""


def label_reader(colours: Mapping[Colour, int] | None) -> LabelReader:
    """Give a reader for labels painted in these colours; None: for labels that hold their ids."""
    return decode_label if colours is None else PaintedLabels(colours)


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
        """Decode a mask to (H, W) ids. A palette gives its colours; transparency is ignored.

        Raises:
            DataError: not an image, or unknown colours, each with its number of pixels.
        """
        red, green, blue = np.moveaxis(decode_image(data, where=where).astype(np.int32), -1, 0)
        codes = red << 16 | green << 8 | blue
        nearest = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        unknown = self._codes[nearest] != codes
        if unknown.any():
            raise DataError(_describe(codes[unknown], data), where=where)
        ids: Ids = self._ids[nearest]
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
