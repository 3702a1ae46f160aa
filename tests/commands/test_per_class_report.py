"""What `hwdkit per-class-report` writes, prints and refuses."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image
from tiny_runs import Pair, hwdkit

from hwdkit.terminal import values

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


@pytest.fixture(scope="session")
def finished(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a measured report: all text formats, sorted by name, of four networks."""
    folder = tmp_path_factory.mktemp("finished")
    formats = [word for name in ("json", "csv", "md", "latex") for word in ("--format", name)]
    more = ["--baseline", pair.student, "--compare", f"other={pair.teacher}", "--limit", 3, "--sort", "name"]
    done = hwdkit(*line(pair, *more, *formats, "--out", folder))
    assert done.code == 0, done.err
    return folder


def line(pair: Pair, *more: object) -> list[object]:
    networks = ["--student", pair.student, "--teacher", pair.teacher]
    return ["per-class-report", *networks, "--data-root", pair.data, "--gpus", 0, "--workers", 0, "-q", *more]


def test_every_format_is_written_and_the_table_printed(pair: Pair) -> None:
    more = [
        "--baseline",
        pair.student,
        "--compare",
        f"cwd={pair.student}",
        "--examples",
        1,
        "--limit",
        2,
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


@pytest.mark.parametrize("name", ["json", "csv", "md", "html", "latex"])
def test_one_format_writes_its_files_and_prints_their_paths(finished: Path, name: str) -> None:
    done = hwdkit("per-class-report", "--from", finished, "--format", name, "-q")
    wanted = [f"reports/per-class.{'tex' if name == 'latex' else name}"]
    if name == "html":
        wanted += ["reports/per-class-iou.png", "reports/td-ntd.png"]
    assert done.out.splitlines() == wanted
    assert sorted(str(path) for path in Path("reports").iterdir()) == sorted(wanted)


def test_the_table_alone_writes_nothing_and_is_sorted(pair: Pair) -> None:
    done = hwdkit(*line(pair, "--format", "table", "--sort", "name", "--limit", 1))
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


TEXTS = ["per-class.json", "per-class.csv", "per-class.md", "per-class.tex"]


@pytest.mark.parametrize("given", ["folder", "file"])
def test_a_saved_report_is_written_again_to_the_byte(finished: Path, given: str) -> None:
    source = finished if given == "folder" else finished / "per-class.json"
    formats = [word for name in ("json", "csv", "md", "latex") for word in ("--format", name)]
    done = hwdkit("per-class-report", "--from", source, "--sort", "name", *formats, "--out", "again", "-q")
    assert done.code == 0, done.err
    for name in TEXTS:
        assert (Path("again") / name).read_bytes() == (finished / name).read_bytes()


def test_a_saved_report_is_shown_and_writes_nothing_by_default(finished: Path) -> None:
    done = hwdkit("per-class-report", "--from", finished, "--sort", "weight")
    assert (done.code, done.err) == (0, "")
    assert not list(Path().iterdir())
    document = json.loads((finished / "per-class.json").read_text())
    weights = {row["name"]: row["weight"] for row in document["rows"]}
    names = [text.split("  ")[0][3:] for text in done.out.splitlines() if text.startswith(" ■")]
    assert names[:12] == sorted(weights, key=lambda name: -weights[name])
    assert names[:12] == names[12:]  # the second table, of every student


def test_every_student_has_its_divergence(finished: Path) -> None:
    document = json.loads((finished / "per-class.json").read_text())
    for row in document["rows"]:
        assert list(row["divergences"]) == ["baseline", "other", "student"]
        other = row["divergences"]["other"]  # the teacher itself
        assert other["ntd"] == 0
        assert other["ratio"] is None
        assert row["divergences"]["baseline"] == row["divergences"]["student"]
        assert row["divergences"]["student"]["td"] == row["td"]
    text = (finished / "per-class.tex").read_text()
    assert r"\multicolumn{3}{c}{other}" in text


def test_classes_restrict_what_is_shown_and_not_what_is_kept(finished: Path) -> None:
    formats = [word for name in ("json", "csv", "table") for word in ("--format", name)]
    shown = ["--classes", "sky,Traffic Sign", "--classes", "road", "--sort", "class"]
    done = hwdkit("per-class-report", "--from", finished, *shown, *formats, "-q")
    names = [text.split("  ")[0][3:] for text in done.out.splitlines() if text.startswith(" ■")]
    assert names[:3] == ["road", "traffic sign", "sky"]
    assert "mean of all 12" in done.out
    assert len(Path("reports/per-class.csv").read_text().splitlines()) == 4
    kept = json.loads(Path("reports/per-class.json").read_text())
    assert kept == json.loads((finished / "per-class.json").read_text())


def test_a_class_that_there_is_not_is_refused_before_anything_is_measured(pair: Pair, finished: Path) -> None:
    for command in (line(pair), ["per-class-report", "--from", finished]):
        done = hwdkit(*command, "--classes", "road,trafic sign", "--format", "csv")
        assert done.code == 2
        assert "no class 'trafic sign'" in done.err
        assert "did you mean 'traffic sign'?" in done.err
        assert not Path("reports").exists()


def test_a_class_whose_name_holds_a_comma_can_be_named() -> None:
    classes = ("road, street", "sky", "car")
    assert values.classes(("Road, street", "car, sky"), classes) == ("road, street", "car", "sky")
    assert values.classes((), classes) == ()


def test_other_maps_and_divergences_are_measured_and_named(pair: Pair) -> None:
    numbers = []
    for more in (["--map", "logit"], ["--divergence", "kl", "--tau", 2]):
        document = hwdkit(*line(pair, *more, "--json", "--format", "table", "--limit", 1)).document
        numbers.append(document["rows"][0]["td"])
        assert document["divergence"] == ("kl" if "kl" in more else "mse")
        assert document["divergence_on"] == ("logits" if "logit" in more else "activation")
    assert document["temperature"] == 2
    assert numbers[0] > 100 * numbers[1]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--from", "x.json", "--tau", 4], "--tau means nothing with --from"),
        (["--from", "x.json", "--student", "x"], "--student means nothing with --from"),
        (["--from", "x.json", "--map", "logit"], "--map means nothing with --from"),
        (["--student", "x"], "--teacher missing"),
        ([], "--student and --teacher missing"),
        (["--student", "x", "--teacher", "y", "--out", __file__], "is a file, not a folder"),
        (["--student", "x", "--teacher", "y", "--tau", "inf"], "is not a finite temperature"),
        (["--student", "x", "--teacher", "y", "--tau", "nan"], "greater than or equal to 0.001"),
        (["--student", "x", "--teacher", "y", "--divergence", "l1"], "'l1' is not one of 'mse', 'kl'"),
        (["--student", "x", "--teacher", "y", "--map", "logits"], "is not one of 'activation', 'logit'"),
        (
            ["--student", "x", "--teacher", "y", "--divergence", "kl", "--map", "logit"],
            "needs --map activation",
        ),
    ],
)
def test_a_command_line_that_cannot_be_meant_is_refused(more: list[object], complaint: str) -> None:
    done = hwdkit("per-class-report", *more)
    assert (done.code, complaint in done.err) == (2, True), done.err


def test_a_saved_report_that_is_none_is_refused(tmp_path: Path) -> None:
    Path("broken.json").write_text('{"schema_version": 1, "rows": []}')
    for name, complaint in (("broken.json", "dataset: Field required"), ("gone.json", "cannot be read")):
        done = hwdkit("per-class-report", "--from", name)
        assert (done.code, complaint in done.err) == (4, True), done.err


def test_the_environment_may_name_data_that_a_saved_report_does_not_need(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWDKIT_DATA", "nowhere")
    assert hwdkit("per-class-report", "--from", finished).code == 0


def test_a_page_of_a_saved_report_says_that_it_has_no_examples(finished: Path) -> None:
    done = hwdkit("per-class-report", "--from", finished, "--format", "html")
    assert done.code == 0
    assert "no images" in done.err
    assert "traffic sign" in Path("reports/per-class.html").read_text()
