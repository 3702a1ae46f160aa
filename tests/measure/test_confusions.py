"""Confusion matrices: kept by the report, written and read as they are, drawn and ranked by rows."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_per_class import Split

from hwdkit.errors import DataError
from hwdkit.measure.confusions import cell_numbers, heat_map, strongest
from hwdkit.measure.types import ClassRow, ModelSummary, PerClassReport
from hwdkit.report.per_class import per_class_json
from hwdkit.report.saved import load_report

COUNTS = ((90, 10, 0), (30, 20, 0), (0, 0, 0))
OTHER = ((50, 25, 25), (0, 50, 0), (0, 0, 0))


@pytest.fixture
def report() -> PerClassReport:
    models = (
        ModelSummary("teacher", "teacher", "", 1, None, 0.7, 0.8, 0.9),
        ModelSummary("hwd", "student", "", 1, None, 0.6, 0.7, 0.9),
    )
    rows = tuple(ClassRow(name, (1, 2, 3), 0.3, {"teacher": 0.8, "hwd": 0.7}) for name in ("a", "b", "c"))
    report = PerClassReport(
        "scenes", "val", 5, 4.0, "activation", "present", ("hwd", "teacher"), models, rows
    )
    return replace(report, confusions={"teacher": OTHER, "hwd": COUNTS})


def test_the_report_keeps_the_counts_that_its_scores_come_from() -> None:
    split = Split({"teacher": 8, "student": 16})
    report = split.report()
    for model in report.models:
        kept, predicted = report.confusions[model.name], split.maps(model.name)
        assert kept[1][2] == int(((split.labels == 1) & (predicted == 2)).sum())
        assert sum(map(sum, kept)) == int((split.labels != 255).sum())
        assert sum(kept[c][c] for c in range(5)) / sum(map(sum, kept)) == pytest.approx(model.pixel_accuracy)


def test_the_strongest_confusions_are_the_students_by_part_of_the_class(report: PerClassReport) -> None:
    found = strongest(report)
    assert [(one.label, one.predicted) for one in found] == [(1, 0), (0, 1)]  # neither right ones nor none
    assert found[0].shares == {"teacher": 0.0, "hwd": 0.6}
    assert found[0].area == 30 / 150
    assert found[1].shares == {"teacher": 0.25, "hwd": 0.1}
    assert len(strongest(report, most=1)) == 1


def test_a_picture_is_opaque_where_there_are_many_and_clear_where_there_is_none() -> None:
    picture = Image.open(BytesIO(heat_map(COUNTS))).convert("RGBA")
    assert picture.size == (3, 3)
    pixels = [[picture.getpixel((x, y)) for x in range(3)] for y in range(3)]
    alpha = [[pixel[3] for pixel in line] for line in pixels]  # type: ignore[index]
    assert alpha[0][0] > alpha[1][0] > alpha[1][1] > alpha[0][1] > 0
    assert [alpha[0][2], alpha[2][0], alpha[2][2]] == [0, 0, 0]
    assert pixels[0][0][:3] != pixels[1][0][:3] == pixels[0][1][:3]  # type: ignore[index]


def test_numbers_are_percent_of_the_row() -> None:
    assert cell_numbers(COUNTS) == [(0, 0, 90), (0, 1, 10), (1, 0, 60), (1, 1, 40)]
    assert cell_numbers(((199, 1), (0, 1000))) == [(0, 0, 100), (0, 1, 1), (1, 1, 100)]


def test_a_report_is_read_with_and_without_its_matrices(report: PerClassReport, tmp_path: Path) -> None:
    path = tmp_path / "per-class.json"
    path.write_text(per_class_json(report))
    assert load_report(path).confusions == {"teacher": OTHER, "hwd": COUNTS}
    document = report.to_dict()
    del document["confusions"]
    path.write_text(json.dumps(document))
    assert load_report(path).confusions == {}


@pytest.mark.parametrize(
    ("confusions", "complaint"),
    [
        ([], "confusions: Input should be"),
        ({"else": COUNTS}, "of no model in the report"),
        ({"hwd": COUNTS[:2]}, "is not 3 by 3"),
        ({"hwd": [[1, 2], *COUNTS[1:]]}, "is not 3 by 3"),
        ({"hwd": [5, *COUNTS[1:]]}, "confusions.hwd.0: Input should be"),
        ({"hwd": [[1, 2, -1], *COUNTS[1:]]}, "0.2: Input should be greater than or equal to 0"),
        ({"hwd": [[1, 2, 0.5], *COUNTS[1:]]}, "0.2: Input should be a valid integer"),
        ({"hwd": [[1, 2, True], *COUNTS[1:]]}, "0.2: Input should be a valid integer"),
        ({"hwd": [[1, 2, 2**63], *COUNTS[1:]]}, "0.2: Input should be less than"),
    ],
)
def test_a_matrix_that_is_none_is_refused(
    report: PerClassReport, tmp_path: Path, confusions: Any, complaint: str
) -> None:
    document = copy.deepcopy(report.to_dict())
    document["confusions"] = confusions
    path = tmp_path / "per-class.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=complaint):
        load_report(path)
