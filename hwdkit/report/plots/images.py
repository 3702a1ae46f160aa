"""Figures whose panels are images: a grid of them under headings, and what their colours stand for."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from hwdkit.measure.overlay import UNLABELLED, Colour
from hwdkit.report.palette import hex_colour
from hwdkit.report.plots.style import INK, shown_name

LONGEST_SIDE = 40.0
"""Inches: 8000 pixels. Panels of a larger figure shrink."""

LEAST = 1.25
"""Inches: what a heading needs."""


def image_grid(
    headings: Sequence[str], rows: int, *, side: int, ratio: float, extra: float = 0.0
) -> tuple[Figure, list[list[Axes]]]:
    """Make a figure and its empty panels for images, by row and column.

    Args:
        headings: one a column.
        rows: how many.
        side: pixels of a panel's longer side at 200 dots an inch.
        ratio: height / width of the tallest image.
        extra: further inches of height, for a legend.
    """
    wide = max(LEAST, side / 200 * min(1.0, 1 / ratio))
    wide = min(wide, LONGEST_SIDE / len(headings), LONGEST_SIDE / (rows * (ratio + 0.2)))
    size = (len(headings) * (wide + 0.06), rows * (wide * ratio + 0.2) + 0.2 + extra)
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
    figure = Figure(figsize=size, layout=layout, facecolor="white")
    panels = [list(row) for row in figure.subplots(rows, len(headings), squeeze=False)]
    for panel in figure.axes:
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
    fits = max(4, int(wide * 14))
    for panel, heading in zip(panels[0], headings, strict=True):
        panel.set_title(shortened(heading, fits), fontsize=9, color=INK, pad=3)
    return figure, panels


def shortened(name: str, most: int) -> str:
    """A name that is drawable and has no more than so many letters; its end says more than its beginning."""
    plain = shown_name(name)
    return plain if len(plain) <= most else f"…{plain[1 - most :]}"


def class_patches(
    names: Sequence[str], colours: Sequence[Colour], *, left_out: int, unlabelled: bool
) -> list[Patch]:
    """Legend entries of classes; how many more there are, and what gray is."""
    patches = [
        Patch(facecolor=hex_colour(colour), edgecolor="#00000030", linewidth=0.5, label=shown_name(name))
        for name, colour in zip(names, colours, strict=True)
    ]
    if unlabelled:
        patches.append(Patch(facecolor=hex_colour(UNLABELLED), label="unlabelled"))
    if left_out:
        patches.append(Patch(facecolor="none", edgecolor="none", label=f"and {left_out} more"))
    return patches
