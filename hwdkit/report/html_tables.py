"""The tables of the page: headings, and cells as (text to read, number to sort by, style)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from hwdkit.measure.confusions import strongest
from hwdkit.measure.types import ClassDivergence, ClassRow, PerClassReport
from hwdkit.report.palette import hex_colour
from hwdkit.report.render import number, percent, points

_MEASURES: tuple[tuple[str, str, Callable[[ClassDivergence], tuple[str, float | None]]], ...] = (
    ("TD", "target", lambda one: (number(one.td), one.td)),
    ("NTD", "non-target", lambda one: (number(one.ntd), one.ntd)),
    ("TD/NTD", "whole split", lambda one: (number(one.ratio, 4), one.ratio)),
    ("TD/NTD", "per image", lambda one: (number(one.image_ratio, 4), one.image_ratio)),
    ("weight", "mean HWD", lambda one: (number(one.weight), one.weight)),
)


def class_table(report: PerClassReport) -> dict[str, Any]:
    """Share, IoU of every model, what the compared student gains and lacks, and its divergence."""
    student, teacher = (report.model(name) for name in report.pair)
    baseline = report.baseline
    columns = [_column("share", "% pixels")]
    columns += [_column(model.name, "IoU %", index) for index, model in enumerate(report.models)]
    columns += [
        _column(f"Δ {baseline.name if baseline else 'no baseline'}", report.pair[0]),
        _column(f"gap to {report.pair[1]}", report.pair[0]),
        *(_column(label, unit) for label, unit, _ in _MEASURES),
    ]
    means = _divergence_cells(report.mean_divergence(report.pair[0]))
    totals = [
        "",
        *(percent(model.miou) for model in report.models),
        points(student.miou - baseline.miou) if student and baseline else "",
        points(teacher.miou - student.miou) if student and teacher else "",
        *(cell["text"] for cell in means),
    ]
    rows = [_line(row, _class_cells(report, row)) for row in report.rows]
    return {"columns": columns, "rows": rows, "totals": totals, "groups": []}


def divergence_table(report: PerClassReport) -> dict[str, Any] | None:
    """TD, NTD, both ratios and the weight of every student; None where there is only the compared one."""
    students = [(i, model.name) for i, model in enumerate(report.models) if model.name in report.students()]
    if len(students) < 2:
        return None
    names = [name for _, name in students]
    return {
        "groups": [(name, index, len(_MEASURES)) for index, name in students],
        "columns": [_column(label, unit, None, name) for name in names for label, unit, _ in _MEASURES],
        "rows": [
            _line(row, [c for name in names for c in _divergence_cells(report.divergence_of(row, name))])
            for row in report.rows
        ],
        "totals": [
            cell["text"] for name in names for cell in _divergence_cells(report.mean_divergence(name))
        ],
    }


def confusion_table(report: PerClassReport) -> dict[str, Any] | None:
    """The strongest confusions of the compared student, and how the other models fare with them."""
    found = strongest(report)
    if not found:
        return None
    models = [(i, model.name) for i, model in enumerate(report.models) if model.name in report.confusions]
    columns = [{**_column("taken for", "prediction"), "is_text": True}]
    columns += [_column(name, "% of the class", index) for index, name in models]
    columns.append(_column("area", "% of all pixels"))
    rows = []
    for one in found:
        other = report.rows[one.predicted]
        cells = [
            {"text": other.name, "value": other.name, "style": "name", "colour": hex_colour(other.colour)}
        ]
        cells += [_cell(percent(one.shares[name]), one.shares[name]) for _, name in models]
        cells.append(_cell(percent(one.area), one.area))
        rows.append(_line(report.rows[one.label], cells))
    return {"columns": columns, "rows": rows, "totals": [], "groups": []}


def _class_cells(report: PerClassReport, row: ClassRow) -> list[dict[str, str]]:
    cells = [_cell(percent(row.share), row.share)]
    students = [model.name for model in report.models if model.role != "teacher"]
    best = max((_or_zero(row.iou.get(name)) for name in students), default=0.0)
    for model in report.models:
        score = row.iou.get(model.name)
        leads = model.name in students and score == best and best > 0
        cells.append(_cell(percent(score), score, "best" if leads else ""))
    delta, gap = report.delta(row), report.gap(row)
    cells.append(_cell(points(delta), delta, "up" if delta > 0 else "down" if delta < 0 else ""))
    cells.append(_cell(points(gap), gap))
    return cells + _divergence_cells(report.divergence_of(row, report.pair[0]))


def _divergence_cells(one: ClassDivergence) -> list[dict[str, str]]:
    return [_cell(*read(one)) for _, _, read in _MEASURES]


def _column(label: str, unit: str, model: int | None = None, group: str = "") -> dict[str, Any]:
    spoken = " ".join(filter(None, (group, label, unit)))
    return {"label": label, "unit": unit, "model": model, "spoken": spoken, "is_text": False}


def _line(row: ClassRow, cells: list[dict[str, str]]) -> dict[str, Any]:
    return {"name": row.name, "colour": hex_colour(row.colour), "cells": cells}


def _cell(text: str, value: float | None, style: str = "") -> dict[str, str]:
    known = value is not None and math.isfinite(value)
    return {"text": text, "value": repr(float(value or 0)) if known else "", "style": style, "colour": ""}


def _or_zero(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else 0.0
