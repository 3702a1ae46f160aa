"""hwdkit sweep: one recipe under many settings and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hwdkit.cli.old_options import DATA, DataRoot, Gpus, Json, MaybeRecipe, Quiet, Set, app
from hwdkit.errors import UsageError
from hwdkit.terminal import exits, paths, values


@app.command(
    epilog="Example:  hwdkit sweep -r ade20k-r18-hwd --grid losses.hwd.beta=0.01,0.1,0.7 --seeds 0,1,2 "
    "--reference cwd=ade20k-r18-cwd"
)
def sweep(
    recipe: MaybeRecipe = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V1,V2,…", help="Values of a key of the recipe, as --set reads them; may be repeated."
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="E.g. 0,1,2: every cell once a seed.", show_default="the recipe's own")
    ] = None,
    set_: Set = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="Also run this one; deltas are against it.")
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=RECIPE", help="Also run this one: a line in the figure; may be repeated."),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="The teacher's checkpoint or run directory; wins over the recipe.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The sweep's folder; the same one continues it.", show_default="sweeps/RECIPE"
        ),
    ] = None,
    data_root: DataRoot = DATA,
    gpus: Gpus = "auto",
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", min=1, help="Runs at a time.", show_default="one per GPU, one on the CPU"
        ),
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going/--fail-fast", help="Whether a failed run stops the others.")
    ] = True,
    max_time: Annotated[
        str | None,
        typer.Option(
            "--max-time", help="Stop the whole sweep cleanly after e.g. 90s, 45m, 11h30m (exit 75)."
        ),
    ] = None,
    metric: Annotated[str, typer.Option(help="last | best: which val mIoU is marked and drawn.")] = "last",
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="png | svg | pdf: of the figure; may be repeated.", show_default="png"),
    ] = None,
    emit_commands: Annotated[
        bool, typer.Option("--emit-commands", help="Print one command a missing run, and run nothing.")
    ] = False,
    summary_only: Annotated[
        bool, typer.Option("--summary-only", help="Only write the summary of the sweep in --out again.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the runs; write and train nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a recipe under every combination of settings and seeds: what is missing is run, all is summarised.

    Every run is an ordinary one in its own folder. A sweep that was stopped goes on with the same command;
    cells and seeds may be added. Exit code 7: some runs diverged; 75 and 130: stopped, all is saved.
    """
    if sum((emit_commands, summary_only, dry_run)) > 1:
        raise UsageError("--emit-commands, --summary-only and --dry-run exclude each other")
    if emit_commands and as_json:
        raise UsageError("--emit-commands prints lines for a shell: leave out --json")
    if emit_commands and (jobs or not keep_going):
        raise UsageError("--emit-commands runs nothing: --jobs and --fail-fast have no meaning with it")
    chosen: dict[str, Any] = {
        "data_root": data_root,
        "launch": values.launch_plan(gpus=gpus),
        "jobs": jobs,
        "fail_fast": not keep_going,
        "max_seconds": values.seconds(max_time),
        "metric": values.one_of("--metric", metric, ("last", "best")),
        "forms": tuple(values.one_of("--format", form, ("png", "svg", "pdf")) for form in formats or ["png"]),
    }
    if summary_only:
        plan_options = {
            "--recipe": recipe, "--grid": grid, "--seeds": seeds, "--set": set_, "--baseline": baseline,
            "--reference": reference, "--teacher": teacher, "--jobs": jobs, "--max-time": max_time,
        }  # fmt: skip
        if out is None or any(plan_options.values()):
            none_of = ", ".join(plan_options)
            raise UsageError(
                f"--summary-only reads all it needs from --out: give that, and none of {none_of}"
            )
        return _summary_only(out, chosen, as_json=as_json)
    plan = _plan(recipe, grid or [], seeds, set_ or [], baseline=baseline, references=reference or [])
    out = paths.require_possible("--out", out or Path("sweeps", plan.recipe))

    from hwdkit.commands.sweep import command
    from hwdkit.commands.sweep import folder as sweep_folder
    from hwdkit.terminal import console, launch

    console.set_up_logging(quiet=quiet)
    if launch.is_worker():
        raise UsageError("a sweep is started once, not by torchrun or several tasks of srun")
    options = command.Options(out=out, **chosen)
    plan = sweep_folder.prepared(plan, teacher=teacher, out=out)
    if emit_commands:
        lines = command.commands(plan, options, max_time=max_time)
        return console.write("".join(f"{line}\n" for line in lines))
    if dry_run:
        listed = command.dry(plan, options)
        return exits.print_result(listed, as_json, lambda: command.render_dry(listed))
    result, error = command.run(plan, options)
    _print(result, chosen["metric"], as_json, error=error)
    if error is not None:
        raise error


def _summary_only(out: Path, chosen: dict[str, Any], *, as_json: bool) -> None:
    from hwdkit.commands.sweep import command

    _print(command.summary_only(command.Options(out=out, **chosen)), chosen["metric"], as_json)


def _print(result: dict[str, Any], metric: Any, as_json: bool, *, error: Any = None) -> None:
    from hwdkit.commands.sweep import command

    document = {key: value for key, value in result.items() if key != "report"} | result["report"].to_dict()
    exits.print_result(
        document if as_json else result, as_json, lambda: command.render(result, metric), error=error
    )


def _plan(
    recipe: str | None, grid: list[str], seeds: str | None, overrides: list[str], *,
    baseline: str | None, references: list[str],
) -> Any:  # fmt: skip
    """All cells' recipes, checked before torch is loaded."""
    from hwdkit.commands.sweep import grid as sweep_grid
    from hwdkit.commands.sweep import plan as sweep_plan

    if recipe is None:
        raise UsageError("--recipe is missing: what is to be swept")
    if not grid and seeds is None:
        raise UsageError("nothing to sweep: give --grid KEY=VALUE,…, or --seeds 0,1,2, or both")
    lines = {sweep_grid.BASELINE: baseline} if baseline is not None else {}
    lines |= sweep_grid.references(references)
    wanted = sweep_grid.seeds(seeds) if seeds is not None else None
    return sweep_plan.planned(recipe, sweep_grid.axes(grid), overrides=overrides, seeds=wanted, lines=lines)
