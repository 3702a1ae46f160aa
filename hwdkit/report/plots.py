"""Figures for papers, slides and run directories, as PNG or SVG bytes.

Import this file only where a figure is drawn: matplotlib is slow to load. The HTML page draws its own charts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from hwdkit.report.palette import BASELINE, OTHERS, STUDENT, TEACHER, model_tones
from hwdkit.report.types import PerClassReport

Form = Literal["png", "svg"]

WIDTH = 6.4
"""Inches. At 10 point text a figure of this width is still read on a telephone, without zooming."""

_CLASSES_IN_A_ROW = 7
_INK, _QUIET, _LINE = "#22262b", "#646b75", "#e3e5e8"
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "text.parse_math": False,  # a class may be called "$x$"
    "axes.labelcolor": _QUIET,
    "axes.edgecolor": _LINE,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "svg.fonttype": "path",
    "svg.hashsalt": "hwdkit",  # the same report gives the same bytes
}
_NOT_A_TERM = {"step", "epoch", "lr", "miou", "macc", "pixel_accuracy", "total", "loss"}
_UNITS = ("_ms", "_s", "_mib", "_per_s", "_norm", "_seconds")


def iou_bars(report: PerClassReport, form: Form = "png") -> bytes:
    """Draw grouped bars of IoU, one group a class and one bar a model (HWD paper, Fig. 2).

    Many classes are broken into several panels, one below the other, so that labels stay readable.
    """
    tones = model_tones(report.models, report.pair[0])
    chunks = [report.rows[i : i + _CLASSES_IN_A_ROW] for i in range(0, len(report.rows), _CLASSES_IN_A_ROW)]
    with matplotlib.rc_context(_STYLE):
        figure, panels = _panels(max(1, len(chunks)), height=1.9)
        bar = 0.82 / max(1, len(report.models))
        for panel, chunk in zip(panels, chunks, strict=False):
            for index, model in enumerate(report.models):
                offset = (index - (len(report.models) - 1) / 2) * bar
                scores = [100 * row.iou.get(model.name, math.nan) for row in chunk]
                places = [place + offset for place in range(len(chunk))]
                tone, label = tones[model.name].light, _shown(model.name)
                panel.bar(places, scores, width=bar * 0.86, color=tone, label=label)
            panel.set_xlim(-0.6, _CLASSES_IN_A_ROW - 0.4)
            panel.set_ylim(0, 100)
            panel.set_yticks([0, 50, 100])
            panel.set_xticks(range(len(chunk)), [_wrapped(row.name) for row in chunk], color=_INK)
            panel.grid(axis="y", color=_LINE, linewidth=0.8)
        panels[0].set_ylabel("IoU, %")
        _legend(figure, panels[0])
        return _bytes(figure, form)


def td_ntd(report: PerClassReport, form: Form = "png") -> bytes:
    """Draw TD/NTD of each class on a logarithmic scale, the largest on top (HWD paper, Table I).

    Classes without a ratio (no pixel, or no divergence elsewhere) are left out.
    """
    rows = [row for row in report.ordered("td-ntd") if row.ratio is not None and 0 < row.ratio < math.inf]
    with matplotlib.rc_context(_STYLE):
        figure, (panel,) = _panels(1, height=0.9 + 0.27 * max(1, len(rows)))
        ratios = [row.ratio or 1.0 for row in rows]
        panel.set_xscale("log")
        panel.barh(range(len(rows)), [r - 1 for r in ratios], left=1, height=0.55, color=STUDENT.light)
        for place, ratio in enumerate(ratios):
            panel.annotate(
                f"{ratio:.3g}",
                (max(1, ratio), place),
                (5, 0),
                textcoords="offset points",
                va="center_baseline",
            )
        panel.axvline(1, color=_INK, linewidth=1)
        panel.set_yticks(range(len(rows)), [_shown(row.name) for row in rows], color=_INK)
        panel.set_ylim(len(rows) - 0.4, -0.6)
        panel.set_xlim(min([0.8, *ratios]), 2.2 * max([10, *ratios]))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        panel.tick_params(which="minor", length=0)
        panel.grid(axis="x", color=_LINE, linewidth=0.8)
        student, teacher = report.pair
        panel.set_xlabel(f"target / non-target divergence, {_shown(student)} against {_shown(teacher)}")
        return _bytes(figure, form)


def curves(
    rows: Sequence[Mapping[str, Any]], form: Form = "png", *, terms: Sequence[str] | None = None
) -> bytes:
    """Draw a run's loss terms, learning rate and mIoU over its steps, in panels that share the step axis.

    Args:
        rows: lines of a metrics.jsonl; those without `step` are skipped. A value may be missing in any line.
        form: `png` or `svg`.
        terms: keys that hold loss terms; None takes every number that is neither a score, the learning rate,
            nor a key ending in a unit.

    Returns:
        The encoded figure; panels without a value are left out.
    """
    lines = [row for row in rows if _is_number(row.get("step"))]
    losses = list(terms) if terms is not None else _term_keys(lines)
    wanted = {"loss": losses, "learning rate": ["lr"], "mIoU, %": ["miou"]}
    series = {title: [(key, *_series(lines, key)) for key in keys] for title, keys in wanted.items()}
    series = {title: [line for line in drawn if line[1]] for title, drawn in series.items()}
    series = {title: drawn for title, drawn in series.items() if drawn}
    colours = [STUDENT.light, *(tone.light for tone in OTHERS), TEACHER.light, BASELINE.light]
    with matplotlib.rc_context(_STYLE):
        figure, panels = _panels(max(1, len(series)), height=1.7)
        for panel, (title, drawn) in zip(panels, series.items(), strict=False):
            for index, (key, steps, values) in enumerate(drawn):
                shown = [100 * value for value in values] if key == "miou" else values
                dot = "o" if key == "miou" or len(steps) == 1 else ""
                colour = colours[index % len(colours)]
                panel.plot(
                    steps, shown, color=colour, linewidth=1.6, marker=dot, markersize=4, label=_shown(key)
                )
            panel.set_title(title, loc="left", fontsize=10, color=_QUIET)
            panel.grid(axis="y", color=_LINE, linewidth=0.8)
            panel.sharex(panels[0])
            if len(drawn) > 1:
                panel.legend(frameon=False, fontsize=9, loc="upper right")
        panels[-1].set_xlabel("step")
        return _bytes(figure, form)


def _panels(count: int, *, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, 0.5 + count * height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(count, 1, squeeze=False)[:, 0])
    for panel in panels:
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(length=0)
        panel.set_axisbelow(True)
    return figure, panels


def _legend(figure: Figure, panel: Axes) -> None:
    handles, labels = panel.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper left", ncols=min(4, len(handles)), frameon=False)


def _bytes(figure: Figure, form: Form) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format=form, dpi=200, metadata={"Date": None} if form == "svg" else {})
    return buffer.getvalue()


def _term_keys(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    found = {key: None for line in lines for key, value in line.items() if _is_number(value)}
    return [key for key in found if key not in _NOT_A_TERM and not key.endswith(_UNITS)]


def _series(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    known = [(float(line["step"]), float(line[key])) for line in lines if _is_number(line.get(key))]
    return [step for step, _ in known], [value for _, value in known]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _wrapped(name: str) -> str:
    """Break a label at its blanks, and shorten what is still too long for its group."""
    words = [word if len(word) <= 11 else f"{word[:10]}…" for word in _shown(name).split()]
    return "\n".join(words[:2]) + ("…" if len(words) > 2 else "")


def _shown(name: str) -> str:
    """Make a name drawable: matplotlib hides legend entries that start with an underscore."""
    plain = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    return plain.replace("_", " ").strip()
