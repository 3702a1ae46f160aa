"""The networks that a recipe describes, built for their cost alone: no dataset, no pretrained weights."""

from __future__ import annotations

from pathlib import Path

from hwdkit.data.index import load_index
from hwdkit.datasets.table import DATASETS
from hwdkit.engine import build
from hwdkit.engine.networks import load_network
from hwdkit.errors import CheckpointError
from hwdkit.models.segmenter import Segmenter
from hwdkit.recipe.load import load
from hwdkit.recipe.schema import Network, Recipe


def bare(section: Network, classes: int) -> Segmenter:
    """A network as described, with random weights: they change no cost, and nothing is downloaded."""
    return build.network(section.model_copy(update={"pretrained": False}), classes)


def classes_of(recipe: Recipe, data_root: Path) -> int:
    """A known dataset need not be there to be counted for; a user's own is described by its index alone."""
    known = DATASETS.get(recipe.data.dataset)
    return len(known.classes if known is not None else load_index(data_root / recipe.data.dataset).classes)


def teacher_section(recipe: Recipe) -> Network | None:
    """The teacher's description: in this recipe, or in the one that trains it; None if a file holds it."""
    if recipe.teacher is None or recipe.teacher.backbone is not None:
        return recipe.teacher
    if recipe.teacher.checkpoint is not None or recipe.teacher.recipe is None:
        return None
    return load(recipe.teacher.recipe).teacher


def teacher(recipe: Recipe, classes: int) -> Segmenter:
    """The teacher, from its description if there is one, else from its checkpoint.

    Raises:
        CheckpointError: there is only a checkpoint, and it is missing, damaged or made for other classes.
    """
    section = teacher_section(recipe)
    if section is not None:
        return bare(section, classes)
    loaded = load_network(build.teacher_checkpoint(recipe))
    found = loaded.model.spec.classes
    if found != classes:
        raise CheckpointError(
            f"checkpoint has {found} classes, {recipe.data.dataset} is counted with {classes}",
            where=str(loaded.path),
        )
    return loaded.model
