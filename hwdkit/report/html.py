"""The per-class report as one HTML page that needs nothing else: styles, script and images are inside it.

This file turns numbers into words, positions and data URIs; the page itself is per_class.html.j2.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hwdkit.report.charts import bar_row, divergence_chart, halves, place_score, weight_chart
from hwdkit.report.overlay import (
    AGREE,
    BOTH_WRONG,
    DISAGREEMENT_COLOURS,
    STUDENT_RIGHT,
    TEACHER_RIGHT,
    Colour,
    Pixels,
    disagreement,
    image_jpeg,
    image_png,
    mask_png,
    shrink,
)
from hwdkit.report.palette import hex_colour, model_tones
from hwdkit.report.render import number, percent, points
from hwdkit.report.types import ClassRow, Example, ModelSummary, PerClassReport

LONGEST_SIDE = 640
"""Pixels. Larger examples are reduced, so that the page stays a few MB."""


def per_class_page(report: PerClassReport) -> str:
    """Write the report as a self-contained page.

    Its content security policy forbids every request and every script but its own, so class names, paths
    and notes that come from files cannot act even if escaping failed.

    Args:
        report: what to show; its examples become data URIs.

    Returns:
        A whole HTML document.
    """
    environment = Environment(
        loader=PackageLoader("hwdkit", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sha256"] = _sha256
    template = environment.get_template("per_class.html.j2")
    tones = model_tones(report.models, report.pair[0])
    student, teacher = report.pair
    return template.render(
        report=report,
        student=student,
        teacher=teacher,
        tones=[(index, tones[model.name]) for index, model in enumerate(report.models)],
        cards=[_card(report, index, model) for index, model in enumerate(report.models)],
        lead=_lead(report),
        findings=_findings(report),
        columns=_columns(report),
        rows=[_table_row(report, row) for row in report.rows],
        totals=_totals(report),
        bars=halves([bar_row(report, row) for row in report.rows]),
        divergence=divergence_chart(report),
        weights=weight_chart(report),
        examples=[_example(report, example) for example in report.examples],
        legend=[(row.name, hex_colour(row.colour)) for row in report.rows],
        verdicts=_verdicts(student, teacher),
    )


def _lead(report: PerClassReport) -> str:
    """Say the outcome in one sentence."""
    student, teacher = (report.model(name) for name in report.pair)
    if student is None or teacher is None:
        return ""
    behind = teacher.miou - student.miou
    place = f"{abs(100 * behind):.1f} points {'below' if behind >= 0 else 'above'} {teacher.name}"
    start = f"{student.name} reaches {100 * student.miou:.1f} % mIoU, {place}"
    baseline = report.baseline
    if baseline is None:
        return f"{start}."
    gain = student.miou - baseline.miou
    words = f"{abs(100 * gain):.1f} points {'above' if gain >= 0 else 'below'} {baseline.name}"
    whole = teacher.miou - baseline.miou
    if gain > 0 and whole > 0:
        return f"{start} and {words}: {100 * gain / whole:.0f} % of the gap is closed."
    return f"{start} and {words}."


def _findings(report: PerClassReport) -> list[tuple[str, list[tuple[str, str]]]]:
    """Pick what deserves a look: (heading, [(class, value)]), at most four classes each."""
    student, baseline = report.pair[0], report.baseline
    gaps = [(row.name, points(-report.gap(row))) for row in report.ordered("gap") if report.gap(row) > 0]
    findings = [(f"{student} is furthest behind {report.pair[1]}", gaps[:4])]
    if baseline is not None:
        gains = sorted(report.rows, key=lambda row: -_or_zero(report.delta(row)))
        best = [(row.name, points(report.delta(row))) for row in gains if report.delta(row) > 0]
        findings.append((f"{student} gains most over {baseline.name}", best[:4]))
        for model in report.models:
            if model.role in ("student", "compare"):
                losses = {
                    row.name: row.iou.get(model.name, math.nan) - _score(row, baseline) for row in report.rows
                }
                worst = sorted((loss, name) for name, loss in losses.items() if loss < 0)
                findings.append(
                    (
                        f"{model.name} is below {baseline.name}",
                        [(name, points(loss)) for loss, name in worst[:4]],
                    )
                )
    return [finding for finding in findings if finding[1]][:4]


def _card(report: PerClassReport, index: int, model: ModelSummary) -> dict[str, Any]:
    baseline, teacher = report.baseline, report.model(report.pair[1])
    delta = ""
    if baseline is not None and model is not baseline and model.role != "teacher":
        delta = points(model.miou - baseline.miou)
    marks = [other.miou for other in (baseline, teacher) if other is not None and math.isfinite(other.miou)]
    return {
        "index": index,
        "model": model,
        "miou": percent(model.miou),
        "delta": delta,
        "position": place_score(model.miou),
        "marks": [place_score(mark) for mark in marks],
        "params": f"{model.params / 1e6:.2f} M",
        "gmacs": number(model.gmacs),
        "macc": percent(model.macc),
        "pixel_accuracy": percent(model.pixel_accuracy),
    }


def _columns(report: PerClassReport) -> list[dict[str, Any]]:
    """Head the table: a label, what it is compared with, and the model's index where there is one."""
    student, teacher = report.pair
    baseline = report.baseline.name if report.baseline else "no baseline"
    names = [(model.name, "IoU %", index) for index, model in enumerate(report.models)]
    derived = [(f"Δ {baseline}", student, None), (f"gap to {teacher}", student, None)]
    measures = [("TD", "target", None), ("NTD", "non-target", None), ("TD/NTD", "ratio", None)]
    columns = [("share", "% pixels", None), *names, *derived, *measures, ("weight", "mean HWD", None)]
    return [{"label": label, "unit": unit, "model": model} for label, unit, model in columns]


