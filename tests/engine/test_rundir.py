"""The run directory: who may take it, what it remembers, and what it forgets on a resume."""

from __future__ import annotations

import csv
import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hwdkit.engine.rundir import RunDir, default_path, newest_finished, training_seconds
from hwdkit.errors import CheckpointError, EnvironmentFailure, RecipeError

STATE = {
    "step": 4,
    "objective": {"w": torch.ones(2)},
    "optimizer": {},
    "scaler": {},
    "ema": None,
    "best": {"miou": 0.5},
    "latest": {},
}


def test_what_a_killed_process_never_finished_writing_does_not_use_a_folder(tmp_path: Path) -> None:
    (tmp_path / ".recipe.yaml.4711.tmp").write_text("half of it")
    RunDir(tmp_path).create("name: x")
    assert RunDir(tmp_path).recipe.read_text() == "name: x"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".hidden").touch()
    with pytest.raises(RecipeError, match="already used"):
        RunDir(tmp_path / "other").create("name: x")


def test_training_time_counts_the_steps_behind_every_row_of_losses() -> None:
    rows = [{"step": 2, "step_ms": 300.0}, {"step": 2, "miou": 0.1}, {"step": 12, "step_ms": 500.0}]
    assert training_seconds(rows) == pytest.approx(2 * 0.3 + 10 * 0.5)
    assert training_seconds([]) == 0


def test_a_new_and_an_empty_folder_can_be_taken(tmp_path: Path) -> None:
    for path in (tmp_path / "a" / "b", tmp_path):
        run = RunDir(path / "run")
        run.create("name: x\n")
        assert run.recipe.read_text() == "name: x\n"


@pytest.mark.parametrize("used_by", ["recipe.yaml", ".hidden", "folder"])
def test_a_used_folder_is_refused_and_left_alone(tmp_path: Path, used_by: str) -> None:
    (tmp_path / used_by).mkdir() if used_by == "folder" else (tmp_path / used_by).write_text("mine")
    with pytest.raises(RecipeError, match="already used") as caught:
        RunDir(tmp_path).create("name: x\n")
    assert caught.value.exit_code == 3
    assert ("--auto-resume" if used_by == "recipe.yaml" else f"--resume {tmp_path}") in caught.value.hint
    assert [entry.name for entry in tmp_path.iterdir()] == [used_by]


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="is a file"):
        RunDir(tmp_path / "file").create("")
    with pytest.raises(EnvironmentFailure):
        RunDir(tmp_path / "file" / "run").create("")


