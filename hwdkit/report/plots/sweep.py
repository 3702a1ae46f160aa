"""The figure of a sweep: mIoU over a key, references as horizontal lines (HWD paper, Figs. 6 and 7)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from hwdkit.report.palette import BASELINE as GREY
from hwdkit.report.palette import OTHERS
from hwdkit.report.plots.style import (
    HUES,
    MARKS,
    QUIET,
    STYLE,
    WIDTH,
    Form,
    encoded,
    legend,
    new_panels,
    plain_ticks,
    shown_name,
)
from hwdkit.report.render import plain_value
from hwdkit.report.sweep import BASELINE, GRID, CellResult, Metric, SweepReport, short_keys

MOST_PANELS = 6
MOST_LINES = 8


def can_draw(report: SweepReport) -> str:
    """Why this sweep cannot be drawn; empty where it can."""
    if not report.keys:
        return "no figure: the sweep has no grid key"
    if not any(cell.mean("last") is not None for cell in report.cells if cell.line == GRID):
        return "no figure: no run of the grid has finished"
    lines = _distinct(report, report.keys[1]) if len(report.keys) > 1 else []
    if len(lines) > MOST_LINES:
        return f"no figure: {report.keys[1]} has {len(lines)} values; at most {MOST_LINES} lines can be drawn"
    panels = len(_panels(report))
    if panels > MOST_PANELS:
        return f"no figure: keys after the second need {panels} panels; at most {MOST_PANELS} can be drawn"
    return ""


def miou_lines(report: SweepReport, form: Form = "png", *, metric: Metric = "last") -> bytes:
    """Draw mIoU over the first grid key.

    The second key gives one line a value, further keys one panel a combination. Bars are the standard
    deviation over the seeds. The axis is logarmithic where the values are spaced so, and one of names where
    they are no numbers. Baseline and references are horizontal lines.

    Args:
        report: one that `can_draw`.
        form: `png`, `svg` or `pdf`.
        metric: which mIoU.
    """
    panels = _panels(report)
    with matplotlib.rc_context(STYLE):
        figure, drawn = new_panels(len(panels), height=3.2 if len(panels) == 1 else 2.2)
        for panel, fixed in zip(drawn, panels, strict=True):
            _draw(panel, report, fixed, metric)
            panel.sharey(drawn[0])
            panel.grid(axis="y")
            panel.set_ylabel(f"{metric} val mIoU, %")
            title = ", ".join(f"{shown_name(key)} = {plain_value(value)}" for key, value in fixed.items())
            panel.set_title(title, loc="left", fontsize=10, color=QUIET)
        drawn[-1].set_xlabel(report.keys[0])
        if len(drawn[0].get_legend_handles_labels()[1]) > 1:
            legend(figure, drawn[0])
        figure.set_size_inches(WIDTH, figure.get_size_inches()[1])
        return encoded(figure, form)


def log_spaced(values: Sequence[float]) -> bool:
    """Whether values look evener on a logarithmic axis: over a decade, with steps that grow."""
    numbers = sorted(values)
    if len(numbers) < 2 or numbers[0] <= 0 or numbers[-1] < 10 * numbers[0]:
        return False
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    ratios = [after / before for before, after in itertools.pairwise(numbers)]
    return len(numbers) == 2 or max(ratios) / min(ratios) < max(steps) / min(steps)


def _draw(panel: Axes, report: SweepReport, fixed: dict[str, Any], metric: Metric) -> None:
    cells = [cell for cell in report.cells if cell.line == GRID and fixed.items() <= cell.values.items()]
    key, name = report.keys[0], short_keys(report.keys)
    places = _axis(panel, _distinct(report, key))
    second = report.keys[1] if len(report.keys) > 1 else None
    groups = _distinct(report, second) if second else [None]
    for number, group in enumerate(groups):
        line = [cell for cell in cells if second is None or cell.values[second] == group]
        label = report.recipe if second is None else f"{name[1]} = {plain_value(group)}"
        placed = [
            (places[plain_value(cell.values[key])], cell) for cell in line if cell.mean(metric) is not None
        ]
        known = sorted(placed, key=lambda pair: pair[0])
        _errorbars(panel, known, metric, colour=HUES[number % len(HUES)], mark=MARKS[number], label=label)
    _horizontals(panel, report, metric)


def _errorbars(
    panel: Axes, known: list[tuple[float, CellResult]], metric: Metric, *, colour: str, mark: str, label: str
) -> None:
    means = [100 * (cell.mean(metric) or 0.0) for _, cell in known]
    bars = [100 * (cell.std(metric) or 0.0) for _, cell in known]
    panel.errorbar(
        [place for place, _ in known],
        means,
        yerr=bars if any(bars) else None,
        color=colour,
        marker=mark,
        markersize=5,
        linewidth=1.6,
        capsize=3,
        label=shown_name(label),
    )


def _horizontals(panel: Axes, report: SweepReport, metric: Metric) -> None:
    lines = [cell for cell in report.cells if cell.line != GRID and cell.mean(metric) is not None]
    hues = itertools.cycle(tone.light for tone in reversed(OTHERS))
    for cell in lines:
        colour = GREY.light if cell.line == BASELINE else next(hues)
        mean = 100 * (cell.mean(metric) or 0.0)
        panel.axhline(mean, color=colour, linestyle="--", linewidth=1.4, label=shown_name(cell.line))
        if spread := 100 * (cell.std(metric) or 0.0):
            panel.axhspan(mean - spread, mean + spread, color=colour, alpha=0.12, linewidth=0)


def _axis(panel: Axes, values: list[Any]) -> dict[str, float]:
    """Set the x axis up; where each value lies, by its text."""
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        panel.set_xticks(range(len(values)), [shown_name(plain_value(value)) for value in values])
        return {plain_value(value): float(place) for place, value in enumerate(values)}
    if log_spaced(values):
        panel.set_xscale("log")
        panel.xaxis.set_minor_locator(NullLocator())
    if len(values) <= 8:
        panel.set_xticks(values)
    plain_ticks(panel.xaxis)
    return {plain_value(value): float(value) for value in values}


def _panels(report: SweepReport) -> list[dict[str, Any]]:
    """What is fixed in each panel: the combinations of the keys beyond the second."""
    rest = report.keys[2:]
    return [
        dict(zip(rest, values, strict=True))
        for values in itertools.product(*(_distinct(report, key) for key in rest))
    ]


def _distinct(report: SweepReport, key: str) -> list[Any]:
    by_text = {plain_value(cell.values[key]): cell.values[key] for cell in report.cells if cell.line == GRID}
    return list(by_text.values())
