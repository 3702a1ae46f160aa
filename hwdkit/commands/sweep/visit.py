"""One visit to a sweep's folder: what is missing is run, printed as commands, or only listed."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Group
from rich.text import Text

from hwdkit.commands.sweep import Sweep, summary
from hwdkit.commands.sweep import folder as sweep_folder
from hwdkit.commands.sweep.plan import Cell, Job, Plan
from hwdkit.commands.sweep.runs import Outcome, Pool, arguments, command_line, state, unsettled
from hwdkit.commands.train import dry_run
from hwdkit.commands.train.run import prepared_index
from hwdkit.errors import HwdkitError, UsageError
from hwdkit.report.render import percent, printable
from hwdkit.report.table import Column, Table
from hwdkit.terminal import console, values
from hwdkit.terminal.command import Result
from hwdkit.terminal.launch import Launch
from hwdkit.terminal.signals import StopRequest

log = logging.getLogger("hwdkit")


def run(options: Sweep, plan: Plan, out: Path) -> Result:
    """Make the runs that are missing, and summarise all.

    Args:
        plan: see `folder.prepared`.
        out: the sweep's folder.

    Returns:
        The summary; with what stopped the sweep or failed, if anything.

    Raises:
        HwdkitError: nothing could begin: another sweep is in the folder, data are missing, ….
    """
    devices = _devices(values.launch_plan(gpus=options.gpus), options.jobs)
    sweep_folder.require_ours(out)
    stop = StopRequest(values.seconds(options.max_time))
    with sweep_folder.locked(out) as lock, stop.listening():
        missing, total = unsettled(plan, out), len(plan.jobs)
        if missing:
            _require_ready(plan, missing, options)
        plan = sweep_folder.written(plan, out)
        if missing:
            log.info("%s", _beginning(plan, missing, devices))
        pool = Pool(plan, out.resolve(), options.data_root, devices, lock=lock, stop=stop)
        with console.progress("sweep", total, done=total - len(missing)) as advance:

            def ended(outcome: Outcome) -> None:
                done = total - len(missing) + len(pool.outcomes)
                log.info("[%d/%d] %s", done, total, _ending(outcome))
                advance(done)

            pool.run(missing, fail_fast=not options.keep_going, ended=ended)
        error: HwdkitError | None = summary.failure(plan, pool.failures(), out)
        if stop.reason and unsettled(plan, out):
            error = stop.error(command_line(sys.argv[1:]))
        return summary.written(plan, out, options, error=error)


def commands(options: Sweep, plan: Plan, out: Path) -> list[str]:
    """One line for a shell a missing run; writes the recipes that these name."""
    sweep_folder.require_ours(out)
    with sweep_folder.locked(out):
        plan = sweep_folder.written(plan, out)
    more = [] if options.gpus == "auto" else ["--gpus", values.launch_plan(gpus=options.gpus).gpus]
    more += ["--max-time", options.max_time] if options.max_time else []
    return [
        command_line([*arguments(job, plan, folder=out, data_root=options.data_root), *more])
        for job in unsettled(plan, out)
    ]


def listed(options: Sweep, plan: Plan, out: Path) -> dict[str, Any]:
    """What would be run; nothing is written.

    Returns:
        runs: one mapping a run with `run`, `line`, `values`, `seed`, `status`; to_do: how many are missing.

    Raises:
        HwdkitError: what keeps the first cell, or a line, from beginning.
    """
    sweep_folder.require_ours(out)
    _require_fit(plan.cells, options)
    rows = [
        {
            "run": job.name,
            "line": job.cell.line,
            "values": job.cell.values,
            "seed": job.seed,
            "status": str(state(out, job)["status"]),
        }
        for job in plan.jobs
    ]
    return {"out": str(out), "command": plan.command, "runs": rows, "to_do": len(unsettled(plan, out))}


def render_listed(result: dict[str, Any]) -> Group:
    """The runs as a table."""
    columns = [Column(heading, left=True, whole=True) for heading in ("run", "status")]
    table = Table(columns, ((row["run"], row["status"]) for row in result["runs"]))
    count = len(result["runs"])
    return Group(table, Text(f"{count} runs of hwdkit {result['command']}, {result['to_do']} to do"))


def _require_ready(plan: Plan, missing: Sequence[Job], options: Sweep) -> None:
    """Find out now what would fail in every run, and prepare the dataset before several runs would."""
    cells = [cell for cell in plan.cells if any(job.cell is cell for job in missing)]
    for dataset in dict.fromkeys(cell.recipe.data.dataset for cell in cells):
        prepared_index(dataset, options.data_root)
    _require_fit(cells, options)


def _require_fit(cells: Sequence[Cell], options: Sweep) -> None:
    """Build the first cell of the grid and every line without numbers."""
    cpu = values.launch_plan(gpus=options.gpus).cpu
    firsts = {cell.line: cell for cell in reversed(cells)}
    for cell in reversed(firsts.values()):
        _, error = dry_run.run(cell.recipe, data_root=options.data_root, cpu=cpu)
        if error is not None:
            raise error


def _beginning(plan: Plan, missing: Sequence[Job], devices: Sequence[str | None]) -> str:
    size = f"{len(plan.cells)} cells x {len(plan.seeds)} seeds"
    where = "on the CPU" if devices[0] is None else "one GPU each"
    at_once = f", {len(devices)} at a time" if len(devices) > 1 else ""
    counts = f"{len(missing)} runs to make of {len(plan.jobs)}"
    return printable(f"{plan.recipe}: {counts} ({size}), {where}{at_once}")


def _ending(outcome: Outcome) -> str:
    line = f"{outcome.job.name}  {outcome.word}"
    if outcome.exit_code == 0:
        line += f"  val mIoU {percent(outcome.document['last']['miou'])} %"
    elif message := outcome.error.get("message"):
        line += f": {message}"
    return printable(f"{line}  {outcome.seconds:.0f} s")


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
