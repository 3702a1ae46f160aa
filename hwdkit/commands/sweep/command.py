"""hwdkit sweep: one recipe under many settings and seeds, and what came of each."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Group
from rich.text import Text

from hwdkit.commands.sweep import folder as sweep_folder
from hwdkit.commands.sweep.plan import Cell, Job, Plan, jobs
from hwdkit.commands.sweep.progress import Progress, settled_word
from hwdkit.commands.sweep.runs import (
    Pool,
    Workplace,
    arguments,
    command_line,
    is_settled,
    state,
)
from hwdkit.commands.sweep.summary import failure, summarised
from hwdkit.commands.training import dry_run
from hwdkit.commands.training.groundwork import Role, prepared_index
from hwdkit.commands.training.run import Settings
from hwdkit.errors import HwdkitError, RecipeError, UsageError
from hwdkit.report.plots.style import Form
from hwdkit.report.render import printable
from hwdkit.report.sweep import Metric, sweep_table
from hwdkit.report.table import Column, Table
from hwdkit.terminal.launch import Launch
from hwdkit.terminal.signals import StopRequest

log = logging.getLogger("hwdkit")

MANY = 200


@dataclass(frozen=True)
class Options:
    """What the command line says beside the plan.

    Attributes:
        out: the sweep's folder.
        data_root: folder of the prepared datasets.
        launch: which GPUs.
        jobs: runs at a time; None is one per GPU, or one on the CPU.
        fail_fast: a failed run ends the sweep.
        max_seconds: of the whole sweep.
        metric, forms: of the figure.
    """

    out: Path
    data_root: Path = Path("data")
    launch: Launch = field(default_factory=Launch)
    jobs: int | None = None
    fail_fast: bool = False
    max_seconds: float | None = None
    metric: Metric = "last"
    forms: tuple[Form, ...] = ("png",)


def run(plan: Plan, options: Options) -> tuple[dict[str, Any], HwdkitError | None]:
    """Make the runs that are missing, and summarise all.

    Args:
        plan: see `sweep_folder.prepared`.
        options: what the command line says beside it.

    Returns:
        See `sweep_summary.summarised`; and what stopped it or failed, if anything.

    Raises:
        HwdkitError: nothing could be begun: another sweep lies or works in the folder, data are missing, ….
    """
    devices = _devices(options.launch, options.jobs)
    place = Workplace(options.out.resolve(), options.data_root, devices)
    sweep_folder.require_ours(options.out)
    stop = StopRequest(options.max_seconds)
    with sweep_folder.locked(options.out) as lock, stop.listening():
        before = {job.name: state(options.out, job) for job in jobs(plan)}
        todo = [job for job in jobs(plan) if not is_settled(before[job.name])]
        if todo:
            _require_ready(plan, todo, options)
        plan = sweep_folder.kept(plan, options.out)
        if todo:
            _tell_beginning(plan, todo, len(before), devices)
        pool = Pool(plan, place, lock=lock, stop=stop)
        words = {name: settled_word(info) for name, info in before.items() if is_settled(info)}
        progress = Progress(plan, words, todo, pool)
        with progress.shown():
            pool.run(todo, fail_fast=options.fail_fast, look=progress.look)
        error: HwdkitError | None = failure(plan, pool.failures(), options.out)
        if stop.reason and not all(is_settled(state(options.out, job)) for job in todo):
            error = stop.error(command_line(sys.argv[1:]))
        return summarised(plan, options.out, metric=options.metric, forms=options.forms), error


def commands(plan: Plan, options: Options, *, max_time: str | None = None) -> list[str]:
    """One line for a shell a missing run; writes the recipes that these name."""
    sweep_folder.require_ours(options.out)
    with sweep_folder.locked(options.out):
        plan = sweep_folder.kept(plan, options.out)
    place = Workplace(options.out, options.data_root)
    gpus = [] if options.launch.gpus == "auto" else ["--gpus", options.launch.gpus]
    more = gpus + (["--max-time", max_time] if max_time else [])
    missing = [job for job in jobs(plan) if not is_settled(state(options.out, job))]
    return [command_line([*arguments(job, plan, place), *more]) for job in missing]


def dry(plan: Plan, options: Options) -> dict[str, Any]:
    """What would be run; nothing is written.

    Returns:
        runs: one mapping a run with `run`, `line`, `values`, `seed`, `status`; missing: how many are to do.

    Raises:
        HwdkitError: what keeps the first cell, or a line, from beginning.
    """
    rows = []
    for job in jobs(plan):
        status = str(state(options.out, job)["status"])
        rows.append(
            {
                "run": job.name,
                "line": job.cell.line,
                "values": job.cell.values,
                "seed": job.seed,
                "status": status,
            }
        )
    sweep_folder.require_ours(options.out)
    _fits(plan.cells, plan, options)
    left = sum(not is_settled(row) for row in rows)
    return {"out": str(options.out), "command": plan.command, "runs": rows, "to_do": left}


def summary_only(options: Options) -> dict[str, Any]:
    """Summarise what lies in the folder.

    Raises:
        RecipeError: no sweep does.
    """
    plan = sweep_folder.read(options.out)
    if plan is None:
        raise RecipeError("no sweep: sweep.json is missing", where=str(options.out))
    return summarised(plan, options.out, metric=options.metric, forms=options.forms)


def render(result: dict[str, Any], metric: Metric) -> Group:
    """The summary's table, and where the files are."""
    lines = [printable(note) for note in result["report"].notes]
    lines.append(printable("written  " + "  ".join(result["files"])))
    return Group(sweep_table(result["report"], metric), Text("\n".join(lines)))


