"""hwdkit train-teacher: supervised training of the recipe's teacher."""

from __future__ import annotations

from typing import Any

from hwdkit.commands.training.command import train
from hwdkit.commands.training.run import Settings
from hwdkit.recipe.schema import Recipe


def run(recipe: Recipe, settings: Settings) -> dict[str, Any]:
    """Train the recipe's teacher; see `commands.training.train`."""
    return train(recipe, "teacher", settings)
