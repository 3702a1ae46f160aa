"""How every figure looks, and how it is encoded.

Import this package only where a figure is drawn: matplotlib is slow to load. HTML pages draw their charts
themselves.
"""

from __future__ import annotations

from io import BytesIO
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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
    "svg.fonttype": "path",
    "svg.hashsalt": "hwdkit",  # the same report gives the same bytes
}

DATELESS = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


def new_panels(count: int, *, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels below each other, each `height` inches high."""
    figure = Figure(figsize=(WIDTH, 0.5 + count * height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(count, 1, squeeze=False)[:, 0])
    for panel in panels:
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(length=0)
        panel.set_axisbelow(True)
    return figure, panels


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
    plain = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    return plain.replace("_", " ").strip()
