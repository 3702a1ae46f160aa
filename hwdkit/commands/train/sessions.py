"""One session of a run: new or continued, in one process or several, and what it prints at its end."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from hwdkit.commands.train import Train, dry_run, run
from hwdkit.engine.rundir import RunDir, default_path
from hwdkit.errors import CheckpointError, RecipeError
from hwdkit.recipe.load import differences, load
from hwdkit.recipe.schema import RESUMABLE, Recipe
from hwdkit.terminal import launch, values
from hwdkit.terminal.command import Result


def train(options: Train, recipe: Recipe | None) -> Result | None:
    """Begin a run, or continue the one that `--resume` or `--auto-resume` means.

    Args:
        options: of the command.
        recipe: of a new run; None with `--resume`.

    Returns:
        What is printed; None where other processes print it.
    """
    plan, resume, changes = options.launch_plan(), options.resume, list(options.set_ or ())
    if recipe and options.auto_resume and options.out and RunDir(options.out).last.is_file():
        resume, changes = options.out, changes_to(options.out, recipe)
    out = resume or options.out or default_path(recipe.name if recipe else "")
    if not launch.is_worker() and (plan.processes() > 1 or plan.nnodes != "1"):
        # All processes must agree on a directory whose name is drawn here.
        # A group that is started again must go on from its checkpoint.
        again = ["--auto-resume"] if plan.max_restarts or ":" in plan.nnodes else []
        launch.launch_again(plan, [] if resume else ["--out", str(out), *again])
        return None
    if resume or recipe is None:
        recipe = resumed_recipe(out, changes)
    trained = run.train(
        options.prepared(recipe),
        data_root=options.data_root,
        out=out,
        resume=resume is not None,
        restart=options.auto_resume,
        init_from=options.init_from,
        cpu=plan.cpu,
        max_seconds=values.seconds(options.max_time),
    )
    if not launch.speaks():
        return None
    result = {**trained.to_dict(), "next": next_commands(out, options.data_root)}
    return Result(result, lambda: render(result))


def dry(options: Train, recipe: Recipe) -> Result:
    """What would be trained; ends with the exit code of the first thing that is missing."""
    plan = options.launch_plan()
    result, error = dry_run.run(
        options.prepared(recipe),
        data_root=options.data_root,
        out=None if options.auto_resume else options.out,
        init_from=options.init_from,
        cpu=plan.cpu,
        ranks=plan.processes(),
    )
    return Result(result, lambda: dry_run.render(result), error)


def resumed_recipe(run_dir: Path, overrides: list[str]) -> Recipe:
    """The recipe of a run to continue, with overrides that cannot change its weights.

    Raises:
        CheckpointError: there is no run.
        RecipeError: an override would make it another run.
    """
    path = RunDir(run_dir).recipe
    if not path.is_file():
        raise CheckpointError("no run to resume: recipe.yaml is missing", where=str(run_dir))
    changed = {override.split("=", 1)[0] for override in overrides} - RESUMABLE
    if changed:
        raise RecipeError(
            f"a resumed run cannot change {', '.join(sorted(changed))}",
            where=str(run_dir),
            hint=f"only {', '.join(sorted(RESUMABLE))} may change; start a new run for the rest",
        )
    return load(str(path), overrides=overrides)


def changes_to(run_dir: Path, recipe: Recipe) -> list[str]:
    """What a recipe would change in the run in a folder, as --set options.

    --auto-resume repeats a whole command line; `resumed_recipe` refuses what would make it another run.

    Raises:
        RecipeError: the folder holds another recipe's run.
    """
    before = load(RunDir(run_dir).recipe)
    if before.name != recipe.name:
        raise RecipeError(
            f"holds a run of {before.name}, not of {recipe.name}",
            where=str(run_dir),
            hint="choose another --out",
        )
    # The run pins its teacher to a file; the recipe may say how to find one.
    changed = differences(before, recipe)
    return [f"{key}={value}" for key, value in changed.items() if not key.startswith("teacher.")]


def next_commands(run_dir: Path, data_root: Path) -> list[str]:
    """What to type after a run, with its real paths: command lines for a shell, the likeliest first."""
    info = RunDir(run_dir).read_info()
    path = shlex.quote(str(run_dir))
    data = "" if data_root == run.DATA else f" --data-root {shlex.quote(str(data_root))}"
    lines = [f"hwdkit evaluate --checkpoint {path}{data}"]
    if info["command"] == run.COMMANDS["teacher"]:
        return [f"hwdkit distill --recipe NAME --teacher {path}{data}", *lines]
    if info["teacher"] is not None:
        pair = f"--student {path} --teacher {shlex.quote(info['teacher'])}"
        lines.append(f"hwdkit per-class-report {pair}{data}")
    return [*lines, f"hwdkit compare OTHER_RUN {path}{data}"]


def render(result: dict[str, Any]) -> str:
    """The end of a run in a few lines: what came out, and what to type next."""
    last, best = result["last"], result["best"]
    return "\n".join(
        (
            f"val mIoU   {100 * last['miou']:.2f} % at step {last['step']} (last), "
            f"{100 * best['miou']:.2f} % at step {best['step']} (best on val)",
            f"time       {result['seconds']:.1f} s, {result['images_per_s']:.1f} images/s",
            f"network    {result['checkpoint']}",
            *(f"{'' if n else 'next':<11}{line}" for n, line in enumerate(result["next"])),
        )
    )
