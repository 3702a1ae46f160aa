"""Qualitative panels: one row an image, one column a network (HWD paper, Fig. 4)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np

from hwdkit.measure.overlay import Colour, colourise
from hwdkit.measure.visual_panels import PanelRow, Score
from hwdkit.report.plots.images import class_patches, image_grid, shortened
from hwdkit.report.plots.style import QUIET, STYLE, Form, encoded
from hwdkit.report.render import percent

MOST_CLASSES = 24
SCORES = {"miou": "mIoU", "pixel_accuracy": "acc."}


def panels(
    rows: Sequence[PanelRow], classes: Sequence[str], palette: Sequence[Colour], *, score: Score, form: Form
) -> bytes:
    """Draw image, ground truth and every network's class map, its score over the image below it.

    The legend names the classes that occur anywhere in the figure, the most frequent `MOST_CLASSES`.

    Args:
        rows: at least one; all with the same networks.
        classes, palette: the dataset's.
        score: which one is written.
        form: `png`, `svg` or `pdf`.
    """
    networks = list(rows[0].maps)
    occurring = np.sum([row.shares for row in rows], 0)
    shown = [int(c) for c in np.argsort(-occurring, kind="stable") if occurring[c]]
    ratio = max(row.image.shape[0] / row.image.shape[1] for row in rows)
    side = max(max(row.image.shape[:2]) for row in rows)
    kept = sorted(shown[:MOST_CLASSES])
    patches = class_patches(
        [classes[c] for c in kept],
        [palette[c] for c in kept],
        left_out=len(shown) - len(kept),
        unlabelled=any(row.unlabelled for row in rows),
    )
    headings = ["image", "ground truth", *networks]
    columns = len(headings)
    with matplotlib.rc_context(STYLE):
        legend = 0.1 + 0.17 * -(-len(patches) // columns)
        figure, grid = image_grid(headings, len(rows), side=side, ratio=ratio, extra=legend)
        for row, line in zip(rows, grid, strict=True):
            line[0].imshow(row.image, interpolation="nearest")
            line[0].set_xlabel(shortened(row.name.rpartition("/")[2], 22), fontsize=7, labelpad=2)
            line[1].imshow(colourise(row.label, palette), interpolation="nearest")
            for panel, name in zip(line[2:], networks, strict=True):
                panel.imshow(colourise(row.maps[name].astype(np.uint8), palette), interpolation="nearest")
                value = getattr(row.scores[name], score)
                panel.set_xlabel(f"{SCORES[score]} {percent(value)}", fontsize=8, labelpad=2, color=QUIET)
        figure.legend(
            handles=patches, loc="outside lower center", ncols=columns, frameon=False, fontsize=8,
            handlelength=1.2, columnspacing=1.2,
        )  # fmt: skip
        return encoded(figure, form)