def test_reopening_gives_the_saved_state(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.create("")
    run.save_state(STATE)
    state = run.reopen()
    assert state["step"] == 4
    assert torch.equal(state["objective"]["w"], torch.ones(2))


def test_there_is_nothing_to_reopen_without_run_or_checkpoint(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    with pytest.raises(CheckpointError, match="no run to resume") as caught:
        run.reopen()
    assert caught.value.exit_code == 5
    run.create("")
    with pytest.raises(CheckpointError, match="before its first checkpoint"):
        run.reopen()


@pytest.mark.parametrize("content", [[1, 2], {"weight": torch.ones(1)}])
def test_another_file_under_the_checkpoints_name_is_no_training_state(
    tmp_path: Path, content: object
) -> None:
    run = RunDir(tmp_path / "run")
    run.create("")
    run.save_state(content)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="not a training state"):
        run.reopen()


def test_a_truncated_training_state_is_a_checkpoint_error(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.create("")
    run.save_state(STATE)
    run.last.write_bytes(run.last.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="damaged"):
        run.reopen()


def test_a_resumed_run_forgets_the_rows_of_steps_that_it_takes_again(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for step in range(1, 6):
        run.append_metrics({"step": step, "loss": 1 / step})
    run.append_metrics({"step": 5, "miou": 0.5})
    run.forget_metrics_after(4)
    assert [row["step"] for row in run.read_metrics()] == [1, 2, 3, 4]
    run.append_metrics({"step": 5, "loss": 0.1})
    assert run.read_metrics()[-1] == {"step": 5, "loss": 0.1}
    run.forget_metrics_after(0)
    assert run.read_metrics() == []


def test_a_row_that_a_kill_cut_short_does_not_stop_a_resume(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.append_metrics({"step": 1, "loss": 0.5})
    with run.metrics.open("a") as file:
        file.write('{"step": 2, "lo')
    assert run.read_metrics() == [{"step": 1, "loss": 0.5}]
    run.forget_metrics_after(1)
    run.append_metrics({"step": 2, "loss": 0.25})
    assert [row["step"] for row in run.read_metrics()] == [1, 2]


def test_the_table_has_every_key_as_a_column_and_blanks_where_a_row_lacks_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.append_metrics({"step": 1, "loss": 0.5, "lr": 0.1})
    run.append_metrics({"step": 1, "miou": 0.25})
    run.write_csv()
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "loss", "lr", "miou"]
    assert rows == [
        {"step": "1", "loss": "0.5", "lr": "0.1", "miou": ""},
        {"step": "1", "loss": "", "lr": "", "miou": "0.25"},
    ]


def test_a_folder_that_is_held_is_nobody_elses_until_it_is_released(tmp_path: Path) -> None:
    first, second = RunDir(tmp_path / "run"), RunDir(tmp_path / "run")
    first.hold()
    with pytest.raises(EnvironmentFailure, match="another run is working in"):
        second.hold()
    first.release()
    second.hold()
    second.release()


def test_a_killed_process_leaves_its_folder_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from hwdkit.engine.rundir import RunDir\n"
        "run = RunDir(Path(sys.argv[1])); run.hold(); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(EnvironmentFailure, match="another run is working in"):
            RunDir(tmp_path).hold()
        other.kill()
    run = RunDir(tmp_path)
    run.hold()
    run.release()


def test_a_process_forked_by_a_run_does_not_hold_its_folder(tmp_path: Path) -> None:
    """A loader that outlives a killed run for a moment must not keep the next one out."""
    code = (
        "import os, sys, time; from pathlib import Path; from hwdkit.engine.rundir import RunDir\n"
        "run = RunDir(Path(sys.argv[1])); run.hold()\n"
        "child = os.fork()\n"
        "if child == 0: os.close(1); time.sleep(60)\n"
        "print(child, flush=True); os._exit(0)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    child = int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=30).stdout)
    try:
        run = RunDir(tmp_path)
        run.hold()
        run.release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_file_system_without_locks_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    run = RunDir(tmp_path)
    run.hold()
    run.release()
    assert "cannot be locked (No locks available)" in caplog.text


def test_info_is_merged_key_by_key(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.read_info() == {}
    run.update_info(status="running", seed=3)
    run.update_info(status="finished")
    assert json.loads(run.info.read_text()) == {"status": "finished", "seed": 3}


def test_default_paths_sort_by_time_and_differ() -> None:
    paths = {str(default_path("scenes-r10-hwd")) for _ in range(20)}
    assert len(paths) == 20
    assert all(re.fullmatch(r"runs/scenes-r10-hwd/\d{8}T\d{6}Z-[0-9a-f]{6}", path) for path in paths)


def test_only_finished_runs_offer_their_teacher_and_the_newest_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no finished run of t") as caught:
        newest_finished("t", "teacher.safetensors")
    assert "hwdkit train-teacher --recipe t" in caught.value.hint
    for age, (name, status) in enumerate(
        [("old", "finished"), ("new", "finished"), ("torn", "interrupted"), ("bare", None)]
    ):
        run = RunDir(Path("runs", "t", name))
        run.path.mkdir(parents=True)
        if status:
            run.update_info(status=status)
        (run.path / "teacher.safetensors").touch()
        os.utime(run.path / "teacher.safetensors", (1000 + age, 1000 + age))
    assert newest_finished("t", "teacher.safetensors") == Path("runs/t/new/teacher.safetensors")
    with pytest.raises(CheckpointError):
        newest_finished("t", "student.safetensors")
