"""A run without a recipe: with a folder it can be resumed exactly, without one it only trains."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hwdkit.checkpoints.files import read_metadata, read_state_dict
from hwdkit.distributed import Ranks
from hwdkit.engine.loop import Plan, Training
from hwdkit.engine.objectives import Objective
from hwdkit.engine.optim import EMA, optimizer, poly_schedule
from hwdkit.engine.run import Metrics, Run, Trained, finished
from hwdkit.engine.rundir import RunDir
from hwdkit.engine.train import train
from hwdkit.errors import CheckpointError, DivergedError, EnvironmentFailure, Interrupted
from hwdkit.losses import CrossEntropy
from hwdkit.models.segmenter import Segmenter
from hwdkit.terminal.signals import StopRequest
from hwdkit.types import Batch

PLAN = Plan(
    iterations=4,
    schedule=poly_schedule(lr=0.02, power=0.9, iterations=4),
    seed=3,
    log_every=1,
    evaluate_every=2,
    save_every=3,
)
SCORES = {2: 0.5, 4: 0.25}


@pytest.fixture
def begin(network: Callable[..., Segmenter], batch: Callable[..., Batch]) -> Callable[..., Trained]:
    """Train a fresh network; the second validation is the worse one."""

    def run(
        folder: Path | None = None, *, seconds: float | None = None, lr: float = 0.02, **more: Any
    ) -> Trained:
        objective = Objective(network(seed=1), {"ce": CrossEntropy()}, {"ce": 1.0})
        training = Training(
            objective,
            optimizer(objective.named_parameters(), name="sgd", lr=0.02, weight_decay=0),
            torch.amp.GradScaler("cpu", enabled=False),
            EMA(objective.student, 0.9),
        )

        def stream(step: int) -> Generator[Sequence[Batch], None, None]:
            while True:
                yield [batch(seed=step)]
                step += 1

        def evaluate(student: Segmenter) -> Metrics:
            return {"miou": SCORES[training.step], "macc": 0.5, "pixel_accuracy": 0.5}

        def describe(step: int, metrics: Metrics) -> dict[str, Any]:
            return {"step": step, "metrics": metrics}

        place = RunDir(folder) if folder else None
        return train(
            training,
            stream,
            None,
            plan=replace(PLAN, schedule=lambda _: lr),
            run=Run("mine", describe, place, **more),
            evaluate=evaluate,
            ranks=Ranks(0, 1, torch.device("cpu")),
            stop=StopRequest(seconds),
        )

    return run


def info(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return content


def test_without_a_folder_a_run_trains_and_writes_nothing(
    begin: Callable[..., Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained = begin()
    assert (trained.run_dir, trained.checkpoint) == (None, None)
    assert (trained.best["step"], trained.last["step"]) == (2, 4)
    assert trained.images_per_s > 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Interrupted, match="nothing saved"):
        begin(seconds=0)


def test_best_and_last_network_describe_themselves(begin: Callable[..., Trained], tmp_path: Path) -> None:
    begin(tmp_path / "run", network_file="net.safetensors", facts={"dataset": "own"})
    best, last = tmp_path / "run" / "checkpoints" / "best.safetensors", tmp_path / "run" / "net.safetensors"
    assert [read_metadata(path)["step"] for path in (best, last)] == [2, 4]
    assert info(tmp_path / "run")["dataset"] == "own"
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_stopped_run_goes_on_exactly(begin: Callable[..., Trained], tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    begin(whole)
    with pytest.raises(Interrupted) as caught:
        begin(parts, seconds=0, resumed_by="press the button")
    assert caught.value.hint == "continue: press the button"
    assert info(parts)["status"] == "interrupted"
    assert finished(RunDir(parts)) is None
    assert begin(parts, resume=True) == finished(RunDir(parts))
    ours, theirs = (read_state_dict(folder / "student.safetensors") for folder in (parts, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (parts / "checkpoints/best.safetensors").read_bytes() == (
        whole / "checkpoints/best.safetensors"
    ).read_bytes()


def test_a_resume_refuses_another_teacher(begin: Callable[..., Trained], tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        begin(tmp_path, seconds=0, facts={"teacher_sha256": "a"})
    with pytest.raises(CheckpointError, match="teacher_sha256 has changed"):
        begin(tmp_path, resume=True, facts={"teacher_sha256": "b"})


def test_what_ends_a_run_is_in_its_folder_and_the_folder_is_free_again(
    begin: Callable[..., Trained], tmp_path: Path
) -> None:
    with pytest.raises(DivergedError):
        begin(tmp_path, lr=float("inf"))
    assert info(tmp_path)["status"] == DivergedError.kind
    assert "non-finite" in info(tmp_path)["error"]
    other = RunDir(tmp_path)
    other.hold()
    with pytest.raises(EnvironmentFailure, match="another run is working in"):
        begin(tmp_path, resume=True)
    other.release()


def test_a_finished_run_is_known_by_its_network_and_its_folder(
    begin: Callable[..., Trained], tmp_path: Path
) -> None:
    trained = begin(tmp_path / "run")
    assert finished(RunDir(tmp_path / "run")) == trained
    (tmp_path / "run").rename(tmp_path / "moved")
    assert finished(RunDir(tmp_path / "moved")) is None
    (tmp_path / "moved" / "run.json").write_text("[]")
    assert finished(RunDir(tmp_path / "moved")) is None
