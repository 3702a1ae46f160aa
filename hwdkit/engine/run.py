"""What a run leaves behind: its name and folder, its result, its lines in the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwdkit.engine.rundir import RunDir

Metrics = dict[str, Any]
"""`step` and what an evaluation measures: `miou` ranks; JSON-able."""


@dataclass(frozen=True)
class Run:
    """A run's name and what it writes; nothing here changes a weight.

    Attributes:
        name: in the progress bar and in the result.
        describe: (step, metrics) -> what a checkpoint says about itself, JSON-able.
        folder: the run directory; None: nothing is written.
        network_file: the name of the trained network in the folder.
        recipe: the text of recipe.yaml; None: there is none.
        facts: of this run, for run.json.
        resume: continue the run in the folder.
        restart: a run in the folder that ended before its first checkpoint may be begun again.
        keep_evaluated: keep the network of every validation, not only the best.
        resumed_by: what continues the run after a stop, for the error's hint.
        on_start, on_end: called on the main rank, when the folder and the log are open, and when the trained
            network is saved.
    """

    name: str
    describe: Callable[[int, Metrics], Mapping[str, Any]]
    folder: RunDir | None = None
    network_file: str = "student.safetensors"
    recipe: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    restart: bool = False
    keep_evaluated: bool = False
    resumed_by: str = ""
    on_start: Callable[[], None] = lambda: None
    on_end: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Trained:
    """The result of a finished run.

    Attributes:
        name: of the run.
        run_dir, checkpoint: its folder and the trained network in it; None without a folder.
        best: metrics of the best validation and, with a folder, its `checkpoint`; empty without validations.
        last: metrics of the last validation.
        seconds: from the beginning to the end, over all sessions.
        images_per_s: of the last session, without validating and saving.
    """

    name: str
    run_dir: Path | None
    checkpoint: Path | None
    best: Metrics
    last: Metrics
    seconds: float
    images_per_s: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, as run.json keeps it."""
        return {
            "run_dir": str(self.run_dir) if self.run_dir else None,
            "recipe": self.name,
            "checkpoint": str(self.checkpoint) if self.checkpoint else None,
            "best": self.best,
            "last": self.last,
            "seconds": self.seconds,
            "images_per_s": self.images_per_s,
        }


def finished(folder: RunDir) -> Trained | None:
    """The result of the run in a folder; None: it has not finished, lost its network, or was moved."""
    try:
        info = folder.read_info()
        result: dict[str, Any] = info["result"]
        trained = Trained(
            name=result["recipe"],
            run_dir=Path(result["run_dir"]),
            checkpoint=Path(result["checkpoint"]),
            **{key: result[key] for key in ("best", "last", "seconds", "images_per_s")},
        )
        moved = Path(result["run_dir"]).resolve() != folder.path.resolve()
        whole = info["status"] == "finished" and Path(result["checkpoint"]).is_file()
    except (KeyError, TypeError, ValueError):  # it never finished, or run.json is damaged
        return None
    return trained if whole and not moved else None


def step_line(row: Metrics, total: int) -> str:
    """One row of metrics.jsonl for people."""
    terms = "  ".join(f"{key[5:]} {value:.4f}" for key, value in row.items() if key.startswith("loss_"))
    critics = "".join(
        f"  critic {key.removeprefix('critic_')} {value:.4f}"
        for key, value in row.items()
        if key.startswith("critic_")
    )
    left = (total - row["step"]) * row["step_ms"] / 1000
    return (
        f"step {row['step']:.0f}/{total}  loss {row['loss']:.4f} ({terms}){critics}  lr {row['lr']:.2e}  "
        f"{row['step_ms']:.0f} ms/step  {left:.0f} s left"
    )


def validation_line(metrics: Metrics, improved: bool) -> str:
    """The result of an evaluation during training."""
    best = "  (best so far)" if improved else ""
    return (
        f"step {metrics['step']}  val mIoU {100 * metrics['miou']:.2f} %  "
        f"pixel accuracy {100 * metrics['pixel_accuracy']:.2f} %{best}"
    )
