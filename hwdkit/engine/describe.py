"""The networks that a recipe describes, without their weights: for their shapes and their cost.

No pretrained weights are loaded, and the dataset need not be there. On torch's meta device
(`with torch.device("meta")`) they take no memory either.
"""

from __future__ import annotations

from pathlib import Path

from hwdkit.data.index import load_index
from hwdkit.datasets.table import DATASETS
from hwdkit.engine import build
from hwdkit.engine.networks import Loaded, load_network
from hwdkit.errors import CheckpointError
from hwdkit.models.segmenter import Segmenter
from hwdkit.models.segmenter import build as build_segmenter
from hwdkit.recipe.load import load
from hwdkit.recipe.schema import Network, Recipe


def classes_of(recipe: Recipe, data_root: Path) -> int:
    """A known dataset need not be there to be counted for; a user's own is described by its index alone."""
    known = DATASETS.get(recipe.data.dataset)
    return len(known.classes if known is not None else load_index(data_root / recipe.data.dataset).classes)


def bare(section: Network, classes: int) -> Segmenter:
    """A network as described, with random weights."""
    return build.network(section.model_copy(update={"pretrained": False}), classes)


def teacher_section(recipe: Recipe) -> Network | None:
    """The teacher's description: in this recipe, or in the one that trains it; None if only a file has it."""
    teacher = recipe.teacher
    if teacher is not None and teacher.recipe is not None and teacher.checkpoint is None:
        teacher = load(teacher.recipe).teacher
    return teacher if teacher is not None and teacher.backbone is not None else None


def teacher(recipe: Recipe, classes: int) -> Segmenter:
    """The teacher, as a recipe describes it, else as its checkpoint does.

    Raises:
        CheckpointError: there is only a checkpoint, and it is missing, damaged or made for other classes.
    """
    section = teacher_section(recipe)
    if section is not None:
        return bare(section, classes)
    return as_trained(load_network(build.teacher_checkpoint(recipe)), recipe, classes)


def as_trained(loaded: Loaded, recipe: Recipe, classes: int) -> Segmenter:
    """A network as its checkpoint describes it.

    Raises:
        CheckpointError: made for other classes than the recipe's dataset has.
    """
    if loaded.model.spec.classes != classes:
        raise CheckpointError(
            f"checkpoint has {loaded.model.spec.classes} classes, "
            f"{recipe.data.dataset} is counted with {classes}",
            where=str(loaded.path),
        )
    return build_segmenter(loaded.model.spec)
