"""hwdkit distill: a teacher teaches a student, or (without distillation losses) the student learns alone."""

from __future__ import annotations

from typing import Any

from hwdkit.commands.training.command import train
from hwdkit.commands.training.run import Settings
from hwdkit.errors import RecipeError
from hwdkit.recipe.schema import Recipe


def run(recipe: Recipe, settings: Settings, *, teacher: str | None = None) -> dict[str, Any]:
    """Train the recipe's student.

    Args:
        recipe: a recipe with a `student`.
        settings: what the command line adds.
        teacher: checkpoint or run directory of the teacher; wins over the recipe's.

    Returns:
        See `commands.training.train`.

    Raises:
        RecipeError: a teacher for a recipe that has no use for one.
    """
    return train(with_teacher(recipe, teacher), "student", settings)


def with_teacher(recipe: Recipe, teacher: str | None) -> Recipe:
    """The recipe with the teacher that the command line names, if it names one.

    Raises:
        RecipeError: a teacher for a recipe that has no use for one.
    """
    if teacher is None:
        return recipe
    if recipe.teacher is None:
        raise RecipeError(
            f"recipe {recipe.name} has no teacher: none of its losses learns from one",
            hint="leave out --teacher, or choose a recipe that distils",
        )
    named = recipe.teacher.model_copy(update={"checkpoint": teacher})
    return recipe.model_copy(update={"teacher": named})
