"""What `hwdkit sweep` runs, skips, refuses and counts."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import ROOT, STUDENT, Outcome, Pair, environment, hwdkit, steps

from hwdkit.commands.sweep import grid as sweep_grid
from hwdkit.commands.sweep import plan as sweep_plan
from hwdkit.commands.sweep.runs import Outcome as Outcome_
from hwdkit.commands.sweep.runs import Pool
from hwdkit.commands.sweep.visit import _devices
from hwdkit.errors import EnvironmentFailure, UsageError
from hwdkit.terminal.launch import Launch
from hwdkit.terminal.signals import StopRequest

GRID = ["--grid", "optimizer.lr=1e-3,1e30"]  # the second diverges at once
LIMITED = ["--set", "train.save_every=1"]


def swept(pair: Pair, out: Path, *arguments: object) -> Outcome:
    """A sweep of one-step runs unless the arguments say otherwise."""
    known = ["--teacher", pair.teacher, "--data-root", pair.data, "--gpus", 0, "--quiet"]
    return hwdkit("sweep", *STUDENT, *steps(2), *LIMITED, "--out", out, *known, *arguments)


@dataclass(frozen=True)
class Made:
    """A sweep of two cells: one was run by its emitted command, the other by the sweep, and diverged."""

    folder: Path
    outcome: Outcome


@pytest.fixture(scope="module")
def made(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("sweep") / "made"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
        emitted = swept(pair, folder, *GRID, "--emit-commands").out.splitlines()
        first = hwdkit(*shlex.split(emitted[0])[1:], "--quiet")  # in this process: a second one costs seconds
        assert first.code == 0, first.err
        return Made(folder, swept(pair, folder, *GRID, "--json"))


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.folder, tmp_path / "sweep"))


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".sweep.lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.01, 0.1,0.7", [0.01, 0.1, 0.7]),
        ("[32,32],[64,64]", [[32, 32], [64, 64]]),
        ("{layers: [1, 1]},null", [{"layers": [1, 1]}, None]),
        ("'a,b',c,off", ["a,b", "c", "off"]),
        ('don\'t,["x"]', ["don't", ["x"]]),
    ],
)
def test_commas_inside_brackets_and_quotes_belong_to_a_value(text: str, values: list[Any]) -> None:
    assert sweep_grid.axes([f"data.crop={text}"]) == {"data.crop": values}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "losses.hwd.beta"], "is not KEY=VALUE"),
        (["--grid", "losses.hwd.beta="], "is not KEY=VALUE"),
        (["--grid", "losses.hwd.beta=0.1,,0.2"], "empty value"),
        (["--grid", "data.crop=[32,32"], "open bracket"),
        (["--grid", "losses.hwd.beta=0.1,0.10"], "a value is given twice"),
        (["--grid", "losses.hwd.mu=1,1.0"], "a value is given twice"),
        (["--grid", "losses.hwd.mu=1", "--grid", "losses.hwd.mu=2"], "given twice"),
        (["--grid", "seed=0,1"], "use --seeds"),
        (["--seeds", "0,x"], "not a list of whole numbers"),
        (["--seeds", "0,0"], "names a seed twice"),
        (["--set", "seed=1", "--seeds", "0"], "use --seeds"),
        (["--set", "losses.hwd.mu=3", "--grid", "losses.hwd.mu=1,2"], "in --set and in --grid"),
        (["--seeds", "0", "--reference", "cwd"], "is not NAME=RECIPE"),
        (["--seeds", "0", "--reference", "baseline=scenes-r10-cwd"], "is taken"),
        (["--seeds", "0", "--jobs", "0"], "--jobs"),
        (["--seeds", "0", "--dry-run", "--emit-commands"], "exclude each other"),
        (["--seeds", "0", "--summary-only", "--out", "x"], "none of --recipe"),
        (["--seeds", "0", "--emit-commands", "--jobs", "2"], "runs nothing"),
        (["--seeds", "0", "--emit-commands", "--fail-fast"], "runs nothing"),
        (["--grid", "losses.hwd={mu: 1},{mu: 2}", "--grid", "losses.hwd.mu=5"], "are one recipe"),
        ([], "nothing to sweep"),
    ],
)
def test_a_command_line_that_cannot_be_meant_is_refused(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = hwdkit("sweep", *STUDENT, *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("losses.hwd.beta=0.1,7", "losses.hwd.beta = 7: must be less than 1"),
        ("losses.hwd.btea=0.1", "unknown key 'losses.hwd.btea'"),
        ("train.amp=off,[", "--grid train.amp"),
    ],
)
def test_every_cells_recipe_is_checked_before_anything_begins(
    grid: str, message: str, pair: Pair, tmp_path: Path
) -> None:
    done = swept(pair, tmp_path / "out", "--grid", grid)
    assert done.code == (2 if "[" in grid else 3)
    assert message in done.err
    assert not (tmp_path / "out").exists()


def plan(*options: str, lines: dict[str, str] | None = None, overrides: tuple[str, ...] = ()) -> Any:
    grid = sweep_grid.axes(options)
    return sweep_plan.planned("scenes-r10-hwd", grid, overrides=overrides, seeds=None, lines=lines or {})


def test_folders_are_readable_safe_and_distinct() -> None:
    named = plan("losses.hwd.mu=-1,0.5", "data.crop=[32,32],[64, 64]", "summary='a/../b',a b,'null',été")
    names = [cell.name for cell in named.cells]
    assert names[0].startswith("mu=-1,crop=32x32,summary=a-..-b-")
    assert "mu=0.5,crop=64x64,summary=null" in names
    assert len(set(names)) == 16
    assert all(shlex.quote(name) == name and "/" not in name for name in names)
    longer = plan("losses.hwd.weight=1,2", "losses.ce.weight=1,2")
    assert longer.cells[0].name == "losses.hwd.weight=1,losses.ce.weight=1"


def test_a_seed_is_tried_on_all_cells_before_the_next_one() -> None:
    order = [job.name for job in plan("losses.hwd.mu=0,1").jobs]
    assert order == ["mu=0/seed=0", "mu=1/seed=0"]
    two = sweep_plan.planned(
        "scenes-r10-hwd", sweep_grid.axes(["losses.hwd.mu=0,1"]), overrides=[], seeds=(5, 3), lines={}
    )
    assert [(job.cell.name, job.seed) for job in two.jobs][1:3] == [("mu=1", 5), ("mu=0", 3)]


def test_any_key_and_value_make_the_name_of_a_folder() -> None:
    odd = {"student.backbone_options.../x y": "../z", "losses.a/b.beta": [1, 0.5]}
    name = sweep_grid.folder_name(odd)
    assert "/" not in name
    recipe = plan("losses.hwd.mu=0").cells[0].recipe
    assert sweep_plan.Cell(name=name, line="grid", values=odd, recipe=recipe).name == name
    long = {f"losses.hwd.{key * 9}": key * 60 for key in "abcdefgh"}
    names = {sweep_grid.folder_name({**long, "losses.hwd.mu": mu}) for mu in (0, 1)}
    assert len(names) == 2
    assert max(map(len, names)) < 200


def test_runs_that_obeyed_a_stop_have_not_failed() -> None:
    job = plan("losses.hwd.mu=0,1").jobs[0]
    pool = Pool(plan("losses.hwd.mu=0,1"), Path(), Path(), [None], lock=0, stop=StopRequest())
    fine, diverged = Outcome_(job, 0, 1.0), Outcome_(job, 7, 1.0)
    stopped_by_us, by_others = Outcome_(job, 75, 1.0, {}, obeyed=True), Outcome_(job, 75, 1.0)
    pool.outcomes = [fine, diverged, stopped_by_us, by_others]
    assert pool.failures() == [diverged, by_others]


def test_the_lines_share_the_budget_but_not_the_losses() -> None:
    overrides = ("train.iterations=7", "losses.hwd.weight=9", "teacher.checkpoint=x")
    drawn = plan(
        "losses.hwd.mu=0,1",
        overrides=overrides,
        lines={"baseline": "scenes-r10-baseline", "cwd": "scenes-r10-cwd"},
    )
    baseline, cwd = drawn.cells[2:]
    assert [cell.recipe.train.iterations for cell in drawn.cells] == [7] * 4
    assert (baseline.line, cwd.line) == ("baseline", "cwd")
    assert set(baseline.recipe.losses) == {"ce"}
    assert set(cwd.recipe.losses) == {"ce", "cwd"}
    assert baseline.recipe.teacher is None


def test_a_line_on_another_dataset_is_refused(pair: Pair, tmp_path: Path) -> None:
    done = swept(pair, tmp_path / "out", *GRID, "--baseline", "camvid-mbv2-baseline")
    assert done.code == 3
    assert "is on camvid, the sweep on scenes" in done.err


def test_a_diverged_run_is_counted_and_stops_no_other(made: Made) -> None:
    done, folder = made.outcome, made.folder
    assert done.code == 7, done.err
    document = done.document
    assert document["error"]["kind"] == "diverged"
    assert "1 of 2 runs failed: lr=1e+30/seed=0 diverged" in document["error"]["message"]
    assert document["runs"] == {"finished": 1, "diverged": 1}
    first, second = document["cells"]
    result = json.loads((folder / "lr=0.001/seed=0/run.json").read_text())["result"]
    assert first["miou"]["last"]["mean"] == result["last"]["miou"]
    assert first["miou"]["best"]["mean"] == result["best"]["miou"]
    assert (first["n"], second["n"], second["miou"]["last"]["mean"]) == (1, 0, None)
    assert "became non-finite" in (folder / "lr=1e+30/seed=0.log").read_text()
    with (folder / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["optimizer.lr"] for row in rows] == ["0.001", "1e+30"]
    assert [row["diverged"] for row in rows] == ["0", "1"]
    assert float(rows[0]["last_miou_seed_0"]) == result["last"]["miou"]
    assert (folder / "summary.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_settled_is_not_run_again(made: Made, pair: Pair, copied: Path) -> None:
    before = contents(copied)
    done = swept(pair, copied, *GRID, "--json")
    assert done.code == 7
    assert done.document["cells"] == made.outcome.document["cells"]
    assert contents(copied) == before


def test_emitted_commands_are_the_missing_runs_and_can_be_typed(
    pair: Pair, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied.parent)
    where = Path("sweep")
    done = swept(pair, where, "--grid", "optimizer.lr=1e-3,1e30,2e-3", "--seeds", "0,1", "--emit-commands")
    assert done.code == 0, done.err
    lines = [shlex.split(line) for line in done.out.splitlines()]
    outs = [line[line.index("--out") + 1] for line in lines]
    assert outs == ["sweep/lr=0.002/seed=0", *(f"sweep/lr={lr}/seed=1" for lr in ("0.001", "1e+30", "0.002"))]
    assert all(line[:2] == ["hwdkit", "distill"] for line in lines)
    stopped = hwdkit(*lines[0][1:], "--quiet", "--max-time", 0)
    assert stopped.code == 75, stopped.err
    assert hwdkit(*lines[1][1:], "--quiet").code == 0
    status = {
        row["run"]: row["status"]
        for row in swept(
            pair, where, "--grid", "optimizer.lr=1e-3,1e30,2e-3", "--seeds", "0,1", "--dry-run", "--json"
        ).document["runs"]
    }
    assert status["lr=0.002/seed=0"] == "interrupted"
    assert status["lr=0.001/seed=1"] == "finished"
    assert status["lr=0.002/seed=1"] == "missing"
    shown = hwdkit("sweep", "--out", where, "--summary-only", "--format", "svg", "--format", "pdf", "--json")
    assert shown.code == 0, shown.err
    first = shown.document["cells"][0]
    assert first["n"] == 2
    assert first["miou"]["last"]["std"] is not None
    assert "3 runs are not finished" in shown.document["notes"][0]
    assert (where / "summary.pdf").read_bytes().startswith(b"%PDF")
    assert b"<svg" in (where / "summary.svg").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--grid", "optimizer.lr=1e-3"], "also has lr=1e+30: cells can be added, not taken away"),
        ([*GRID, "--seeds", "1"], "also has seed 0"),
        ([*GRID, "--set", "train.batch_size=4"], "train.batch_size was 2, is 4"),
        ([*GRID, "--grid", "losses.hwd.mu=0,1"], "holds a distill sweep over optimizer.lr"),
        ([*GRID, "--teacher", "STUDENT"], "not the one that the sweep began with"),
    ],
)
def test_another_sweep_in_the_folder_is_refused_and_nothing_changes(
    changes: list[str], message: str, pair: Pair, copied: Path
) -> None:
    before = contents(copied)
    arguments = [pair.student if change == "STUDENT" else change for change in changes]
    done = swept(pair, copied, *arguments)
    assert done.code == 3
    assert message in done.err
    assert contents(copied) == before


def test_cells_seeds_lines_and_what_moves_no_weight_may_be_added(pair: Pair, copied: Path) -> None:
    added = ["--grid", "optimizer.lr=2e-3,1e30,0.001", "--seeds", "1,0", "--baseline", "scenes-r10-baseline"]
    before = contents(copied)
    done = swept(pair, copied, *added, "--set", "train.log_every=2", "--dry-run", "--json")
    assert done.code == 0, done.err
    assert len(done.document["runs"]) == 8
    assert done.document["to_do"] == 6
    assert contents(copied) == before


def test_a_deleted_cell_is_made_again(pair: Pair, copied: Path) -> None:
    shutil.rmtree(copied / "lr=0.001")
    shown = hwdkit("sweep", "--out", copied, "--summary-only", "--json")
    assert shown.code == 0, shown.err
    assert shown.document["runs"] == {"missing": 1, "diverged": 1}
    done = swept(pair, copied, *GRID, "--emit-commands")
    assert done.code == 0, done.err
    (line,) = done.out.splitlines()
    recipe = shlex.split(line)[shlex.split(line).index("--recipe") + 1]
    assert Path(recipe).is_file()
    assert Path(recipe).resolve() == copied / "lr=0.001" / "recipe.yaml"


def test_an_edited_recipe_of_a_cell_does_not_count(pair: Pair, copied: Path) -> None:
    path = copied / "lr=0.001" / "recipe.yaml"
    text = path.read_text()
    path.write_text(text.replace("lr: 0.001", "lr: 0.5"))
    assert path.read_text() != text
    assert swept(pair, copied, *GRID, "--emit-commands").code == 0
    assert path.read_text() == text


def test_runs_whose_sweep_json_is_gone_are_not_taken_for_those_of_this_sweep(
    pair: Pair, copied: Path
) -> None:
    (copied / "sweep.json").unlink()
    before = contents(copied)
    done = swept(pair, copied, *GRID)
    assert (done.code, "without its sweep.json" in done.err) == (3, True)
    assert contents(copied) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", '{"status": "finished"}'),
        ("run.json", '{"status": "finished", "result": [1]}'),
        ("run.json", "[" * 100_000),
        ("metrics.jsonl", "3\n"),
        ("metrics.jsonl", '{"step_ms": 3}\n'),
    ],
)
def test_a_finished_run_whose_records_are_damaged_is_named(
    name: str, text: str, pair: Pair, copied: Path
) -> None:
    (copied / "lr=0.001/seed=0" / name).write_text(text)
    done = swept(pair, copied, *GRID)
    assert done.code == 5, done.err
    assert "lr=0.001/seed=0" in done.err
    assert "to make" in done.err


def test_a_folder_that_is_no_sweeps_is_refused(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = swept(pair, tmp_path, *GRID)
    assert done.code == 3
    assert "not by a sweep" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    done = hwdkit("sweep", "--out", tmp_path, "--summary-only")
    assert done.code == 3
    assert "sweep.json is missing" in done.err


@pytest.mark.parametrize(
    "change",
    [
        {"cells": []},
        {"seeds": []},
        {"keys": ["other"]},
        {"command": "rm"},
        {"cells": [{"name": "../x", "line": "grid", "values": {"optimizer.lr": 1}, "teacher_sha256": None}]},
    ],
)
def test_a_file_that_no_sweep_wrote_is_refused(change: dict[str, Any], copied: Path) -> None:
    path = copied / "sweep.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    done = hwdkit("sweep", "--out", copied, "--summary-only")
    assert done.code == 3
    assert "not a sweep's file" in done.err


def test_two_sweeps_cannot_work_in_one_folder(pair: Pair, copied: Path) -> None:
    with (copied / ".sweep.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = swept(pair, copied, *GRID)
    assert done.code == 6
    assert "another sweep" in done.err


def test_missing_data_or_teacher_end_the_sweep_before_it_begins(pair: Pair, tmp_path: Path) -> None:
    done = swept(pair, tmp_path / "a", *GRID, "--data-root", tmp_path / "none")
    assert done.code == 4
    assert [path.name for path in (tmp_path / "a").iterdir()] == [".sweep.lock"]
    another = swept(pair, tmp_path / "a", "--grid", "losses.hwd.mu=0,1", "--emit-commands")
    assert another.code == 0, another.err  # nothing was begun, so nothing stands in its way
    done = swept(pair, tmp_path / "b", *GRID, "--teacher", tmp_path / "none")
    assert done.code == 5
    assert not (tmp_path / "b").exists()


def test_a_teacher_is_swept_by_train_teacher(pair: Pair, tmp_path: Path) -> None:
    done = hwdkit(
        "sweep", "-r", "scenes-r18-teacher", "--grid", "optimizer.lr=1e-3,2e-3", "--emit-commands",
        "--out", tmp_path / "t", "--data-root", pair.data,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert [shlex.split(line)[1] for line in done.out.splitlines()] == ["train-teacher"] * 2


def test_each_run_at_a_time_gets_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert _devices(Launch(), None) == ("3", "5")
    assert _devices(Launch(gpus="1"), None) == ("3",)
    assert _devices(Launch(), 1) == ("3",)
    assert _devices(Launch(gpus="0"), 3) == (None, None, None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert _devices(Launch(), None) == ("0", "1")
    with pytest.raises(UsageError, match="a GPU of its own"):
        _devices(Launch(), 3)
    with pytest.raises(EnvironmentFailure, match="2 GPUs are visible"):
        _devices(Launch(gpus="4"), None)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_stopped_sweep_saves_and_the_same_command_continues_it(
    pair: Pair, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "sweep"
    command = [sys.executable, "-m", "hwdkit", "sweep", *STUDENT, *steps(200), *LIMITED]
    command += ["--grid", "losses.hwd.mu=0,1", "--teacher", str(pair.teacher), "--data-root", str(pair.data)]
    command += ["--gpus", "0", "--out", str(out), "--json"]
    metrics = out / "mu=0/seed=0/metrics.jsonl"
    process = subprocess.Popen(command, env=dict(environment()), cwd=ROOT, stdout=subprocess.PIPE)
    until = time.monotonic() + 120
    while not (metrics.is_file() and metrics.stat().st_size) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    stdout, _ = process.communicate(timeout=120)
    assert process.returncode == code
    document = json.loads(stdout)
    assert "continue: hwdkit sweep" in document["error"]["hint"]
    info = json.loads((metrics.parent / "run.json").read_text())
    assert info["status"] == ("cancelled" if number == signal.SIGINT else "interrupted")
    assert (metrics.parent / "checkpoints/last.pt").is_file()
    assert not (out / "mu=1/seed=0").exists()
    begun = json.loads(metrics.read_text().splitlines()[-1])["step"]
    done = subprocess.run(command, env=dict(environment()), cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["runs"] == {"finished": 2}
    assert "--auto-resume" in json.loads((metrics.parent / "run.json").read_text())["argv"]
    taken = [row["step"] for row in map(json.loads, metrics.read_text().splitlines()) if "loss" in row]
    assert taken == list(range(1, 201))
    assert 0 < begun < 200


@pytest.mark.slow
def test_a_run_that_outlives_its_killed_sweep_keeps_the_folder_locked(pair: Pair, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    command = [sys.executable, "-m", "hwdkit", "sweep", *STUDENT, *steps(100_000), "--seeds", "0"]
    command += [
        "--teacher",
        str(pair.teacher),
        "--data-root",
        str(pair.data),
        "--gpus",
        "0",
        "--out",
        str(out),
    ]
    process = subprocess.Popen(command, env=dict(environment()), cwd=ROOT, stderr=subprocess.DEVNULL)
    info = out / "as-it-is/seed=0/metrics.jsonl"
    until = time.monotonic() + 120
    while not info.is_file() and time.monotonic() < until:
        time.sleep(0.05)
    child = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    process.kill()
    process.wait()
    try:
        again = subprocess.run(command, env=dict(environment()), cwd=ROOT, capture_output=True, check=False)
        assert again.returncode == 6
        assert b"still working here" in again.stderr
    finally:
        os.kill(child, signal.SIGKILL)
