"""Every figure is drawn, also from odd numbers and odd names."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO

import pytest
from PIL import Image

from hwdkit.measure.types import ClassRow, ModelSummary, PerClassReport
from hwdkit.report.plots.curves import _term_keys, curves
from hwdkit.report.plots.per_class import iou_bars, td_ntd
from hwdkit.report.plots.style import WIDTH

Figure = Callable[..., bytes]


@pytest.fixture
def report() -> PerClassReport:
    models = (
        ModelSummary("teacher", "teacher", "", 1, None, 0.7, 0.8, 0.9),
        ModelSummary("_hwd", "student", "", 1, None, 0.6, 0.7, 0.9),
    )
    names = (
        "road",
        "$x_",
        "traffic light",
        "<b>",
        "a\nb",
        "sky",
        "car",
        "rider",
        "swimming-pool; natatorium",
    )
    ratios = (308.7, 0.5, None, math.inf, 46.2, 1.0, 12.0, 3.0, 2.0)
    rows = tuple(
        ClassRow(
            name, (1, 2, 3), 0.1, {"teacher": 0.8, "_hwd": math.nan if ratio is None else 0.7}, ratio=ratio
        )
        for name, ratio in zip(names, ratios, strict=True)
    )
    return PerClassReport("scenes", "val", 5, 4.0, "activation", "present", ("_hwd", "teacher"), models, rows)


def opened(data: bytes) -> Image.Image:
    picture = Image.open(BytesIO(data))
    picture.load()
    assert picture.format == "PNG"
    return picture


@pytest.mark.parametrize("figure", [iou_bars, td_ntd])
def test_figures_are_png_of_one_width(report: PerClassReport, figure: Figure) -> None:
    assert opened(figure(report)).width == round(WIDTH * 200)


@pytest.mark.parametrize("figure", [iou_bars, td_ntd])
def test_the_same_report_gives_the_same_svg(report: PerClassReport, figure: Figure) -> None:
    drawn = figure(report, "svg")
    assert b"<svg" in drawn
    assert drawn == figure(report, "svg")


@pytest.mark.parametrize("figure", [iou_bars, td_ntd])
def test_a_report_without_a_class_still_draws(report: PerClassReport, figure: Figure) -> None:
    opened(figure(replace(report, rows=())))


def test_many_classes_make_the_figure_taller_and_not_wider(report: PerClassReport) -> None:
    few, many = opened(iou_bars(report)), opened(iou_bars(replace(report, rows=report.rows * 3)))
    assert many.width == few.width
    assert many.height > few.height


def test_curves_draw_terms_rate_and_score_and_skip_what_is_not_finite() -> None:
    rows = [
        {"step": step, "ce": 2.0 / (step + 1), "hwd": math.nan, "lr": 0.1, "step_ms": 9.0}
        for step in range(5)
    ]
    full = opened(curves([*rows, {"step": 4, "miou": 0.5}, {"event": "done"}]))
    assert full.height > opened(curves(rows)).height


def test_curves_of_an_empty_log_still_draw() -> None:
    opened(curves([]))


def test_keys_with_a_unit_are_no_loss_terms() -> None:
    assert _term_keys([{"step": 1, "ce": 1.0, "step_ms": 2.0, "memory_mib": 3, "lr": 0.1}]) == ["ce"]


def test_the_page_and_the_tables_do_not_load_matplotlib_or_torch() -> None:
    code = (
        "import sys, hwdkit.report.html.page, hwdkit.report.table; "
        "sys.exit(bool({'matplotlib', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
