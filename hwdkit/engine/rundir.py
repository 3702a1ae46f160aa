"""The run directory: one folder a run, whose file names commands and scripts rely on.

recipe.yaml            the complete resolved recipe; running it repeats the run
run.json               status, versions, seed, fingerprints, timing
metrics.jsonl / .csv   one object a line, units in the key
train.log              what the terminal saw
tensorboard/           the same rows again, where tensorboard is installed
checkpoints/last.pt    training state: continue exactly with --resume
checkpoints/best.safetensors, and with train.keep_evaluated step-N.safetensors
student.safetensors    (or teacher.safetensors) the trained network, self-describing
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import logging
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

from hwdkit.checkpoints.files import load_tensors, replacing, save_tensors, write_failure
from hwdkit.errors import CheckpointError, EnvironmentFailure, RecipeError

log = logging.getLogger(__name__)

STATE_KEYS = {"step", "objective", "optimizer", "scaler", "ema", "best", "latest"}
"""What checkpoints/last.pt holds."""


def default_path(recipe_name: str) -> Path:
    """runs/<recipe>/<UTC time>-<6 hex digits>: sorts by time, never collides."""
    return Path("runs") / recipe_name / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{token_hex(3)}"


_locks: set[int] = set()
"""Descriptors of the folders that this process holds."""


def _leave_locks_to_the_parent() -> None:
    """Close them in forked loaders, which would keep the folder of a killed run locked for a moment."""
    for descriptor in _locks:
        os.close(descriptor)
    _locks.clear()


os.register_at_fork(after_in_child=_leave_locks_to_the_parent)


class RunDir:
    """A run's folder. Constructing it touches nothing; `create` and `reopen` say which case is meant."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.info = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.log = path / "train.log"
        self.last = path / "checkpoints" / "last.pt"
        self.best = path / "checkpoints" / "best.safetensors"
        self._held: int | None = None

    def evaluated(self, step: int) -> Path:
        """The network of the validation at a step."""
        return self.path / "checkpoints" / f"step-{step}.safetensors"

    def require_unused(self, *, or_unsaved: bool = False) -> None:
        """Raise a RecipeError if the folder holds something already.

        Args:
            or_unsaved: a run that ended before its first checkpoint holds nothing to lose: begin it again.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RecipeError("the run directory is a file", where=str(self.path))
        if not self.path.exists() or all(map(_is_torn, self.path.iterdir())):
            return
        unsaved = self.recipe.is_file() and not self.last.is_file()
        if unsaved and or_unsaved:
            return
        raise RecipeError(
            "the run directory is already used",
            where=str(self.path),
            hint="its run ended before the first checkpoint: choose another --out, or add --auto-resume"
            if unsaved
            else f"choose another --out, or continue that run: --resume {self.path}",
        )

    def hold(self) -> None:
        """Lock the folder against other runs until `release`, or until this process ends in any way.

        Raises:
            EnvironmentFailure: another run is working in it, on this machine or on another that shares the
                folder; or it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._held = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise write_failure(self.path, error) from error
        _locks.add(self._held)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise EnvironmentFailure(
                "another run is working in this run directory",
                where=str(self.path),
                hint="wait until it ends, stop it, or choose another --out",
            ) from error
        except OSError as error:  # some network file systems have no locks
            log.warning(
                "%s cannot be locked (%s): do not start a second run in it", self.path, error.strerror
            )

    def release(self) -> None:
        """Unlock the folder."""
        if self._held in _locks:
            _locks.remove(self._held)
            os.close(self._held)
        self._held = None

    def create(self, recipe: str | None = None, *, or_unsaved: bool = False) -> None:
        """Take a new or empty folder, and write the text of recipe.yaml; `or_unsaved` as in `require_unused`.

        Raises:
            RecipeError: something lies there already.
            EnvironmentFailure: it cannot be written.
        """
        self.require_unused(or_unsaved=or_unsaved)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.metrics.unlink(missing_ok=True)
            self.info.unlink(missing_ok=True)  # of an earlier run that never saved
        except OSError as error:
            raise write_failure(self.path, error) from error
        if recipe is not None:
            self._write(self.recipe, recipe)

    def reopen(self) -> dict[str, Any]:
        """The training state to continue from.

        Raises:
            CheckpointError: there is no run here, or it never saved.
        """
        if not (self.last.is_file() or self.recipe.is_file()):
            raise CheckpointError("no run to resume: recipe.yaml is missing", where=str(self.path))
        if not self.last.is_file():
            raise CheckpointError(
                "this run stopped before its first checkpoint",
                where=str(self.path),
                hint=f"begin it again: the command that began it, with --out {self.path} --auto-resume",
            )
        state = load_tensors(self.last)
        if not isinstance(state, dict) or not state.keys() >= STATE_KEYS:
            raise CheckpointError("not a training state", where=str(self.last))
        return state

    def save_state(self, state: dict[str, Any]) -> None:
        save_tensors(self.last, state)

    def update_info(self, **values: Any) -> None:
        """Merge values into run.json."""
        self._write(self.info, json.dumps({**self.read_info(), **values}, indent=2) + "\n")

    def read_info(self) -> dict[str, Any]:
        if not self.info.is_file():
            return {}
        info: dict[str, Any] = json.loads(self.info.read_text())
        return info

    def append_metrics(self, row: dict[str, Any]) -> None:
        try:
            with self.metrics.open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise write_failure(self.metrics, error) from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """All rows; the last line is left out when a killed process or a full disk has cut it short."""
        if not self.metrics.is_file():
            return []
        lines = self.metrics.read_text().split("\n")
        # Complete lines end in a newline, so whatever follows the last one is a torn row.
        return [json.loads(line) for line in lines[:-1] if line.strip()]

    def forget_metrics_after(self, step: int) -> None:
        """Drop rows of steps that a resumed run will take again."""
        rows = [row for row in self.read_metrics() if row["step"] <= step]
        self._write(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))
        self.write_csv()

    def write_csv(self) -> None:
        """metrics.csv: the same rows for spreadsheets, one column a key, blanks where a row lacks it."""
        rows = self.read_metrics()
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self._write(self.path / "metrics.csv", text.getvalue())

    def write_curves(self, png: bytes) -> None:
        """curves.png: loss terms, learning rate and mIoU over the steps."""
        with replacing(self.path / "curves.png") as temporary:
            temporary.write_bytes(png)

    def _write(self, path: Path, text: str) -> None:
        with replacing(path) as temporary:
            temporary.write_text(text)


def training_seconds(rows: Iterable[dict[str, Any]]) -> float:
    """Time in training steps, by the rows of `RunDir.metrics`: each covers the steps since the one before."""
    total, before = 0.0, 0
    for row in rows:
        if "step_ms" in row:
            total += row["step_ms"] / 1000 * max(0, row["step"] - before)
            before = row["step"]
    return total


def _is_torn(path: Path) -> bool:
    """Whether a file is the unfinished temporary one of a killed process; see `replacing`."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def newest_finished(recipe_name: str, file_name: str) -> Path:
    """The network of the newest finished run of a recipe below ./runs.

    Raises:
        CheckpointError: there is none; says how to make one.
    """
    runs = sorted(Path("runs", recipe_name).glob(f"*/{file_name}"), key=lambda path: path.stat().st_mtime)
    finished = [path for path in runs if RunDir(path.parent).read_info().get("status") == "finished"]
    if not finished:
        raise CheckpointError(
            f"no finished run of {recipe_name} under runs/{recipe_name}",
            hint=f"train it: hwdkit train-teacher --recipe {recipe_name}\n"
            f"  or name a trained one: --teacher PATH/{file_name}",
        )
    return finished[-1]
