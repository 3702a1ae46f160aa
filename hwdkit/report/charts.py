"""Positions for the page's charts: percent along an axis, with the words that say the same.

per_class.html.j2 draws them as SVG, so that they follow the page's theme; plots/ has figures for print.
"""

from __future__ import annotations

import math
from typing import Any

from hwdkit.report.palette import hex_colour
from hwdkit.report.render import number, percent
from hwdkit.report.types import ClassRow, PerClassReport


def bar_row(report: PerClassReport, row: ClassRow) -> dict[str, Any]:
    """One class of the grouped bars: widths in percent, and the same as a sentence."""
    bars, words = [], []
    for index, model in enumerate(report.models):
        score = row.iou.get(model.name)
        words.append(f"{model.name} {percent(score)}")
        bars.append({"model": index, "width": place_score(score), "title": words[-1]})
    return {"name": row.name, "colour": hex_colour(row.colour), "bars": bars, "words": ", ".join(words)}


def divergence_chart(report: PerClassReport) -> dict[str, Any] | None:
    """Place TD/NTD on a logarithmic axis that always holds 1, where both are equal."""
    known = [row.ratio for row in report.rows if row.ratio is not None and 0 < row.ratio < math.inf]
    if not known:
        return None
    low = min(0, math.floor(math.log10(min(known))))
    high = max(low + 1, math.ceil(math.log10(max(known))))

    def place(value: float) -> float:
        return round(100 * (math.log10(value) - low) / (high - low), 2)

    rows = [
        _mark(row, row.ratio, place(row.ratio) if row.ratio in known else None)
        for row in report.ordered("td-ntd")
    ]
    step = max(1, math.ceil((high - low) / 5))
    ticks = [(f"{10.0**power:g}", place(10.0**power)) for power in range(low, high + 1, step)]
    return {"rows": rows, "ticks": ticks, "origin": place(1.0)}


def weight_chart(report: PerClassReport) -> dict[str, Any] | None:
    """Place the mean HWD weights on a linear axis from 0; 1 is the weight that CWD gives to all."""
    known = [row.weight for row in report.rows if row.weight is not None and 0 <= row.weight < math.inf]
    if not known:
        return None
    top = math.ceil(max(2.0, *known))
    rows = [
        _mark(row, row.weight, round(100 * row.weight / top, 2) if row.weight in known else None)
        for row in report.ordered("td-ntd")
    ]
    step = max(1, math.ceil(top / 5))
    ticks = [(f"{value}", round(100 * value / top, 2)) for value in range(0, top + 1, step)]
    return {"rows": rows, "ticks": ticks, "origin": round(100 / top, 2)}


def _mark(row: ClassRow, value: float | None, place: float | None) -> dict[str, Any]:
    text = number(value, 4 if value is not None and value >= 100 else 3)
    return {"name": row.name, "colour": hex_colour(row.colour), "place": place, "text": text}


def halves(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Split into two columns of reading order; a short list stays whole."""
    middle = (len(rows) + 1) // 2
    return [rows[:middle], rows[middle:]] if len(rows) > 5 else [rows]


def place_score(score: float | None) -> float | None:
    """Place a 0..1 score on an axis of 100 percent; None when it is unknown."""
    return None if score is None or not math.isfinite(score) else round(100 * min(1.0, max(0.0, score)), 2)
