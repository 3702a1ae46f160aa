"""t-SNE of pixels: one panel a network, the dataset's colours (HWD paper, Fig. 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from hwdkit.measure.embeddings import Embedding
from hwdkit.measure.overlay import Colour
from hwdkit.report.palette import hex_colour
from hwdkit.report.plots.images import shortened
from hwdkit.report.plots.style import INK, LINE, QUIET, STYLE, Form, encoded, shown_name

IN_A_ROW = 4
SIDE = 2.2


def embeddings(
    networks: Mapping[str, Embedding],
    of: NDArray[np.int64],
    *,
    classes: Sequence[str],
    palette: Sequence[Colour],
    form: Form,
) -> bytes:
    """Draw every network's points, its silhouette below.

    Args:
        networks: name -> embedding of P pixels.
        of: (P,) class index.
        classes, palette: the dataset's.
        form: `png`, `svg` or `pdf`.
    """
    columns = min(IN_A_ROW, len(networks))
    lines = -(-len(networks) // columns)
    occurring = [int(c) for c in np.unique(of)]
    colours = np.array([hex_colour(colour) for colour in palette])[of]
    shuffled = np.random.default_rng(0).permutation(len(of))  # no class lies on top of all others
    with matplotlib.rc_context(STYLE):
        width = max(2, columns) * SIDE
        entries = max(2, int(width / 1.25))
        legend_height = 0.2 * -(-len(occurring) // entries)
        figure = Figure(
            figsize=(width, lines * (SIDE + 0.3) + legend_height + 0.1),
            layout="constrained",
            facecolor="white",
        )
        grid = figure.subplots(lines, columns, squeeze=False).flatten()
        for panel in grid[len(networks) :]:
            panel.set_visible(False)
        for panel, (name, embedding) in zip(grid, networks.items(), strict=False):
            points = embedding.points[shuffled]
            panel.scatter(
                points[:, 0], points[:, 1], c=colours[shuffled], s=7, edgecolors="#00000055", linewidths=0.2
            )
            panel.set_title(shortened(name, 26), fontsize=9, color=INK, pad=3)
            silhouette = (
                "–" if embedding.silhouette is None else f"{embedding.silhouette:.3f}".replace("-", "−")
            )
            panel.set_xlabel(f"silhouette {silhouette}", fontsize=8, labelpad=3, color=QUIET)
            panel.set_xticks([])
            panel.set_yticks([])
            panel.set_box_aspect(1)
            panel.spines[:].set_color(LINE)
        marks = [
            Line2D([], [], marker="o", linestyle="", markersize=5, markeredgecolor="#00000055",
                   markeredgewidth=0.3, color=hex_colour(palette[c]), label=shown_name(classes[c]))
            for c in occurring
        ]  # fmt: skip
        figure.legend(
            handles=marks, loc="outside lower center", ncols=entries, frameon=False, fontsize=8,
            handletextpad=0.2, columnspacing=1.0,
        )  # fmt: skip
        return encoded(figure, form)
