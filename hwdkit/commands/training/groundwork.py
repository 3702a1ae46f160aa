"""What must hold before a run begins, and what it writes down about itself."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from hwdkit import __version__
from hwdkit.checkpoints.files import file_digest
from hwdkit.data.index import FILE_NAME, DatasetIndex, load_index
from hwdkit.datasets.scenes import SCENES
from hwdkit.datasets.table import DATASETS
from hwdkit.distributed import Ranks, on_main_rank
from hwdkit.engine.networks import Loaded
from hwdkit.errors import HwdkitError
from hwdkit.prepare import prepare
from hwdkit.recipe.load import digest
from hwdkit.recipe.schema import Recipe
from hwdkit.terminal.progress import progress_bars

Role = Literal["student", "teacher"]


def prepared_index(dataset: str, data_root: Path) -> DatasetIndex:
    """The dataset's index; one that lies below the data root unprepared is checked and indexed first."""

    def index_it() -> None:
        missing = not (data_root / dataset / FILE_NAME).is_file()
        if missing and dataset in DATASETS and dataset != SCENES.name:
            with progress_bars() as progress:
                prepare.prepare(dataset, root=data_root, progress=progress)  # or says where to get it

    on_main_rank(index_it)
    return load_index(data_root / dataset)


def resolved(recipe: Recipe, role: Role, teacher: Loaded | None) -> Recipe:
    """The recipe as it will be kept: running it again repeats this run."""
    if teacher is not None:
        assert recipe.teacher is not None
        # The very file; a recipe names one source, so a backbone that it could also train goes.
        where = {"checkpoint": str(teacher.path.resolve()), "backbone": None}
        return recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update=where)})
    if role == "teacher":
        # One recipe may describe teacher and student; nobody teaches the teacher.
        alone = {name: loss for name, loss in recipe.losses.items() if loss.loss == "ce"}
        return recipe.model_copy(update={"losses": alone, "student": None})
    return recipe


def run_facts(
    recipe: Recipe, role: Role, index: DatasetIndex, ranks: Ranks, teacher: Loaded | None
) -> dict[str, Any]:
    """What run.json says of a run from its beginning on."""
    return {
        "status": "running",
        "command": "distill" if role == "student" else "train-teacher",
        "argv": sys.argv[1:],
        "started": now(),
        "ended": None,
        "error": None,
        "recipe": recipe.name,
        "recipe_sha256": digest(recipe),
        "dataset": index.name,
        "dataset_fingerprint": index.fingerprint,
        "dataset_partial": index.partial,
        "teacher": str(teacher.path) if teacher else None,
        "teacher_sha256": file_digest(teacher.path) if teacher else None,
        "seed": recipe.seed,
        "world_size": ranks.world,
        "device": str(ranks.device),
        "versions": {
            "hwdkit": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def require_same(info: dict[str, Any], key: str, value: str, error: type[HwdkitError]) -> None:
    """Raise `error` if run.json has another value for a fingerprint: the continuation would not be exact."""
    if info.get(key) != value:
        raise error(
            f"{key} has changed since the run began",
            hint="an exact continuation is impossible; start a new run, or --init-from its checkpoint",
        )


def set_determinism(mode: str) -> None:
    """Apply a recipe's `train.deterministic` to this process."""
    torch.use_deterministic_algorithms(mode != "off", warn_only=mode == "warn")
    torch.backends.cudnn.benchmark = mode == "off"


def now() -> str:
    """The time as run.json writes it: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
