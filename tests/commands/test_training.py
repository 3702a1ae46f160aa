"""Whole runs on eight tiny scenes: what lies in the folder, and that stopping changes nothing."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hwdkit.checkpoints.files import load_tensors, read_metadata, read_state_dict
from hwdkit.commands.train.run import train
from hwdkit.commands.train.sessions import next_commands, render, resumed_recipe
from hwdkit.engine.networks import load_network
from hwdkit.engine.run import Trained
from hwdkit.engine.rundir import RunDir
from hwdkit.errors import (
    Cancelled,
    CheckpointError,
    DataError,
    EnvironmentFailure,
    Interrupted,
    RecipeError,
)
from hwdkit.prepare.prepare import prepare
from hwdkit.prepare.scenes import SceneOptions
from hwdkit.recipe.load import load, loads_resolved
from hwdkit.recipe.schema import Recipe
from hwdkit.terminal.signals import StopRequest

NETWORK = """
  backbone: resnet18
  backbone_options: {layers: [1, 1, 1, 1], channels: [8, 8, 8, 8], stem_type: deep, stem_width: 8}
  head_channels: 8
"""
COMMON = """
data: {dataset: scenes, crop: [32, 32], scales: [0.75, 1.0], workers: 0}
optimizer: {name: adamw, lr: 5.0e-3, warmup: 2}
train: {iterations: 4, batch_size: 4, accumulate: 2, ema: 0.9, log_every: 1, evaluate_every: 2, save_every: 3}
"""
TEACHER = f"name: tiny-teacher\n{COMMON}teacher:{NETWORK}"
DISTIL = "teacher: {recipe: tiny-teacher}\nlosses: {hwd: {weight: 3.0}}\n"
KEEPING = COMMON.replace("save_every", "keep_evaluated: true, save_every")
STUDENT = f"name: tiny-student\n{KEEPING}student:{NETWORK}{DISTIL}"
BASELINE = f"name: tiny-baseline\n{COMMON}student:{NETWORK}"


@dataclass(frozen=True)
class World:
    """A working directory with a prepared dataset, a finished teacher and one finished student."""

    folder: Path
    teacher: Trained
    student: Trained

    def distill(self, text: str | Recipe, *, teacher: str | None = None, **options: Any) -> Trained:
        """What `hwdkit distill` does with a recipe, in this process."""
        recipe = loads_resolved(text) if isinstance(text, str) else text
        return train(recipe.student_taught(by=teacher), **{**on_cpu(self.folder), **options})

    def resume(self, out: Path, *overrides: str) -> Trained:
        return self.distill(resumed_recipe(out, [*overrides]), out=out, resume=True)


def on_cpu(folder: Path) -> dict[str, Any]:
    return {"data_root": folder / "data", "cpu": True}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    before = Path.cwd()
    logging.getLogger("hwdkit").setLevel(logging.INFO)
    os.chdir(folder)
    try:
        prepare("scenes", root=Path("data"), scenes=SceneOptions(train=8, val=4, size=(48, 64)), workers=1)
        teacher = train(loads_resolved(TEACHER), **on_cpu(folder))
        student = train(loads_resolved(STUDENT), **on_cpu(folder), out=folder / "whole")
    finally:
        os.chdir(before)
    return World(folder, teacher, student)


@pytest.fixture(autouse=True)
def _inside(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.folder)


def interrupted(world: World, out: Path, recipe: str = STUDENT) -> Path:
    """A run that a time limit of nothing has stopped after its first step."""
    with pytest.raises(Interrupted) as caught:
        world.distill(recipe, out=out, max_seconds=0)
    assert caught.value.exit_code == 75
    assert f"hwdkit distill --resume {out}" in caught.value.hint
    return out


def rows(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the columns that a clock decides."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("step_ms", "images_per_s")} for line in lines]


def info(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def weights(folder: Path) -> bytes:
    """The file without its description, which holds the hash of the recipe."""
    state = read_state_dict(folder / "student.safetensors")
    return b"".join(name.encode() + state[name].numpy().tobytes() for name in sorted(state))


def printed(trained: Trained) -> str:
    assert trained.run_dir is not None
    return render({**trained.to_dict(), "next": next_commands(trained.run_dir, Path("data"))})


def test_a_finished_run_leaves_the_promised_files(world: World) -> None:
    folder = world.folder / "whole"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {name for name in found if not name.startswith("tensorboard/")} == {
        "recipe.yaml", "run.json", "metrics.jsonl", "metrics.csv", "curves.png", "train.log",
        "student.safetensors", "checkpoints/last.pt", "checkpoints/best.safetensors",
        "checkpoints/step-2.safetensors", "checkpoints/step-4.safetensors",
    }  # fmt: skip
    kept = [load_network(folder / "checkpoints" / f"step-{step}.safetensors") for step in (2, 4)]
    assert [network.metadata["metrics"]["step"] for network in kept] == [2, 4]
    assert info(folder)["status"] == "finished"
    assert info(folder)["result"] == world.student.to_dict()
    metrics = rows(folder)
    assert [row["step"] for row in metrics if "loss" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in metrics if "miou" in row] == [2, 4]
    assert all(
        row["loss"] == pytest.approx(row["loss_ce"] + row["loss_hwd"]) for row in metrics if "loss" in row
    )
    with (folder / "metrics.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(metrics)
    log = (folder / "train.log").read_text()
    assert "distilling from" in log
    assert "step 4/4" in log
    assert load_tensors(folder / "checkpoints" / "last.pt")["step"] == 4


def test_the_result_says_what_came_out_and_what_to_type_next(world: World) -> None:
    last, best = world.student.last, world.student.best
    assert last["step"] == 4
    assert best["miou"] >= last["miou"]
    assert world.student.checkpoint == world.folder / "whole" / "student.safetensors"
    assert f"hwdkit evaluate --checkpoint {world.folder / 'whole'}" in printed(world.student)
    assert f"--teacher {world.teacher.checkpoint}" in printed(world.student)
    assert f"--teacher {world.teacher.run_dir}" in printed(world.teacher)


def test_the_exported_student_is_the_averaged_one_and_describes_itself(world: World) -> None:
    folder = world.folder / "whole"
    average = load_tensors(folder / "checkpoints" / "last.pt")["ema"]
    state = read_state_dict(folder / "student.safetensors")
    assert state.keys() == average.keys()
    assert all((state[name] == average[name]).all() for name in state)
    metadata = read_metadata(folder / "student.safetensors")
    assert metadata["role"] == "student"
    assert metadata["recipe"] == "tiny-student"
    assert metadata["dataset_fingerprint"] == info(folder)["dataset_fingerprint"]
    assert metadata["metrics"] == world.student.last
    assert len(load_network(folder).classes) == 12


def test_the_teacher_is_found_by_its_recipes_name_below_runs(world: World) -> None:
    assert str(world.teacher.run_dir).startswith("runs/tiny-teacher/")
    assert info(world.folder / "whole")["teacher"] == str(world.teacher.checkpoint)
    pinned = load(str(world.folder / "whole" / "recipe.yaml")).teacher
    assert pinned is not None
    assert pinned.checkpoint == str(world.folder / world.teacher.checkpoint)


def test_a_stopped_and_resumed_run_is_the_uninterrupted_one_bit_for_bit(world: World, tmp_path: Path) -> None:
    out = interrupted(world, tmp_path / "run")
    assert info(out)["status"] == "interrupted"
    assert not (out / "student.safetensors").exists()
    assert [row["step"] for row in rows(out)] == [1]
    world.resume(out)
    whole = world.folder / "whole"
    assert (out / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()
    best = Path("checkpoints", "best.safetensors")
    assert (out / best).read_bytes() == (whole / best).read_bytes()
    assert rows(out) == rows(whole)
    assert info(out)["status"] == "finished"
    assert info(out)["error"] is None


def test_a_folder_in_which_a_run_is_at_work_is_left_alone(world: World, tmp_path: Path) -> None:
    out = interrupted(world, tmp_path / "run")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    other = RunDir(out)
    other.hold()
    try:
        with pytest.raises(EnvironmentFailure, match="another run is working in"):
            world.resume(out)
    finally:
        other.release()
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    world.resume(out)


class _Terminates(logging.Handler):
    """Sends this process a SIGTERM when the log reports the first step."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("step 1/"):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_stops_after_the_step_and_the_run_can_go_on(world: World, tmp_path: Path) -> None:
    out, handler = tmp_path / "run", _Terminates()
    logging.getLogger("hwdkit").addHandler(handler)
    try:
        with pytest.raises(Interrupted, match="SIGTERM"):
            world.distill(STUDENT, out=out)
    finally:
        logging.getLogger("hwdkit").removeHandler(handler)
    assert load_tensors(out / "checkpoints" / "last.pt")["step"] == 2
    world.resume(out)
    assert weights(out) == weights(world.folder / "whole")


