"""Tables, JSON, CSV and Markdown say the same numbers, and say when there is none."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from hwdkit.report import render
from hwdkit.report.types import ClassRow, ModelSummary, PerClassReport, Role


def summary(name: str, role: Role, miou: float) -> ModelSummary:
    return ModelSummary(name, role, f"runs/{name}/best.safetensors", 13_610_000, 5.63, miou, 0.7, 0.9)


def class_row(name: str, share: float, scores: tuple[float, float, float], ratio: float | None) -> ClassRow:
    iou = dict(zip(("teacher", "baseline", "hwd"), scores, strict=True))
    td = None if ratio is None else 1e-6 * ratio
    return ClassRow(name, (128, 64, 128), share, iou, td, None if ratio is None else 1e-6, ratio, 1.25)


@pytest.fixture
def report() -> PerClassReport:
    models = (
        summary("teacher", "teacher", 0.6),
        summary("baseline", "baseline", 0.5),
        summary("hwd", "student", 0.55),
    )
    rows = (
        class_row("road", 0.7, (0.98, 0.96, 0.97), 308.7),
        class_row("wall", 0.0, (math.nan, math.nan, math.nan), None),
        class_row("a|b, [red]c", 0.3, (0.5, 0.4, 0.35), 46.2),
    )
    return PerClassReport(
        "scenes",
        "val",
        500,
        4.0,
        "activation",
        "present",
        ("hwd", "teacher"),
        models,
        rows,
        notes=("A remark.",),
    )


def printed(table: Table, width: int = 200) -> str:
    console = Console(width=width, record=True, file=StringIO(), color_system=None)
    console.print(table)
    return console.export_text()


def names_in_order(report: PerClassReport, order: str) -> list[str]:
    return [row.name for row in report.ordered(order)]  # type: ignore[arg-type]


def test_json_round_trip_keeps_every_number(report: PerClassReport) -> None:
    text = render.per_class_json(report)
    assert render.per_class_json(PerClassReport.from_dict(json.loads(text))) == text
    assert json.loads(text)["schema_version"] == 1


def test_json_holds_null_where_a_class_is_absent(report: PerClassReport) -> None:
    document = json.loads(render.per_class_json(report), parse_constant=pytest.fail)
    assert document["rows"][1]["iou"]["hwd"] is None
    assert math.isnan(PerClassReport.from_dict(document).rows[1].iou["hwd"])


def test_a_document_of_another_version_or_with_an_unknown_key_is_refused(report: PerClassReport) -> None:
    document = report.to_dict()
    with pytest.raises(ValueError, match="schema_version 2"):
        PerClassReport.from_dict({**document, "schema_version": 2})
    with pytest.raises(ValueError, match="surprise"):
        PerClassReport.from_dict({**document, "surprise": 1})


def test_csv_parses_back_at_full_precision(report: PerClassReport) -> None:
    lines = list(csv.DictReader(StringIO(render.per_class_csv(report))))
    assert [line["class"] for line in lines] == [row.name for row in report.rows]
    assert float(lines[0]["iou_hwd"]) == report.rows[0].iou["hwd"]
    assert float(lines[2]["delta_to_baseline"]) == report.delta(report.rows[2])
    assert lines[0]["colour"] == "#804080"
    assert lines[1]["iou_hwd"] == lines[1]["td_ntd_ratio"] == ""


@pytest.mark.parametrize("order", ["iou", "gap", "share", "td-ntd"])
def test_sorting_puts_the_unknown_last_and_the_largest_first(report: PerClassReport, order: str) -> None:
    names = names_in_order(report, order)
    assert names[0] == ("a|b, [red]c" if order == "gap" else "road")
    assert names[-1] == "wall"  # nan, or the smallest share


def test_table_shows_percent_signs_of_change_and_means(report: PerClassReport) -> None:
    text = printed(render.per_class_table(report, "name"))
    for shown in ("97.00", "+1.00", "−5.00", "308.7", "a|b, [red]c", "55.00", "+5.00"):
        assert shown in text
    assert "nan" not in text


def test_a_narrow_table_leaves_columns_out_instead_of_cutting_numbers(report: PerClassReport) -> None:
    text = printed(render.per_class_table(report, width=80), width=80)
    assert "Too narrow for: TD" in " ".join(text.split())
    assert "…" not in text


def test_a_class_name_cannot_send_control_characters(report: PerClassReport) -> None:
    hostile = replace(report, rows=(replace(report.rows[0], name="ro\x1b[31mad\n"),))
    assert "\x1b" not in printed(render.per_class_table(hostile))
    assert "\x1b" not in render.per_class_markdown(hostile)


def test_markdown_rows_have_as_many_cells_as_the_head(report: PerClassReport) -> None:
    table = [line for line in render.per_class_markdown(report).splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(report.rows) + 1
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1


def test_without_a_baseline_the_difference_is_unknown(report: PerClassReport) -> None:
    alone = replace(report, models=(report.models[0], report.models[2]))
    assert alone.baseline is None
    assert math.isnan(alone.delta(alone.rows[0]))
    assert "hwd" in printed(render.per_class_table(alone))


def test_summary_emphasises_the_best_student_and_not_the_teacher() -> None:
    rows = [
        {
            "model": "teacher",
            "role": "teacher",
            "params": 39_640_000,
            "gmacs": 41.2,
            "miou": 0.7,
            "seconds": 60.0,
        },
        {
            "model": "plain",
            "role": "baseline",
            "params": 13_610_000,
            "gmacs": None,
            "miou": 0.5,
            "seconds": 20,
        },
        {"model": "cwd", "role": "student", "params": 13_610_000, "gmacs": 5.63, "miou": 0.52, "seconds": 20},
        {"model": "hwd", "role": "student", "params": 13_610_000, "gmacs": 5.63, "miou": 0.55},
        {"model": "broken", "role": "student", "miou": math.nan},
    ]
    markdown = render.summary_markdown(rows)
    assert "| **hwd** | **13.61** | **5.63** | **55.00** | **+5.00** | – |" in markdown
    assert markdown.count("**hwd**") == 1
    assert "**teacher**" not in markdown
    assert "› hwd" in printed(render.summary_table(rows))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (308.71, "309"),
        (0.0, "0.00"),
        (1.5e-9, "1.50e-09"),
        (None, "–"),
        (math.inf, "–"),
        (9.999, "10.0"),
        (0.0012345, "0.00123"),
    ],
)
def test_numbers_keep_three_significant_digits(value: float | None, text: str) -> None:
    assert render.number(value) == text


def test_a_difference_that_rounds_to_nothing_has_no_sign() -> None:
    assert render.points(-1e-7) == "0.00"
