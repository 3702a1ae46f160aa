"""What published.yaml says of a recipe: the papers' number, our measurement, hardware and runtime.

The file lies beside its recipes: those that ship have one, a folder of your own may have another. Torch-free.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from pydantic import Field, ValidationError

from hwdkit.errors import RecipeError
from hwdkit.recipe.find import PUBLISHED, files_of, find, shown, text, tree
from hwdkit.recipe.section import Section
from hwdkit.recipe.written import parse


class Measured(Section):
    """mIoU in percent at the last step: the mean over seeds, and their sample standard deviation."""

    miou: float
    std: float | None = None
    seeds: int = Field(ge=1)

    def __str__(self) -> str:
        spread = "" if self.std is None else f" ± {self.std:.2f}"
        return f"{self.miou:.2f}{spread}, {self.seeds} seed{'s' if self.seeds > 1 else ''}"


class Published(Section):
    """One entry: of a recipe, or of all recipes of a student or a method."""

    miou: float | None = Field(None, description="percent, as the source prints it")
    source: str = ""
    measured: Measured | None = None
    hardware: str = ""
    runtime: str = ""
    note: str = ""

    @property
    def reported(self) -> str:
        """The published mIoU and its source; empty where there is none."""
        return "" if self.miou is None else f"{self.miou:.2f} ({self.source})"


def published(name_or_path: str | os.PathLike[str]) -> Published:
    """The entry of a recipe; empty if there is none, or no such recipe.

    Raises:
        RecipeError: a published.yaml cannot be read.
    """
    name = os.fspath(name_or_path)
    try:
        paths = find(name)
    except RecipeError:
        return Published.model_validate({})
    if len(paths) > 1:
        student, method = (path.stem for path in paths)
    else:
        name, method = paths[0].stem, ""
        student = max((s for s in files_of("students") if name.startswith(f"{s}-")), key=len, default="")
    entries: dict[str, Published] = {}
    for path in paths:
        entries = _entries(tree(path) / PUBLISHED) | entries
    applying = [entries[key] for key in (student, method, name) if key in entries]
    values = {
        key: value for entry in applying for key, value in entry.model_dump(exclude_defaults=True).items()
    }
    notes = " ".join(entry.note for entry in reversed(applying) if entry.note)
    return Published.model_validate({**values, "note": notes})


def _entries(path: Path) -> dict[str, Published]:
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else {}


@functools.lru_cache(maxsize=16)
def _read(path: Path, changed: int) -> dict[str, Published]:
    """The entries of one file; `changed` is when it was written, for the cache."""
    root = parse(text(path), file=shown(path))
    if root is None:
        return {}
    if not isinstance(root.value, dict):
        raise RecipeError("must be a mapping of the names of recipes to their numbers", where=shown(path))
    entries = {}
    for name, entry in root.value.items():
        try:
            entries[name] = Published.model_validate(entry.plain())
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            key = ".".join(map(str, (name, *fault["loc"])))
            raise RecipeError(
                f"{key}: {fault['msg'].lower()}", where=str(root.place_of((name, *fault["loc"])))
            ) from None
    return entries