def test_a_killed_run_goes_on_from_its_last_checkpoint_and_forgets_what_came_after(
    world: World, tmp_path: Path
) -> None:
    """The folder as SIGKILL leaves it: rows beyond the checkpoint, the last one cut short."""
    out = interrupted(world, tmp_path / "run")
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "loss": 99}\n{"step": 3, "lo')
    world.resume(out, "data.workers=1")
    assert rows(out) == rows(world.folder / "whole")
    assert weights(out) == weights(world.folder / "whole")


def test_resuming_a_finished_run_prints_its_result_again_and_touches_nothing(world: World) -> None:
    out = world.folder / "whole"
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()}
    again = world.resume(out)
    assert again == world.student
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()}
    assert after == before


def test_a_finished_run_of_the_other_command_is_refused(world: World) -> None:
    out = world.folder / "whole"
    with pytest.raises(RecipeError, match="no teacher to train"):
        resumed_recipe(out, []).teacher_alone()


def test_a_finished_run_that_lost_its_network_or_was_moved_repeats_only_its_end(
    world: World, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(world.folder / "whole", tmp_path / "run"))
    before, seconds = (out / "student.safetensors").read_bytes(), info(out)["seconds"]
    (out / "student.safetensors").unlink()
    result = world.resume(out)
    assert (out / "student.safetensors").read_bytes() == before
    assert result.run_dir == out
    assert result.last == world.student.last
    assert result.best["miou"] == world.student.best["miou"]
    assert result.seconds >= seconds > 0  # of all its sessions


