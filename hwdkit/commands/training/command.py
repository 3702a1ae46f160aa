"""What train-teacher and distill share: from a recipe to a finished run directory."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch.distributed as dist

from hwdkit.commands.training.groundwork import Role
from hwdkit.commands.training.run import Run, Settings, trained_section
from hwdkit.distributed import Ranks, started
from hwdkit.engine.rundir import RunDir, default_path
from hwdkit.errors import CheckpointError, RecipeError
from hwdkit.recipe.load import load
from hwdkit.recipe.schema import Recipe

log = logging.getLogger("hwdkit")

RESUMABLE_CHANGES = {"data.workers", "train.log_every", "train.evaluate_every", "train.save_every"}
"""Keys that a resumed run may change: they move no weight."""


def train(recipe: Recipe, role: Role, settings: Settings) -> dict[str, Any]:
    """Train the recipe's teacher or student to the end.

    Returns:
        run_dir, checkpoint, best, last, seconds, images_per_s: JSON-able.

    Raises:
        HwdkitError: with the exit code that the mistake or the stop deserves.
    """
    with started(cpu=settings.cpu) as ranks:
        path = _agree_on_path(settings.out or default_path(recipe.name), ranks)
        trained_section(recipe, role)  # a recipe for the other command is refused whatever the folder holds
        folder = RunDir(path)
        result = folder.result() if settings.resume else None
        if result is not None:
            log.info("%s is finished: nothing to do", path)
            return result
        return Run(recipe, role, folder, settings, ranks).execute()


def resumed_recipe(run_dir: Path, overrides: list[str]) -> Recipe:
    """The recipe of a run to continue, with overrides that cannot change its weights.

    Raises:
        CheckpointError: there is no run.
        RecipeError: an override would make it another run.
    """
    path = run_dir / "recipe.yaml"
    if not path.is_file():
        raise CheckpointError("no run to resume: recipe.yaml is missing", where=str(run_dir))
    changed = {override.split("=", 1)[0] for override in overrides} - RESUMABLE_CHANGES
    if changed:
        raise RecipeError(
            f"a resumed run cannot change {', '.join(sorted(changed))}",
            where=str(run_dir),
            hint=f"only {', '.join(sorted(RESUMABLE_CHANGES))} may change; start a new run for the rest",
        )
    return load(str(path), overrides=overrides)


def _agree_on_path(path: Path, ranks: Ranks) -> Path:
    if ranks.world == 1:
        return path
    box = [str(path)]
    dist.broadcast_object_list(box)
    return Path(box[0])
