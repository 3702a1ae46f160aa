"""How every figure looks, and how it is encoded.

Import this package only where a figure is drawn: matplotlib is slow to load. HTML pages draw their charts
themselves.
"""

from __future__ import annotations

from io import BytesIO
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from hwdkit.report.palette import OTHERS, STUDENT
from hwdkit.report.render import printable

Form = Literal["png", "svg", "pdf"]

WIDTH = 6.4
"""Inches. At 10 point text a figure of this width is still read on a telephone, without zooming."""

INK, QUIET, LINE = "#22262b", "#646b75", "#e3e5e8"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$x$"
    "axes.labelcolor": QUIET,
    "axes.edgecolor": LINE,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "svg.fonttype": "path",
    "svg.hashsalt": "hwdkit",  # the same report gives the same bytes
}

HUES = (STUDENT.light, *(tone.light for tone in OTHERS))
MARKS = "osD^vPX*"
"""Of the lines in a panel, one after the other."""

DATELESS = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


def new_panels(count: int, *, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels below each other, each `height` inches high."""
    figure = Figure(figsize=(WIDTH, 0.5 + count * height), layout="constrained", facecolor="white")
    panels = list(figure.subplots(count, 1, squeeze=False)[:, 0])
    for panel in panels:
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(length=0)
        panel.set_axisbelow(True)
    return figure, panels


def plain_ticks(axis: Axis) -> None:
    """Write the numbers of an axis as 0.1, 1, 10, a logarithmic one's too."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def logarithmic(panel: Axes, axis: Axis) -> None:
    """Write the decades of an axis that is logarithmic, and nothing between them."""
    plain_ticks(axis)
    axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    panel.tick_params(which="minor", length=0)


def legend(figure: Figure, panel: Axes) -> None:
    """Explain a panel's colours above the whole figure."""
    handles, labels = panel.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper left", ncols=min(4, len(handles)), frameon=False)


def encoded(figure: Figure, form: Form) -> bytes:
    """The figure as a file of this form; the same figure gives the same bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format=form, dpi=200, metadata=DATELESS[form])
    return buffer.getvalue()


def shown_name(name: str) -> str:
    """Make a name drawable: matplotlib hides legend entries that start with an underscore."""
    return printable(name).replace("_", " ").strip()