def test_the_runs_own_recipe_repeats_the_run(world: World, tmp_path: Path) -> None:
    again = load(str(world.folder / "whole" / "recipe.yaml"))
    world.distill(again, out=tmp_path / "again")
    whole = world.folder / "whole"
    assert weights(tmp_path / "again") == weights(whole)
    assert rows(tmp_path / "again") == rows(whole)
    assert (tmp_path / "again" / "recipe.yaml").read_bytes() == (whole / "recipe.yaml").read_bytes()


def test_a_resume_refuses_another_dataset_and_another_teacher(world: World, tmp_path: Path) -> None:
    out = interrupted(world, tmp_path / "run")
    recipe = resumed_recipe(out, [])
    other = tmp_path / "data"
    prepare("scenes", root=other, scenes=SceneOptions(train=8, val=4, size=(48, 64), seed=1), workers=1)
    with pytest.raises(DataError, match="dataset_fingerprint has changed"):
        world.distill(recipe, out=out, resume=True, data_root=other)
    student = world.folder / "whole" / "student.safetensors"
    with pytest.raises(CheckpointError, match="teacher_sha256 has changed"):
        world.distill(recipe, out=out, resume=True, teacher=str(student))
    world.distill(recipe, out=out, resume=True)


def test_a_resume_refuses_what_would_make_it_another_run(world: World, tmp_path: Path) -> None:
    out = interrupted(world, tmp_path / "run")
    with pytest.raises(RecipeError, match=r"cannot change optimizer\.lr"):
        resumed_recipe(out, ["optimizer.lr=1", "train.log_every=2"])
    assert resumed_recipe(out, ["train.log_every=2"]).train.log_every == 2
    with pytest.raises(CheckpointError, match="no run to resume"):
        resumed_recipe(tmp_path / "nowhere", [])


