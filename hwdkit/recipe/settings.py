"""A recipe without data and networks: what a run made in Python is told, checked and kept like a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from hwdkit.errors import CheckpointError, RecipeError
from hwdkit.recipe.complaints import explain
from hwdkit.recipe.load import leaves, to_yaml, written_at
from hwdkit.recipe.schema import RESUMABLE, Optimizer, Train
from hwdkit.recipe.section import Section
from hwdkit.recipe.written import Place


class Settings(Section):
    """The sections of a recipe that say how to train."""

    seed: int = Field(0, ge=0)
    optimizer: Optimizer
    train: Train


def settings(*, seed: int, optimizer: Mapping[str, Any], train: Mapping[str, Any]) -> Settings:
    """Check what a call says as if a recipe said it.

    Raises:
        RecipeError: an unknown key, or a value out of range; all are listed.
    """
    values = {"seed": seed, "optimizer": dict(optimizer), "train": dict(train)}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise explain(error, written_at(values, Place("hwdkit.fit", 0))) from None


def dump(chosen: Settings, losses: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of recipe.yaml for a run made in Python.

    Args:
        chosen: how it trains.
        losses: name -> class, factor and options of each loss.
    """
    terms = {name: dict(options) for name, options in losses.items()}
    return "# Made by hwdkit.fit; the same call with resume=True continues it.\n" + to_yaml(
        {**chosen.model_dump(), "losses": terms}
    )


def require_same(kept: Path, text: str) -> None:
    """Refuse to continue a run with other settings, but for those that move no weight.

    Args:
        kept: recipe.yaml of the run.
        text: what `dump` says of the continuing call.

    Raises:
        CheckpointError: there is no run.
        RecipeError: naming the keys that differ.
    """
    if not kept.is_file():
        raise CheckpointError("no run to resume: recipe.yaml is missing", where=str(kept.parent))
    before, after = leaves(yaml.safe_load(kept.read_text())), leaves(yaml.safe_load(text))
    keys = sorted(before.keys() | after.keys())
    changed = [key for key in keys if key not in RESUMABLE and before.get(key) != after.get(key)]
    if changed:
        raise RecipeError(
            f"a resumed run cannot change {', '.join(changed)}",
            where=str(kept.parent),
            hint="call hwdkit.fit with the same arguments as before, or with another out=",
        )
