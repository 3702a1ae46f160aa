"""hwdkit sweep: one recipe under many settings and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hwdkit.errors import UsageError
from hwdkit.terminal import launch, paths, values
from hwdkit.terminal.command import Result, command
from hwdkit.terminal.options import DATA, DataRoot, Gpus, MaybeRecipe, Set

if TYPE_CHECKING:
    from hwdkit.commands.sweep.plan import Plan
    from hwdkit.report.plots.style import Form


@command(
    example="hwdkit sweep -r ade20k-r18-hwd --grid losses.hwd.beta=0.01,0.1,0.7 --seeds 0,1,2 "
    "--reference cwd=ade20k-r18-cwd"
)
class Sweep:
    """Run a recipe under every combination of settings and seeds, and summarise all runs.

    Every run has its own run directory. The same command continues a sweep that was stopped; cells and seeds
    may be added. Exit code 7: some runs diverged; 75 and 130: stopped, all is saved.
    """

    recipe: MaybeRecipe = None
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V1,V2,…", help="Values of a key of the recipe, as --set reads them; may be repeated."
        ),
    ] = None
    seeds: Annotated[
        str | None, typer.Option(help="E.g. 0,1,2: every cell once a seed.", show_default="the recipe's own")
    ] = None
    overrides: Set = None
    baseline: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="Also run this one; differences are to it.")
    ] = None
    reference: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=RECIPE", help="Also run this one: a line in the figure; may be repeated."),
    ] = None
    teacher: Annotated[
        str | None, typer.Option(help="The teacher's checkpoint or run directory; wins over the recipe.")
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The sweep's folder; the same one continues it.", show_default="sweeps/RECIPE"
        ),
    ] = None
    data_root: DataRoot = DATA
    gpus: Gpus = "auto"
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", min=1, help="Runs at a time.", show_default="one per GPU, one on the CPU"
        ),
    ] = None
    keep_going: Annotated[
        bool, typer.Option("--keep-going/--fail-fast", help="Whether a failed run stops the others.")
    ] = True
    max_time: Annotated[
        str | None,
        typer.Option(
            "--max-time", help="Stop the whole sweep cleanly after e.g. 90s, 45m, 11h30m (exit 75)."
        ),
    ] = None
    metric: Annotated[Literal["last", "best"], typer.Option(help="Which val mIoU is marked and drawn.")] = (
        "last"
    )
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="png | svg | pdf: of the figure; may be repeated.", show_default="png"),
    ] = None
    emit_commands: Annotated[
        bool, typer.Option("--emit-commands", help="Print one command for each missing run, and run nothing.")
    ] = False
    summary_only: Annotated[
        bool, typer.Option("--summary-only", help="Only write the summary of the sweep in --out again.")
    ] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs; write and train nothing.")] = (
        False
    )

    def __post_init__(self) -> None:
        if sum((self.emit_commands, self.summary_only, self.dry_run)) > 1:
            raise UsageError("--emit-commands, --summary-only and --dry-run exclude each other")
        if self.emit_commands and (self.jobs or not self.keep_going):
            raise UsageError("--emit-commands runs nothing: --jobs and --fail-fast have no meaning with it")
        values.launch_plan(gpus=self.gpus)
        values.seconds(self.max_time)
        self.forms()
        if self.summary_only:
            of_a_plan = {
                "--recipe": self.recipe, "--grid": self.grid, "--seeds": self.seeds, "--set": self.overrides,
                "--baseline": self.baseline, "--reference": self.reference, "--teacher": self.teacher,
                "--jobs": self.jobs, "--max-time": self.max_time,
            }  # fmt: skip
            if self.out is None or any(of_a_plan.values()):
                raise UsageError(f"--summary-only needs --out, and none of {', '.join(of_a_plan)}")
        elif self.recipe is None:
            raise UsageError("--recipe is missing: what is to be swept")
        elif not self.grid and self.seeds is None:
            raise UsageError("nothing to sweep: give --grid KEY=VALUE,…, or --seeds 0,1,2, or both")

    def forms(self) -> tuple[Form, ...]:
        """The file formats of the figure."""
        return tuple(
            values.one_of("--format", form, ("png", "svg", "pdf")) for form in self.formats or ["png"]
        )

    def plan(self) -> Plan:
        """All cells' recipes, checked."""
        from hwdkit.commands.sweep import grid
        from hwdkit.commands.sweep.plan import planned
        from hwdkit.report.sweep import BASELINE

        lines = {BASELINE: self.baseline} if self.baseline is not None else {}
        return planned(
            str(self.recipe),
            grid.axes(self.grid or []),
            overrides=self.overrides or [],
            seeds=grid.seeds(self.seeds) if self.seeds is not None else None,
            lines=lines | grid.references(self.reference or []),
        )

    def run(self) -> Result:
        if launch.is_worker():
            raise UsageError("a sweep is started once, not by torchrun or several tasks of srun")
        if self.summary_only:
            from hwdkit.commands.sweep import summary

            return summary.of_folder(self)
        plan = self.plan()
        out = paths.require_possible("--out", self.out or Path("sweeps", plan.recipe))

        from hwdkit.commands.sweep import folder, visit

        plan = folder.prepared(plan, teacher=self.teacher, out=out)
        if self.emit_commands:
            commands = visit.commands(self, plan, out)
            return Result({"commands": commands}, lambda: "".join(f"{line}\n" for line in commands))
        if self.dry_run:
            listed = visit.listed(self, plan, out)
            return Result(listed, lambda: visit.render_listed(listed))
        return visit.run(self, plan, out)
