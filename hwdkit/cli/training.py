"""hwdkit train-teacher and hwdkit distill, in one process or several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwdkit.cli.old_options import (
    DATA,
    AutoResume,
    DataRoot,
    DryRun,
    Gpus,
    InitFrom,
    Json,
    MaxRestarts,
    MaxTime,
    MaybeRecipe,
    Nnodes,
    Out,
    Quiet,
    Ranks,
    RdzvEndpoint,
    RdzvId,
    Resume,
    Set,
    app,
)
from hwdkit.errors import UsageError
from hwdkit.terminal import exits, signals, values

if TYPE_CHECKING:
    from hwdkit.recipe.schema import Recipe as LoadedRecipe
    from hwdkit.terminal.launch import Launch


@app.command(epilog="Example:  hwdkit train-teacher --recipe ade20k-r101-teacher --gpus 4")
def train_teacher(
    recipe: MaybeRecipe = None,
    set_: Set = None,
    out: Out = None,
    resume: Resume = None,
    auto_resume: AutoResume = False,
    init_from: InitFrom = None,
    data_root: DataRoot = DATA,
    max_time: MaxTime = None,
    gpus: Gpus = "auto",
    ranks: Ranks = None,
    nnodes: Nnodes = "1",
    rdzv_endpoint: RdzvEndpoint = None,
    rdzv_id: RdzvId = "hwdkit",
    max_restarts: MaxRestarts = 0,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the teacher that a recipe describes."""
    _train(
        "train-teacher", recipe, set_, teacher=None, out=out, resume=resume, auto_resume=auto_resume,
        init_from=init_from, data_root=data_root, max_time=max_time, dry_run=dry_run,
        as_json=as_json, quiet=quiet,
        launch={"gpus": gpus, "ranks": ranks, "nnodes": nnodes, "rdzv_endpoint": rdzv_endpoint,
                "rdzv_id": rdzv_id, "max_restarts": max_restarts},
    )  # fmt: skip


