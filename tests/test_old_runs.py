"""Runs of hwdkit 0.1.0, recorded with its own code, load, continue, evaluate, compare and render as then."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import hwdkit

RECORDED = Path(__file__).parent / "golden" / "runs-0.1.0.tar.xz"
"""Made on scenes (8 + 4 images) by `train-teacher`, `distill`, `sweep`, `compare` and `per-class-report`; one
`distill` was interrupted by --max-time. Paths inside are those of a folder /recorded."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded runs, and the dataset that they were made on: drawn again."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(RECORDED) as archive:
        archive.extractall(folder, filter="data")
    for recipe in folder.rglob("recipe.yaml"):
        recipe.write_text(recipe.read_text().replace("/recorded/", f"{folder}/"))
    drawn = hwdkit("prepare-data", "scenes", "--train", 8, "--val", 4, "--data-root", folder / "data", "-q")
    assert drawn.code == 0, drawn.err
    return folder


def scores(document: dict) -> dict:
    return {key: document[key] for key in ("miou", "macc", "pixel_accuracy", "images", "per_class")}


def test_a_run_that_has_finished_evaluates_to_the_same_numbers(world: Path) -> None:
    before = json.loads((world / "student.evaluate.json").read_text())
    now = hwdkit("evaluate", "-c", world / "student", "--data-root", world / "data", "--gpus", 0, "--json")
    assert now.code == 0, now.err
    assert scores(now.document) == scores(before)
    assert now.document["checkpoint_sha256"] == before["checkpoint_sha256"]


def test_an_interrupted_run_ends_where_one_without_a_break_ended(world: Path, tmp_path: Path) -> None:
    resumed, fresh = tmp_path / "resumed", tmp_path / "fresh"
    shutil.copytree(world / "interrupted", resumed)
    options = ("--data-root", world / "data", "--gpus", 0, "-q")
    for more in (("--resume", resumed), ("--recipe", world / "student" / "recipe.yaml", "--out", fresh)):
        done = hwdkit("distill", *more, *options)
        assert done.code == 0, done.err
    recorded, ended, repeated = (
        load_file(run / "student.safetensors") for run in (world / "student", resumed, fresh)
    )
    if all(torch.equal(repeated[name], recorded[name]) for name in recorded):
        assert all(torch.equal(ended[name], recorded[name]) for name in recorded)
    else:  # another torch, or another processor, rounds otherwise
        torch.testing.assert_close(ended, recorded, rtol=0.02, atol=0.02)
    rows = [json.loads(line)["step"] for line in (resumed / "metrics.jsonl").read_text().splitlines()]
    assert rows == sorted(rows)
    assert rows[-1] == 80


def test_a_finished_run_resumed_prints_its_result_and_touches_nothing(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)  # where it was run
    before = {path: path.stat().st_mtime_ns for path in Path("teacher").rglob("*")}
    done = hwdkit("train-teacher", "--resume", "teacher", "--data-root", "data", "--json", "-q")
    assert done.code == 0, done.err
    assert done.document["checkpoint"] == "teacher/teacher.safetensors"
    assert {path: path.stat().st_mtime_ns for path in Path("teacher").rglob("*")} == before


def test_old_runs_are_compared_as_they_were(world: Path) -> None:
    before = json.loads((world / "compare.json").read_text())
    now = hwdkit(
        "compare", world / "baseline", world / "student", "--data-root", world / "data", "--gpus", 0, "--json"
    )
    assert now.code == 0, now.err
    assert [method["miou"] for method in now.document["methods"]] == [
        method["miou"] for method in before["methods"]
    ]


def test_an_old_report_is_rendered_again(world: Path) -> None:
    saved = world / "report" / "per-class.json"
    shown = hwdkit("per-class-report", "--from", saved, "--format", "md", "--out", world / "again")
    assert shown.code == 0, shown.err
    written = (world / "again" / "per-class.md").read_text()
    assert written == (world / "report" / "per-class.md").read_text()


def test_an_old_sweep_runs_what_is_missing_and_keeps_the_rest(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    old = json.loads(Path("sweep/summary.json").read_text())
    kept = Path("sweep/beta=0.1/seed=0/student.safetensors")
    before = kept.stat().st_mtime_ns
    shutil.rmtree("sweep/beta=0.1/seed=1")
    small = "{layers: [1, 1, 1, 1], channels: [4, 4, 8, 8], stem_type: deep, stem_width: 2}"
    settings = [
        *("train.batch_size=2", "train.log_every=10", "data.workers=0", "data.crop=[32,32]"),
        *("optimizer.warmup=0", "train.save_every=20", "train.evaluate_every=40", "student.head_channels=4"),
        *("train.iterations=20", f"student.backbone_options={small}"),
    ]
    again = hwdkit(
        *("sweep", "--recipe", "scenes-r10-hwd", "--grid", "losses.hwd.beta=0.1", "--seeds", "0,1"),
        *(word for setting in settings for word in ("--set", setting)),
        *("--teacher", "teacher", "--out", "sweep", "--data-root", "data", "--gpus", 0, "--quiet"),
    )
    assert again.code == 0, again.err
    assert kept.stat().st_mtime_ns == before
    assert Path("sweep/beta=0.1/seed=1/student.safetensors").is_file()
    (cell,) = json.loads(Path("sweep/summary.json").read_text())["cells"]
    assert cell.keys() == old["cells"][0].keys()


def test_an_old_checkpoint_holds_what_it_says(world: Path) -> None:
    checked = hwdkit("checkpoint", "verify", world / "student" / "student.safetensors", "--json")
    assert checked.code == 0, checked.err
    shown = hwdkit("checkpoint", "inspect", world / "student", "--json")
    assert shown.document["recipe"] == "scenes-r10-hwd"
