"""What every network takes for what: a report's confusion matrices as pictures and as the strongest pairs.

Counting is in `hwdkit.metrics`; the page that shows this is report/html/page.html.j2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hwdkit.measure.types import Counts, PerClassReport

RIGHT, WRONG = (0, 114, 178), (213, 94, 0)
"""Colour of the diagonal, and of everything else; how opaque says how many."""

LEVELS = 128
STRONGEST_OPACITY = 0.7  # a number in the text's colour stays readable on it, in a light and in a dark page
WORTH_A_NUMBER = 0.005


@dataclass(frozen=True)
class Confusion:
    """Pixels of one class that are predicted as another.

    Attributes:
        label, predicted: class indices.
        shares: Model name -> part of the class's pixels, 0..1; nan where the class has none.
        area: Part of all labelled pixels, 0..1, of the compared student.
    """

    label: int
    predicted: int
    shares: dict[str, float]
    area: float


def row_shares(counts: Counts) -> NDArray[np.float64]:
    """(C, C): each count divided by its row's sum, the class's labelled pixels; nan in a row without any."""
    matrix = np.asarray(counts, dtype=np.float64).reshape(len(counts), len(counts))
    with np.errstate(invalid="ignore"):
        return np.asarray(matrix / matrix.sum(1, keepdims=True))


def strongest(report: PerClassReport, most: int = 20) -> list[Confusion]:
    """Pick the confusions of the compared student that take the largest part of a class, largest first."""
    counts = report.confusions.get(report.pair[0])
    if counts is None:
        return []
    shares = {name: row_shares(matrix) for name, matrix in report.confusions.items()}
    wrong = np.nan_to_num(shares[report.pair[0]])
    np.fill_diagonal(wrong, 0)
    total = max(1, sum(map(sum, counts)))
    cells = (divmod(int(i), len(counts)) for i in np.argsort(-wrong, axis=None, kind="stable")[:most])
    return [
        Confusion(
            label,
            predicted,
            {name: float(matrix[label, predicted]) for name, matrix in shares.items()},
            counts[label][predicted] / total,
        )
        for label, predicted in cells
        if wrong[label, predicted] > 0
    ]


def heat_map(counts: Counts) -> bytes:
    """Draw a matrix as a PNG of C x C pixels, transparent where it is 0: it fits a light and a dark page.

    Opacity grows with the square root of a row's share, so that confusions of a few percent are seen.
    """
    shares = np.sqrt(np.nan_to_num(row_shares(counts)))
    levels = np.ceil(shares * (LEVELS - 1)).astype(np.uint8)
    levels[np.diag_indices_from(levels)] += LEVELS
    picture = Image.fromarray(levels)
    picture.putpalette([*WRONG * LEVELS, *RIGHT * LEVELS])
    ramp = [math.floor(255 * STRONGEST_OPACITY * level / (LEVELS - 1)) for level in range(LEVELS)]
    buffer = BytesIO()
    picture.save(buffer, "PNG", optimize=True, transparency=bytes(ramp * 2))
    return buffer.getvalue()


def cell_numbers(counts: Counts) -> list[tuple[int, int, int]]:
    """What is written into the cells: (row, column, percent of the row), without the smallest."""
    shares = np.nan_to_num(row_shares(counts))
    rows, columns = np.nonzero(shares >= WORTH_A_NUMBER)
    return [
        (int(r), int(c), math.floor(100 * shares[r, c] + 0.5)) for r, c in zip(rows, columns, strict=True)
    ]