@app.command(epilog="Example:  hwdkit distill --recipe ade20k-r18-hwd --set losses.hwd.beta=0.3")
def distill(
    recipe: MaybeRecipe = None,
    set_: Set = None,
    teacher: Annotated[
        str | None, typer.Option(help="The teacher's checkpoint or run directory; wins over the recipe.")
    ] = None,
    out: Out = None,
    resume: Resume = None,
    auto_resume: AutoResume = False,
    init_from: InitFrom = None,
    data_root: DataRoot = DATA,
    max_time: MaxTime = None,
    gpus: Gpus = "auto",
    ranks: Ranks = None,
    nnodes: Nnodes = "1",
    rdzv_endpoint: RdzvEndpoint = None,
    rdzv_id: RdzvId = "hwdkit",
    max_restarts: MaxRestarts = 0,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Distil a teacher into a student as a recipe says."""
    _train(
        "distill", recipe, set_, teacher=teacher, out=out, resume=resume, auto_resume=auto_resume,
        init_from=init_from, data_root=data_root, max_time=max_time, dry_run=dry_run,
        as_json=as_json, quiet=quiet,
        launch={"gpus": gpus, "ranks": ranks, "nnodes": nnodes, "rdzv_endpoint": rdzv_endpoint,
                "rdzv_id": rdzv_id, "max_restarts": max_restarts},
    )  # fmt: skip


@signals.leaving_at_once()
def _train(
    command: str, name: str | None, overrides: list[str] | None, *, teacher: str | None, out: Path | None,
    resume: Path | None, auto_resume: bool, init_from: Path | None, data_root: Path, max_time: str | None,
    dry_run: bool, as_json: bool, quiet: bool, launch: dict[str, Any],
) -> None:  # fmt: skip
    if (name is None) == (resume is None):
        raise UsageError("give either --recipe (a new run) or --resume (an old one)")
    if auto_resume and out is None:
        raise UsageError("--auto-resume needs --out: the run directory to continue, or to begin")
    for option, value in (
        ("--out", out), ("--init-from", init_from), ("--teacher", teacher), ("--dry-run", dry_run or None)
    ):  # fmt: skip
        if resume is not None and value is not None:
            raise UsageError(f"{option} means nothing with --resume, which continues a run as it was")
    max_seconds = values.seconds(max_time)
    plan = values.launch_plan(**launch)

    from hwdkit.recipe.load import load

    # Strict and torch-free: a typo in the recipe fails in milliseconds.
    loaded = load(name, overrides=overrides or []) if name is not None else None
    if dry_run:
        assert loaded is not None  # --resume and --dry-run exclude each other
        return _dry_run(
            command, loaded, teacher=teacher, out=None if auto_resume else out, init_from=init_from,
            data_root=data_root, as_json=as_json, plan=plan,
        )  # fmt: skip
    if auto_resume and out is not None and (out / "checkpoints" / "last.pt").is_file():
        assert loaded is not None
        overrides = _changes_to_a_run(loaded, out)
        loaded, resume = None, out

    from hwdkit.commands.training import command as training
    from hwdkit.commands.training import distill, narration, run, train_teacher
    from hwdkit.engine.rundir import default_path
    from hwdkit.terminal import console
    from hwdkit.terminal.launch import is_worker, launch_again, speaks

    console.set_up_logging(quiet=quiet or not speaks())
    out = resume or out or default_path(loaded.name if loaded else "")
    if not is_worker() and (plan.processes() > 1 or plan.nnodes != "1"):
        # All processes must agree on a directory whose name is drawn here.
        # A group that is started again must go on from its checkpoint.
        again = ["--auto-resume"] if plan.max_restarts or ":" in plan.nnodes else []
        return launch_again(plan, [] if resume else ["--out", str(out), *again])
    if loaded is None:
        loaded = training.resumed_recipe(out, overrides or [])
    settings = run.Settings(
        data_root=data_root,
        out=out,
        resume=resume is not None,
        cpu=plan.cpu,
        max_seconds=max_seconds,
        init_from=init_from,
        restart=auto_resume,
    )
    if command == "distill":
        result = distill.run(loaded, settings, teacher=teacher)
    else:
        result = train_teacher.run(loaded, settings)
    if speaks():
        exits.print_result(result, as_json, lambda: narration.render(result))


def _dry_run(
    command: str, recipe: LoadedRecipe, *, teacher: str | None, out: Path | None, init_from: Path | None,
    data_root: Path, as_json: bool, plan: Launch,
) -> None:  # fmt: skip
    """Print what would be trained; end with the exit code of the first thing that is missing."""
    from hwdkit.commands.training import distill, dry_run
    from hwdkit.commands.training.run import Settings
    from hwdkit.terminal.launch import speaks

    settings = Settings(data_root=data_root, out=out, init_from=init_from, cpu=plan.cpu)
    ranks = plan.processes()
    if command == "distill":
        result, error = dry_run.run(distill.with_teacher(recipe, teacher), "student", settings, ranks=ranks)
    else:
        result, error = dry_run.run(recipe, "teacher", settings, ranks=ranks)
    if speaks():
        exits.print_result(result, as_json, lambda: dry_run.render(result), error=error)
    if error is not None:
        raise error


def _changes_to_a_run(loaded: LoadedRecipe, out: Path) -> list[str]:
    """What this command line would change in the run that lies in `out`, as --set options.

    --auto-resume repeats a whole command line; `resumed_recipe` refuses what would make it another run.

    Raises:
        RecipeError: another recipe's run lies there.
    """
    from hwdkit.errors import RecipeError
    from hwdkit.recipe.load import differences, load

    before = load(out / "recipe.yaml")
    if before.name != loaded.name:
        raise RecipeError(
            f"holds a run of {before.name}, not of {loaded.name}", where=str(out), hint="choose another --out"
        )
    # The run pins its teacher to a file; the recipe may say how to find one.
    changed = differences(before, loaded)
    return [f"{key}={value}" for key, value in changed.items() if not key.startswith("teacher.")]
