"""A report comes back from its JSON as it was, and what is no report is refused in one sentence."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwdkit.errors import DataError
from hwdkit.measure.types import ClassDivergence, ClassRow, ModelSummary, PerClassReport
from hwdkit.report.per_class import per_class_csv, per_class_json, per_class_latex, per_class_markdown
from hwdkit.report.saved import load_report


@pytest.fixture
def report() -> PerClassReport:
    models = (
        ModelSummary("teacher", "teacher", "t.safetensors", 100, 1.5, 2 / 3, 0.7, math.nan),
        ModelSummary("cwd", "compare", "c.safetensors", 10, None, 0.1, 0.7, 0.9),
        ModelSummary("hwd", "student", "s.safetensors", 10, None, 0.1 + 0.2, 0.7, 0.9),
    )
    other = ClassDivergence(1 / 3, 1e-300, 3e7, None, 0.5, images=2)
    rows = (
        ClassRow("road", (1, 2, 255), 1 / 7, {"teacher": 1.0, "cwd": 0.1, "hwd": 1 / 9}, 1e-9, 1e-10, 10.0,
                 1.1, image_ratio=12.0, ratio_images=3, divergences={"cwd": other}),
        ClassRow("wall", (0, 0, 0), 0.0, {"teacher": math.nan, "cwd": math.nan, "hwd": 0.0}),
    )  # fmt: skip
    return PerClassReport(
        "scenes", "val", 5, 2.5, "activation", "paper", ("hwd", "teacher"), models, rows,
        notes=("A remark.",), fingerprint="f", divergence="kl",
    )  # fmt: skip


def saved(report: PerClassReport, folder: Path) -> Path:
    (folder / "per-class.json").write_text(per_class_json(report))
    return folder / "per-class.json"


def test_what_is_written_from_a_saved_report_is_the_same_to_the_byte(
    report: PerClassReport, tmp_path: Path
) -> None:
    path = saved(report, tmp_path)
    for again in (load_report(path), load_report(tmp_path)):
        for write in (per_class_json, per_class_csv, per_class_markdown, per_class_latex):
            assert write(again) == write(report)


def test_what_the_command_prints_with_json_is_a_report_too(report: PerClassReport, tmp_path: Path) -> None:
    path = tmp_path / "printed.json"
    path.write_text(json.dumps({**report.to_dict(), "status": "ok", "files": ["a"]}))
    assert load_report(path).to_dict() == report.to_dict()


def test_a_report_without_the_later_keys_is_read(report: PerClassReport, tmp_path: Path) -> None:
    document = report.to_dict()
    del document["divergence"]
    for row in document["rows"]:
        for key in ("image_ratio", "ratio_images", "divergences"):
            del row[key]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(document))
    old = load_report(path)
    assert (old.divergence, old.students()) == ("mse", ["hwd"])
    assert old.divergence_of(old.rows[0], "hwd").td == 1e-9
    assert old.divergence_of(old.rows[0], "cwd") == ClassDivergence()


def put(*keys: str | int, value: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (put("schema_version", value=2), "schema_version 2"),
        (put("surprise", value=1), "surprise: Unexpected"),
        (put("rows", value=5), "rows: Input should be a valid"),
        (put("rows", 0, value="road"), "rows.0: Input should be"),
        (put("rows", 0, "td", value="1e-9"), "rows.0.td: Input should be a valid number"),
        (put("rows", 0, "td", value=1e300), "rows.0.td: .*too large"),
        (put("rows", 0, "td", value=math.nan), "rows.0.td: .*too large"),
        (put("rows", 0, "td", value=True), "rows.0.td: Input should be a valid number"),
        (put("rows", 0, "share", value=10**400), "rows.0.share: "),
        (put("rows", 0, "iou", "hwd", value="x"), "rows.0.iou.hwd: Input should be a valid number"),
        (
            put("rows", 0, "colour", value=[0, 1, 256]),
            "rows.0.colour.2: Input should be less than or equal to 255",
        ),
        (put("rows", 1, "name", value="road"), "a class occurs twice"),
        (put("rows", 0, "divergences", "cwd", value=[]), "rows.0.divergences.cwd: Input should be"),
        (
            put("rows", 0, "divergences", "cwd", "images", value=1.5),
            "cwd.images: Input should be a valid integer",
        ),
        (put("models", 0, "role", value="boss"), "models.0.role: Input should be 'teacher', "),
        (put("models", 0, "role", value=[]), "models.0.role: Input should be 'teacher', "),
        (put("models", 1, "name", value="hwd"), "a model occurs twice"),
        (put("pair", value=["hwd"]), "pair.1: "),
        (put("notes", value=[1]), "notes.0: Input should be a valid string"),
        (put("divergence", value="l1"), "divergence: Input should be 'mse' or 'kl'"),
        (put("examples", value=[{}]), "examples: a report has none"),
    ],
)
def test_a_document_that_is_no_report_is_refused(
    report: PerClassReport, tmp_path: Path, change: Callable[[Any], None], complaint: str
) -> None:
    document = copy.deepcopy(report.to_dict())
    change(document)
    path = tmp_path / "per-class.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=complaint) as caught:
        load_report(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b'{"schema_version": NaN}', b"[" * 100_000]
)
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "per-class.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a per-class report"):
        load_report(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_report(tmp_path)
