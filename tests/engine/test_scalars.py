"""TensorBoard's files beside metrics.jsonl: there when it is installed, and no step twice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from hwdkit.engine.scalars import Scalars

ROWS = [{"step": step, "lr": 0.1, "loss": 1.0 / step, "loss_ce": 0.5, "step_ms": 3.0} for step in range(1, 5)]


def events(folder: Path) -> Any:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


def write(folder: Path, new: list[dict[str, Any]], **options: Any) -> None:
    scalars = Scalars(folder, **options)
    for row in new:
        scalars.add(row)
    scalars.close()


def test_without_tensorboard_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    write(tmp_path, ROWS)
    assert not list(tmp_path.iterdir())


def test_rows_become_scalars_in_groups(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    write(tmp_path, [*ROWS, {"step": 4, "miou": 0.25}])
    found = events(tmp_path)
    assert set(found.Tags()["scalars"]) == {"lr", "loss/total", "loss/ce", "step_ms", "val/miou"}
    assert [event.step for event in found.Scalars("loss/total")] == [1, 2, 3, 4]
    assert found.Scalars("val/miou")[0].value == 0.25


def test_a_resumed_run_withdraws_the_steps_that_it_takes_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    write(tmp_path, ROWS)
    again = [{**row, "loss": 9.0} for row in ROWS[2:]]
    write(tmp_path, again, step=2, rows=ROWS[:2])
    found = events(tmp_path).Scalars("loss/total")
    assert [event.step for event in found] == [1, 2, 3, 4]
    assert [event.value for event in found] == [1.0, 0.5, 9.0, 9.0]


def test_steps_from_before_tensorboard_was_installed_are_written_on_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    write(tmp_path, ROWS[2:], step=2, rows=ROWS[:2])
    assert [event.step for event in events(tmp_path).Scalars("lr")] == [1, 2, 3, 4]
