"""hwdkit distill: a teacher teaches a student, or (without distillation losses) the student learns alone."""

from __future__ import annotations

from typing import Any

from hwdkit.commands.run import Settings
from hwdkit.commands.training import train
from hwdkit.recipe.schema import Recipe


def run(recipe: Recipe, settings: Settings, *, teacher: str | None = None) -> dict[str, Any]:
    """Train the recipe's student.

    Args:
        recipe: a recipe with a `student`.
        settings: what the command line adds.
        teacher: checkpoint or run directory of the teacher; wins over the recipe's.

    Returns:
        See `commands.training.train`.
    """
    if teacher is not None and recipe.teacher is not None:
        named = recipe.teacher.model_copy(update={"checkpoint": teacher})
        recipe = recipe.model_copy(update={"teacher": named})
    return train(recipe, "student", settings)