def test_a_baseline_needs_no_teacher(world: World, tmp_path: Path) -> None:
    result = world.distill(BASELINE, out=tmp_path / "run")
    assert info(tmp_path / "run")["teacher"] is None
    assert result.last["step"] == 4
    assert "loss_hwd" not in rows(tmp_path / "run")[0]


def test_a_used_folder_is_refused_before_anything_is_written(world: World) -> None:
    before = info(world.folder / "whole")
    with pytest.raises(RecipeError, match="already used"):
        world.distill(STUDENT, out=world.folder / "whole")
    assert info(world.folder / "whole") == before


def test_a_missing_teacher_says_how_to_train_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no finished run of tiny-teacher") as caught:
        world.distill(STUDENT, out=tmp_path / "run")
    assert "train-teacher --recipe tiny-teacher" in caught.value.hint
    assert not (tmp_path / "run").exists()


BOTH = STUDENT.replace("teacher: {recipe: tiny-teacher}", f"teacher:{NETWORK}")


def test_one_recipe_can_describe_teacher_and_student(world: World, tmp_path: Path) -> None:
    """The teacher trains with the task loss alone; the student's run then names the trained teacher only."""
    recipe = loads_resolved(BOTH.replace("tiny-student", "both"))
    taught = train(recipe.teacher_alone(), **on_cpu(world.folder), out=tmp_path / "teacher")
    assert rows(tmp_path / "teacher")[0].keys() >= {"loss_ce"}
    assert load(str(tmp_path / "teacher" / "recipe.yaml")).teacher == recipe.teacher
    with pytest.raises(RecipeError, match="not a trained one"):
        world.distill(recipe, out=tmp_path / "none")
    with pytest.raises(Interrupted):
        world.distill(recipe, out=tmp_path / "student", max_seconds=0, teacher=str(taught.run_dir))
    world.resume(tmp_path / "student")
    assert info(tmp_path / "student")["status"] == "finished"


def test_a_run_can_start_from_another_ones_weights(world: World, tmp_path: Path) -> None:
    still = "train: {iterations: 1, batch_size: 4}\noptimizer: {lr: 1.0e-12, weight_decay: 0}\n"
    text = f"name: again\ndata: {{dataset: scenes, crop: [32, 32], workers: 0}}\nstudent:{NETWORK}{still}"
    world.distill(text, out=tmp_path / "run", init_from=world.folder / "whole")
    ours = read_state_dict(tmp_path / "run" / "student.safetensors")
    theirs = read_state_dict(world.folder / "whole" / "student.safetensors")
    name = "head.classifier.weight"
    assert (ours[name] - theirs[name]).abs().max() < 1e-6


def test_a_recipe_without_a_student_points_to_the_other_command(world: World) -> None:
    with pytest.raises(RecipeError, match="has no student") as caught:
        world.distill(
            TEACHER,
        )
    assert "train-teacher" in caught.value.hint


def test_a_second_ctrl_c_leaves_at_once_and_a_scheduler_does_not_hide_the_first() -> None:
    before = signal.getsignal(signal.SIGINT)  # ignored, where a shell runs the tests in the background
    request = StopRequest()
    with request.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert request()
        os.kill(os.getpid(), signal.SIGINT)  # the first Ctrl-C
        os.kill(os.getpid(), signal.SIGTERM)
        assert isinstance(request.error("resume"), Cancelled)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_stop_means_75_unless_a_person_asked_for_it() -> None:
    limit = StopRequest(0)
    assert limit()
    assert isinstance(limit.error("x"), Interrupted)
    assert not StopRequest()()
    assert not StopRequest(1000)()