def _table_row(report: PerClassReport, row: ClassRow) -> dict[str, Any]:
    """One class: cells as (text to read, number to sort by, style)."""
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
    cells += [_cell(number(value), value) for value in (row.td, row.ntd)]
    cells += [_cell(number(row.ratio, 4), row.ratio), _cell(number(row.weight), row.weight)]
    return {"name": row.name, "colour": hex_colour(row.colour), "cells": cells}


def _totals(report: PerClassReport) -> list[str]:
    student, teacher = (report.model(name) for name in report.pair)
    gain = points(student.miou - report.baseline.miou) if student and report.baseline else ""
    gap = points(teacher.miou - student.miou) if student and teacher else ""
    return ["", *(percent(model.miou) for model in report.models), gain, gap, "", "", "", ""]


def _example(report: PerClassReport, example: Example) -> dict[str, Any]:
    """Encode one example's tiles; all share the photograph, and differ in the mask above it."""
    palette = [row.colour for row in report.rows]
    student, teacher = report.pair
    tiles = [_tile("ground truth", None, example.label, palette)]
    for index, model in enumerate(report.models):
        if model.name in example.predictions:
            tiles.append(_tile(model.name, index, example.predictions[model.name], palette))
    if student in example.predictions and teacher in example.predictions:
        verdict = disagreement(example.label, example.predictions[student], example.predictions[teacher])
        tile = _tile(f"{student} ≠ {teacher}", None, verdict, DISAGREEMENT_COLOURS, clear=(AGREE,))
        tiles.append({**tile, "differs": True})
    return {
        "name": example.name,
        "size": f"{example.width} × {example.height}",
        "ratio": f"{example.width} / {example.height}",
        "disagreement": f"{100 * example.disagreement:.1f}",
        "photo": _photo(shrink(example.image, LONGEST_SIDE)),
        "tiles": tiles,
    }


def _tile(
    title: str, model: int | None, mask: Pixels, palette: Sequence[Colour], *, clear: Sequence[int] = ()
) -> dict[str, Any]:
    data = _uri("image/png", mask_png(shrink(mask, LONGEST_SIDE), palette, clear=clear))
    return {"title": title, "model": model, "mask": data, "differs": False}


def _photo(image: Pixels) -> str:
    """Choose the encoding: JPEG where it saves much (photographs), PNG where it does not (drawings)."""
    png, jpeg = image_png(image), image_jpeg(image)
    return _uri("image/jpeg", jpeg) if 2 * len(jpeg) < len(png) else _uri("image/png", png)


def _verdicts(student: str, teacher: str) -> list[tuple[str, str]]:
    words = {
        STUDENT_RIGHT: f"{student} is right",
        TEACHER_RIGHT: f"{teacher} is right",
        BOTH_WRONG: "both are wrong, differently",
    }
    return [(text, hex_colour(DISAGREEMENT_COLOURS[verdict])) for verdict, text in words.items()]


def _cell(text: str, value: float | None, style: str = "") -> dict[str, str]:
    known = value is not None and math.isfinite(value)
    return {"text": text, "value": repr(float(value or 0)) if known else "", "style": style}


def _score(row: ClassRow, model: ModelSummary) -> float:
    return row.iou.get(model.name, math.nan)


def _or_zero(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else 0.0


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _sha256(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode("ascii")
