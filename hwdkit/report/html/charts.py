"""Positions for the page's charts: percent along an axis, with the words that say the same.

page.html.j2 draws them as SVG, so that they follow the page's theme; plots/ has figures for print.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from hwdkit.measure.types import ClassRow, PerClassReport
from hwdkit.report.palette import hex_colour
from hwdkit.report.render import number, percent

Field = Literal["ratio", "weight"]
Position = Callable[[float], float | None]

SHOWN_AT_ONCE = 24
"""Rows of a chart; the others are folded away."""


def bar_row(report: PerClassReport, row: ClassRow) -> dict[str, Any]:
    """One class of the grouped bars: widths in percent, and the same as a sentence."""
    bars, words = [], []
    for index, model in enumerate(report.models):
        score = row.iou.get(model.name)
        words.append(f"{model.name} {percent(score)}")
        bars.append({"model": index, "width": place_score(score), "title": words[-1]})
    return {"name": row.name, "colour": hex_colour(row.colour), "bars": bars, "words": ", ".join(words)}


def divergence_chart(report: PerClassReport) -> dict[str, Any] | None:
    """Place every student's TD/NTD on a logarithmic axis that always holds 1, where both are equal."""
    values = [value for value in _values(report, "ratio") if 0 < value < math.inf]
    if not values:
        return None
    low = min(0, math.floor(math.log10(min(values))))
    high = max(low + 1, math.ceil(math.log10(max(values))))

    def position(value: float) -> float | None:
        if not 0 < value < math.inf:
            return None
        return round(100 * (math.log10(value) - low) / (high - low), 2)

    step = max(1, math.ceil((high - low) / 5))
    ticks = [(f"{10.0**power:g}", position(10.0**power)) for power in range(low, high + 1, step)]
    rows = [_row(report, row, "ratio", position) for row in report.ordered("td-ntd")]
    return {"rows": rows, "ticks": ticks, "origin": position(1.0)}


def weight_chart(report: PerClassReport) -> dict[str, Any] | None:
    """Place mean HWD weights on a linear axis from 0; 1 is the weight that CWD gives to all."""
    values = [value for value in _values(report, "weight") if 0 <= value < math.inf]
    if not values:
        return None
    top = math.ceil(max(2.0, *values))

    def position(value: float) -> float | None:
        return round(100 * value / top, 2) if 0 <= value < math.inf else None

    step = max(1, math.ceil(top / 5))
    ticks = [(f"{value}", position(value)) for value in range(0, top + 1, step)]
    rows = [_row(report, row, "weight", position) for row in report.ordered("td-ntd")]
    return {"rows": rows, "ticks": ticks, "origin": position(1.0)}


def halves(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Split into two columns of reading order; a short list stays whole."""
    middle = (len(rows) + 1) // 2
    return [rows[:middle], rows[middle:]] if len(rows) > 5 else [rows]


def place_score(score: float | None) -> float | None:
    """Place a 0..1 score on an axis of 100 percent; None when it is unknown."""
    return None if score is None or not math.isfinite(score) else round(100 * min(1.0, max(0.0, score)), 2)


def _values(report: PerClassReport, field: Field) -> list[float]:
    values = (
        getattr(report.divergence_of(row, name), field) for row in report.rows for name in report.students()
    )
    return [value for value in values if value is not None]


def _row(report: PerClassReport, row: ClassRow, field: Field, position_of: Position) -> dict[str, Any]:
    """One class; the compared student's mark is drawn last, on top."""
    student, students = report.pair[0], report.students()
    marks, words, text = [], [], ""
    for index, model in enumerate(report.models):
        if model.name in students:
            value = getattr(report.divergence_of(row, model.name), field)
            shown = number(value, 4 if value is not None and value >= 100 else 3)
            own = model.name == student
            text = shown if own else text
            words.append(f"{model.name} {shown}")
            if value is not None and (position := position_of(value)) is not None:
                marks.append({"model": index, "place": position, "own": own, "title": words[-1]})
    marks.sort(key=lambda mark: bool(mark["own"]))
    return {
        "name": row.name,
        "colour": hex_colour(row.colour),
        "marks": marks,
        "text": text,
        "words": ", ".join(words),
    }
