"""The per-class report as one HTML page that needs nothing else: styles, script and images are inside it.

This file turns numbers into words, positions and data URIs; the page itself is page.html.j2.
"""

from __future__ import annotations

import base64
import hashlib
import math
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hwdkit.measure.types import ClassRow, ModelSummary, PerClassReport
from hwdkit.report.html.charts import (
    SHOWN_AT_ONCE,
    bar_row,
    divergence_chart,
    halves,
    place_score,
    weight_chart,
)
from hwdkit.report.html.examples import shown_example, shown_matrices, verdicts
from hwdkit.report.palette import hex_colour, model_tones
from hwdkit.report.per_class import QUANTITIES, class_table, confusion_table, divergence_table
from hwdkit.report.render import number, percent, points


def per_class_page(report: PerClassReport) -> str:
    """Write the report as a self-contained page.

    Its content security policy forbids every request and every script but its own, so class names, paths
    and notes that come from files cannot act even if escaping failed.
    """
    environment = Environment(
        loader=PackageLoader("hwdkit.report.html", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sha256"] = _sha256
    student, teacher = report.pair
    tones, students = model_tones(report.models, student), report.students()
    return environment.get_template("page.html.j2").render(
        report=report,
        student=student,
        teacher=teacher,
        tones=[(index, tones[model.name]) for index, model in enumerate(report.models)],
        cards=[_card(report, index, model) for index, model in enumerate(report.models)],
        lead=_lead(report),
        findings=_findings(report),
        definition=_definition(report),
        shown=SHOWN_AT_ONCE,
        bars=halves([bar_row(report, row) for row in report.rows[:SHOWN_AT_ONCE]]),
        more_bars=halves([bar_row(report, row) for row in report.rows[SHOWN_AT_ONCE:]]),
        divergence=divergence_chart(report),
        weights=weight_chart(report),
        students=[(i, model.name) for i, model in enumerate(report.models) if model.name in students],
        classes=class_table(report),
        divergences=divergence_table(report, quantities=QUANTITIES),
        confusions=confusion_table(report),
        matrices=shown_matrices(report),
        examples=[shown_example(report, example) for example in report.examples],
        legend=[(row.name, hex_colour(row.colour)) for row in report.rows],
        verdicts=verdicts(report),
    )


def _lead(report: PerClassReport) -> str:
    """Say the outcome in one sentence."""
    student, teacher = (report.model(name) for name in report.pair)
    if student is None or teacher is None:
        return ""
    behind = teacher.miou - student.miou
    distance = f"{abs(100 * behind):.1f} points {'below' if behind >= 0 else 'above'} {teacher.name}"
    start = f"{student.name} reaches {100 * student.miou:.1f} % mIoU, {distance}"
    baseline = report.baseline
    if baseline is None:
        return f"{start}."
    gain = student.miou - baseline.miou
    if abs(gain) < 5e-4:
        return f"{start}, no more than 0.05 points from {baseline.name}."
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
        gains = [row for row in report.rows if report.delta(row) > 0]
        gains.sort(key=report.delta, reverse=True)
        best = [(row.name, points(report.delta(row))) for row in gains]
        findings.append((f"{student} gains most over {baseline.name}", best[:4]))
        for model in report.models:
            if model.role in ("student", "compare"):
                losses = [(_score(row, model) - _score(row, baseline), row.name) for row in report.rows]
                worst = sorted(loss for loss in losses if loss[0] < 0)
                below = [(name, points(loss)) for loss, name in worst[:4]]
                findings.append((f"{model.name} is below {baseline.name}", below))
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


def _definition(report: PerClassReport) -> tuple[str, str]:
    """The divergence at a position as a formula, and what its letters stand for."""
    formula = "t ln(t / s) − t + s" if report.divergence == "kl" else "(t − s)²"
    if report.divergence_on == "logits":
        return formula, "the teacher's and the student's logit in the class's channel, without temperature"
    return formula, (
        "the teacher's and the student's value in the class's channel of the activation map, the softmax "
        f"over all positions at τ = {report.temperature:g}"
    )


def _score(row: ClassRow, model: ModelSummary) -> float:
    return row.iou.get(model.name, math.nan)


def _sha256(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode("ascii")
