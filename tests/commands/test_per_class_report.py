"""What `hwdkit per-class-report` writes, prints and refuses."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image
from tiny_runs import Pair, hwdkit

FILES = [
    "per-class.json",
    "per-class.csv",
    "per-class.md",
    "per-class.html",
    "per-class-iou.png",
    "td-ntd.png",
]


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def line(pair: Pair, *more: object) -> list[object]:
    networks = ["--student", pair.student, "--teacher", pair.teacher]
    return ["per-class-report", *networks, "--data-root", pair.data, "--gpus", 0, "-q", *more]


def test_every_format_is_written_and_the_table_printed(pair: Pair) -> None:
    more = [
        "--baseline",
        pair.student,
        "--compare",
        f"cwd={pair.student}",
        "--examples",
        1,
        "--out",
        "deep/er",
    ]
    done = hwdkit(*line(pair, *more))
    assert done.code == 0, done.err
    folder = Path("deep/er")
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    report = json.loads((folder / "per-class.json").read_text())
    assert [model["name"] for model in report["models"]] == ["teacher", "baseline", "cwd", "student"]
    assert len(list(csv.reader(io.StringIO((folder / "per-class.csv").read_text())))) > 12
    for name in ("traffic sign", "cwd", "TD"):
        assert name in (folder / "per-class.md").read_text()
        assert name in (folder / "per-class.html").read_text()
        assert name in done.out
    for name in ("per-class-iou.png", "td-ntd.png"):
        with Image.open(folder / name) as picture:
            picture.load()


@pytest.mark.parametrize("name", ["json", "csv", "md", "html"])
def test_one_format_writes_its_files_and_prints_their_paths(pair: Pair, name: str) -> None:
    done = hwdkit(*line(pair, "--format", name, "--examples", 0))
    wanted = [f"reports/per-class.{name}"]
    if name == "html":
        wanted += ["reports/per-class-iou.png", "reports/td-ntd.png"]
    assert done.out.splitlines() == wanted
    assert sorted(str(path) for path in Path("reports").iterdir()) == sorted(wanted)


def test_the_table_alone_writes_nothing_and_is_sorted(pair: Pair) -> None:
    done = hwdkit(*line(pair, "--format", "table", "--sort", "name"))
    assert not Path("reports").exists()
    rows = [text for text in done.out.splitlines() if text.startswith(" ■")]
    names = [text.split("  ")[0][3:] for text in rows]
    assert names == sorted(names)
    assert len(names) == 12


def test_the_json_holds_the_report_and_its_files(pair: Pair) -> None:
    document = hwdkit(*line(pair, "--json", "--format", "csv", "--limit", 2, "--examples", 0)).document
    assert document["files"] == ["reports/per-class.csv"]
    assert document["images"] == 2
    assert any("first 2 of 4" in note for note in document["notes"])


def test_a_network_for_other_classes_is_refused(pair: Pair) -> None:
    gone = hwdkit(*line(pair, "--baseline", "gone"))
    assert (gone.code, "gone: no such checkpoint" in gone.err) == (5, True)
    assert not Path("reports").exists()
