"""What a model card may cite: the run that trained a checkpoint, and an evaluation of this very file.

A run counts if the sha256 of its recipe is the one that the checkpoint names, an evaluation if it names that
of the checkpoint. All files may come from outside: what does not fit is refused or left out.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hwdkit.checkpoints import foreign_json
from hwdkit.commands.checkpoint.contents import mapping
from hwdkit.engine.rundir import RunDir
from hwdkit.errors import DataError, HwdkitError
from hwdkit.recipe.load import loads_resolved
from hwdkit.recipe.schema import Recipe

log = logging.getLogger("hwdkit")

MEANS = ("miou", "macc", "pixel_accuracy")


class Scores(NamedTuple):
    """One measurement.

    Attributes:
        measured: on what and how, in words.
        means: name -> value in 0..1.
        per_class: (class, IoU in 0..1 or None where it never occurs); empty where it was not kept.
        split: the dataset's, where known.
    """

    measured: str
    means: dict[str, float]
    per_class: tuple[tuple[str, float | None], ...] = ()
    split: str = ""


def run_of(named: Path | None, beside: Path, recipe_sha256: object) -> tuple[Recipe | None, dict[str, Any]]:
    """The recipe and run.json of the run that trained a checkpoint: the one named, or what lies beside it.

    Raises:
        DataError: a run is named, and it is not that.
    """
    run = RunDir(named or beside)
    try:
        text = run.recipe.read_bytes()
        if hashlib.sha256(text).hexdigest() != recipe_sha256:
            raise DataError("not the recipe that the checkpoint names")
        recipe = loads_resolved(text.decode(), source=str(run.recipe))
        info = foreign_json.loads(run.info.read_bytes()) if run.info.is_file() else {}
    except (HwdkitError, OSError, ValueError) as error:
        if named is None and isinstance(error, FileNotFoundError):
            return None, {}
        first = getattr(error, "strerror", None) or str(error).splitlines()[0]
        if named is not None:
            raise DataError(f"not the run of this checkpoint: {first}", where=str(run.recipe)) from error
        log.warning("the card will not say how it was trained: %s: %s", run.recipe, first)
        return None, {}
    info = mapping(info)
    return recipe, info if info.get("recipe_sha256") == recipe_sha256 else {}


def while_training(metadata: Mapping[str, Any], recipe: Recipe | None) -> Scores | None:
    """The metrics in a checkpoint's description; None without any."""
    metrics = mapping(metadata.get("metrics"))
    means = _means(metrics)
    if not means:
        return None
    split = recipe.data.val_split if recipe else ""
    where = f"{metadata['dataset']} {split}" if split else str(metadata["dataset"])
    step = f", step {metrics['step']}" if isinstance(metrics.get("step"), int) else ""
    return Scores(f"{where}, while training{step}", means, split=split)


def evaluated(path: Path, digest: str) -> Scores:
    """What `hwdkit evaluate --json` printed of this very file.

    Raises:
        DataError: it is not that, or of another file.
    """
    try:
        result = foreign_json.loads(path.read_bytes())
        of, protocol = result["checkpoint_sha256"], result["protocol"]
        how = f"{protocol['mode']}, scales {', '.join(f'{float(s):g}' for s in protocol['scales'])}"
        how += ", flip" if protocol["flip"] else ""
        count = int(result["images"])
        of_all = "" if count == result["images_in_split"] else f" of {int(result['images_in_split'])}"
        measured = f"{result['dataset']} {result['split']}, {count}{of_all} images; {how}"
        per_class = tuple((str(row["name"]), _score(row["iou"])) for row in result["per_class"])
        means, split = _means(result), str(result["split"])
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path)) from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise DataError(
            "is not the result of an evaluation",
            where=str(path),
            hint="make one: hwdkit evaluate -c CHECKPOINT --json > evaluation.json",
        ) from error
    if of != digest:
        raise DataError(
            "is an evaluation of another checkpoint", where=str(path), hint=f"this one is {digest}"
        )
    return Scores(measured, means, per_class, split)


def _means(values: Mapping[str, Any]) -> dict[str, float]:
    scores = {key: _score(values.get(key)) for key in MEANS}
    return {key: score for key, score in scores.items() if score is not None}


def _score(value: Any) -> float | None:
    """A number in 0..1, or None."""
    return float(value) if is_number(value) and 0 <= value <= 1 else None


def is_number(value: Any) -> bool:
    """Whether a value from a file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
