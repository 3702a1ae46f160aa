"""From the run directories of a sweep to its summary: numbers, tables and the figure."""

from __future__ import annotations

import math
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from hwdkit.checkpoints.files import replacing
from hwdkit.commands.sweep import Sweep
from hwdkit.commands.sweep import folder as sweep_folder
from hwdkit.commands.sweep.plan import Job, Plan
from hwdkit.commands.sweep.runs import Outcome, state, unsettled
from hwdkit.engine.rundir import RunDir, training_seconds
from hwdkit.errors import CheckpointError, DivergedError, HwdkitError, RecipeError
from hwdkit.report.render import printable
from hwdkit.report.sweep import (
    CellResult,
    Metric,
    SeedResult,
    SweepReport,
    sweep_csv,
    sweep_json,
    sweep_markdown,
    sweep_table,
)
from hwdkit.terminal.command import Result

SAME = {
    "dataset_fingerprint": "dataset",
    "device": "kind of device",
    "dataset_partial": "share of the dataset",
}
"""What the runs of one table should agree on: key of run.json -> its name in a note."""


def of_folder(options: Sweep) -> Result:
    """Summarise what lies in the folder `--out`.

    Raises:
        RecipeError: no sweep does.
    """
    out = Path(options.out or "")
    plan = sweep_folder.read(out)
    if plan is None:
        raise RecipeError("no sweep: sweep.json is missing", where=str(out))
    return written(plan, out, options)


def written(plan: Plan, folder: Path, options: Sweep, *, error: HwdkitError | None = None) -> Result:
    """Read all runs; write summary.csv, .json, .md and the figure in each of the forms.

    Returns:
        The document has out, counts of runs by status, files, and the report's own fields.
    """
    from hwdkit.report.plots.sweep import can_draw, miou_lines  # matplotlib, for a summary only

    report, metric = collected(plan, folder), options.metric
    contents: dict[str, bytes] = {
        "csv": sweep_csv(report).encode(),
        "json": sweep_json(report).encode(),
        "md": sweep_markdown(report, metric).encode(),
    }
    if why_not := can_draw(report):
        report = replace(report, notes=(*report.notes, why_not))
    else:
        contents |= {form: miou_lines(report, form, metric=metric) for form in options.forms()}
    files = [str(folder / f"summary.{suffix}") for suffix in contents]
    for path, content in zip(files, contents.values(), strict=True):
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(content)
    runs = Counter(run.status for cell in report.cells for run in cell.runs)
    document = {"out": str(folder), "runs": dict(runs), "files": files, **report.to_dict()}
    return Result(document, lambda: render(report, files, metric), error)


def render(report: SweepReport, files: Sequence[str], metric: Metric) -> Group:
    """The summary's table, and where the files are."""
    lines = [*report.notes, "written  " + "  ".join(files)]
    return Group(sweep_table(report, metric), Text("\n".join(map(printable, lines))))


def collected(plan: Plan, folder: Path) -> SweepReport:
    """The results of every run of a plan, as its run directories hold them."""
    states = {job.name: state(folder, job) for job in plan.jobs}
    cells = []
    for cell in plan.cells:
        jobs = [Job(cell, seed) for seed in plan.seeds]
        runs = tuple(_result(folder, job, states[job.name]) for job in jobs)
        cells.append(CellResult(cell.name, cell.line, cell.values, runs))
    finished = [info for info in states.values() if info["status"] == "finished"]
    facts = {key: {str(info.get(key)) for info in finished} for key in SAME}
    notes = [f"the runs differ in their {SAME[key]}" for key, values in facts.items() if len(values) > 1]
    if facts["dataset_partial"] == {"True"}:
        notes.append("the dataset is partial: numbers are not comparable with others")
    if count := len(unsettled(plan, folder)):
        notes.append(f"{count} runs are not finished")
    return SweepReport(plan.recipe, plan.keys, plan.seeds, tuple(cells), tuple(notes))


def _result(folder: Path, job: Job, info: dict[str, Any]) -> SeedResult:
    status = str(info["status"])
    if status != "finished":
        # A run that was killed has not said so.
        return SeedResult(job.seed, "unfinished" if status == "running" else status)
    path = RunDir(folder / job.name)
    try:
        last, best = (_score(info["result"][which]["miou"]) for which in ("last", "best"))
        return SeedResult(job.seed, status, last, best, round(training_seconds(path.read_metrics()), 2))
    except (LookupError, TypeError, ValueError, OSError, RecursionError) as error:
        raise CheckpointError(
            f"its run.json or metrics.jsonl is not what a finished run writes: {error!r}",
            where=str(path.path),
            hint="delete this folder to make the run again",
        ) from None


def _score(value: Any) -> float | None:
    """NaN is what a split without a labelled pixel scores."""
    return None if value is None or math.isnan(value) else float(value)


class RunsFailed(HwdkitError):
    """Some runs of a sweep failed: 7 when all of those diverged, else the exit code of the first other."""

    def __init__(self, message: str, *, hint: str, exit_code: int, kind: str) -> None:
        super().__init__(message, hint=hint)
        self.exit_code, self.kind = exit_code, kind


def failure(plan: Plan, failures: Sequence[Outcome], folder: Path) -> RunsFailed | None:
    """What the sweep as a whole ends with: all diverged runs count, those of earlier visits too."""
    diverged = DivergedError.kind
    words = {outcome.job.name: outcome.word for outcome in failures}
    words |= {job.name: diverged for job in plan.jobs if state(folder, job)["status"] == diverged}
    if not words:
        return None
    other = next((outcome for outcome in failures if outcome.word != diverged), None)
    code = other.exit_code if other else DivergedError.exit_code
    shown = ", ".join([f"{name} {word}" for name, word in words.items()][:4])
    more = f" and {len(words) - 4} more" if len(words) > 4 else ""
    hint = f"their messages: {shlex.quote(os.path.relpath(folder))}/CELL/seed=N.log"
    return RunsFailed(
        f"{len(words)} of {len(plan.jobs)} runs failed: {shown}{more}",
        hint=hint + ("\n  the same command tries again those that did not diverge" if other else ""),
        exit_code=code if code > 0 else 128 - code,
        kind=other.word if other else diverged,
    )
