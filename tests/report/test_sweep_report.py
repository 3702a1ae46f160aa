"""The numbers of a sweep's summary, and its figure."""

from __future__ import annotations

import csv
import json
import math
from io import BytesIO, StringIO
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from hwdkit.report.plots.style import WIDTH
from hwdkit.report.plots.sweep import can_draw, log_spaced, miou_lines
from hwdkit.report.sweep import (
    CellResult,
    SeedResult,
    SweepReport,
    best_cell,
    sweep_csv,
    sweep_json,
    sweep_markdown,
    sweep_table,
)


def cell(
    values: dict[str, Any], *scores: float | None, line: str = "grid", offset: float = 0.1
) -> CellResult:
    """One run a score; None has diverged."""
    runs = tuple(
        SeedResult(seed, "diverged")
        if score is None
        else SeedResult(seed, "finished", score, score + 0.1, 10.0 + seed)
        for seed, score in enumerate(scores)
    )
    name = ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in values.items()) or line
    return CellResult(name, line, values, runs)


BETA, MU = "losses.hwd.beta", "losses.hwd.mu"
SMALL = cell({BETA: 0.01}, 0.30, 0.34)
LARGE = cell({BETA: 0.7}, 0.40, None)
BASE = cell({}, 0.20, 0.30, line="baseline")
CWD = cell({}, 0.25, 0.26, line="cwd")
REPORT = SweepReport("scenes-r10-hwd", (BETA,), (0, 1), (SMALL, LARGE, BASE, CWD))


def test_deviation_is_over_the_finished_seeds_with_n_minus_1() -> None:
    assert SMALL.mean("last") == pytest.approx(0.32)
    assert SMALL.std("last") == pytest.approx(math.sqrt(2 * 0.02**2))
    assert SMALL.mean("best") == pytest.approx(0.42)
    assert LARGE.mean("last") == 0.40
    assert LARGE.std("last") is None
    assert cell({BETA: 1}, None).mean("last") is None
    assert SMALL.seconds == 10.5


def test_delta_compares_the_seeds_that_both_have_finished() -> None:
    assert REPORT.delta(SMALL, "last") == pytest.approx(0.07)
    assert REPORT.delta(LARGE, "last") == pytest.approx(0.40 - 0.20)
    assert REPORT.delta(BASE, "last") is None
    assert SweepReport("r", (BETA,), (0, 1), (SMALL,)).delta(SMALL, "last") is None


def test_an_unlabelled_splits_score_enters_no_mean() -> None:
    assert cell({BETA: 1}, math.nan, 0.5).scores("last") == {1: 0.5}


def test_csv_and_json_hold_full_precision_and_leave_the_unknown_empty() -> None:
    rows = list(csv.DictReader(StringIO(sweep_csv(REPORT))))
    assert [row["line"] for row in rows] == ["grid", "grid", "baseline", "cwd"]
    assert float(rows[0]["last_miou_mean"]) == SMALL.mean("last")
    assert float(rows[0]["last_miou_std"]) == SMALL.std("last")
    assert rows[1]["last_miou_std"] == rows[1]["last_miou_seed_1"] == rows[2][BETA] == ""
    assert [row["diverged"] for row in rows] == ["0", "1", "0", "0"]
    document = json.loads(sweep_json(REPORT))
    assert document["cells"][0]["miou"]["last"]["mean"] == SMALL.mean("last")
    assert document["cells"][1]["runs"][1]["status"] == "diverged"
    assert document["cells"][1]["miou"]["last"]["std"] is None


def test_tables_show_percent_points_and_mark_the_best_cell() -> None:
    assert best_cell(REPORT, "last") is LARGE
    console = Console(width=200, record=True, file=StringIO())
    console.print(sweep_table(REPORT))
    text = console.export_text()
    assert "› 0.7" in text
    assert "32.00 ± 2.83" in text
    assert "+7.00" in text
    assert "40.00  diverged" in text
    markdown = sweep_markdown(REPORT)
    assert "| **0.7** |" in markdown
    assert "| cwd | 2 | 25.50 ± 0.71 |" in markdown


def test_a_value_cannot_steer_the_terminal_or_the_page() -> None:
    odd = SweepReport("r|", ("summary",), (0,), (cell({"summary": "\x1b[31m|<b>"}, 0.5),))
    console = Console(width=200, record=True, file=StringIO())
    console.print(sweep_table(odd))
    assert "\x1b[31m" not in console.export_text()
    markdown = sweep_markdown(odd)
    assert "\x1b" not in markdown
    assert "\\|&lt;b>" in markdown


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.01, 0.1, 0.7), True),
        ((1e-4, 1e-3), True),
        ((1, 2, 4, 8, 16), True),
        ((-1, 0, 1), False),
        ((0, 0.1, 10), False),
        ((1, 2, 3), False),
        ((1, 10, 19), False),
        ((5,), False),
    ],
)
def test_an_axis_is_logarithmic_where_the_values_are_spaced_so(
    values: tuple[float, ...], expected: bool
) -> None:
    assert log_spaced(values) is expected


def grid(*sizes: int) -> SweepReport:
    keys = tuple(f"k.{number}" for number in range(len(sizes)))
    cells: list[dict[str, Any]] = [{}]
    for key, size in zip(keys, sizes, strict=True):
        cells = [{**values, key: step} for values in cells for step in range(size)]
    return SweepReport("r", keys, (0,), tuple(cell(values, 0.1) for values in cells))


@pytest.mark.parametrize("sizes", [(3,), (3, 2), (2, 2, 2), (1,), (2, 8)])
def test_one_two_and_three_keys_are_drawn(sizes: tuple[int, ...]) -> None:
    report = grid(*sizes)
    assert can_draw(report) == ""
    picture = Image.open(BytesIO(miou_lines(report)))
    assert picture.width == round(WIDTH * 200)
    assert (picture.height > 800) == (len(sizes) == 3)


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (grid(2, 9), "9 values"),
        (grid(2, 2, 7), "7 panels"),
        (SweepReport("r", (), (0,), (cell({}, 0.1),)), "no grid key"),
        (SweepReport("r", (BETA,), (0,), (cell({BETA: 1}, None), BASE)), "no run of the grid has finished"),
    ],
)
def test_what_cannot_be_drawn_is_said(report: SweepReport, reason: str) -> None:
    assert reason in can_draw(report)


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_the_figure_has_all_forms_and_repeats_byte_for_byte(form: Any) -> None:
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[form]
    assert miou_lines(REPORT, form).startswith(begins)
    assert miou_lines(REPORT, form) == miou_lines(REPORT, form)


def test_the_figure_changes_with_the_metric_and_the_reference() -> None:
    alone = SweepReport("r", (BETA,), (0, 1), (SMALL, LARGE))
    near = SweepReport("r", (BETA,), (0, 1), (SMALL, LARGE, CWD))
    assert miou_lines(alone) != miou_lines(near)
    assert miou_lines(alone) != miou_lines(alone, metric="best")


def test_names_instead_of_numbers_get_an_axis_of_names() -> None:
    odd = SweepReport(
        "r", ("train.amp",), (0,), tuple(cell({"train.amp": v}, 0.1) for v in ("$x_", None, True))
    )
    assert miou_lines(odd).startswith(b"\x89PNG")