def render_dry(result: dict[str, Any]) -> Group:
    """The runs as a table."""
    columns = [Column(heading, left=True, whole=True) for heading in ("run", "status")]
    table = Table(columns, ((row["run"], row["status"]) for row in result["runs"]))
    count = len(result["runs"])
    return Group(table, Text(f"{count} runs of hwdkit {result['command']}, {result['to_do']} to do"))


def _require_ready(plan: Plan, todo: Sequence[Job], options: Options) -> None:
    """Find out now what would fail in every run, and prepare the dataset before several runs would."""
    cells = list(dict.fromkeys(job.cell.name for job in todo))
    found = [cell for cell in plan.cells if cell.name in cells]
    for dataset in dict.fromkeys(cell.recipe.data.dataset for cell in found):
        prepared_index(dataset, options.data_root)
    _fits(found, plan, options)


def _fits(cells: Sequence[Cell], plan: Plan, options: Options) -> None:
    """Build the first cell of the grid and every line without numbers."""
    settings = Settings(data_root=options.data_root, cpu=options.launch.cpu)
    role: Role = "student" if plan.command == "distill" else "teacher"
    firsts = {cell.line: cell for cell in reversed(cells)}
    for cell in reversed(firsts.values()):
        _, error = dry_run.run(cell.recipe, role, settings)
        if error is not None:
            raise error


def _tell_beginning(plan: Plan, todo: Sequence[Job], total: int, devices: Sequence[str | None]) -> None:
    at_once = f", {len(devices)} at a time" if len(devices) > 1 else ""
    where = "on the CPU" if devices[0] is None else "one GPU each"
    log.info(
        "%s: %d runs to make of %d (%d cells x %d seeds), %s%s",
        printable(plan.recipe), len(todo), total, len(plan.cells), len(plan.seeds), where, at_once,
    )  # fmt: skip
    if len(todo) > MANY:
        log.warning("%d runs: how long they will take is told after the first", len(todo))


def _devices(launch: Launch, jobs: int | None) -> tuple[str | None, ...]:
    """One entry a run at a time: the GPU that it sees, as CUDA_VISIBLE_DEVICES names it.

    Raises:
        EnvironmentFailure: more GPUs are asked for than there are.
        UsageError: more runs at a time than GPUs.
    """
    launch.processes()  # refuses more than there are
    visible = torch.cuda.device_count()
    count = visible if launch.gpus == "auto" else int(launch.gpus)
    if count == 0:
        return (None,) * (jobs or 1)
    if (jobs or 1) > count:
        raise UsageError(f"--jobs {jobs}: each run needs a GPU of its own, and {count} may be used")
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple((named or [str(number) for number in range(visible)])[: jobs or count])
