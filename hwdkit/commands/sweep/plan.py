"""What a sweep consists of: cells (one setting each) and seeds. sweep.json holds it.

No torch here: every cell's recipe is checked in milliseconds. Running them is in `runs.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from hwdkit.commands.sweep.grid import AS_IT_IS, folder_name
from hwdkit.errors import RecipeError, UsageError
from hwdkit.recipe.load import in_line, load
from hwdkit.recipe.schema import Recipe
from hwdkit.recipe.section import Section
from hwdkit.report.sweep import GRID


class Cell(Section):
    """One setting, run once a seed."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=,+-]*$", description="its folder in the sweep's")
    line: str = Field(description="`grid`, `baseline`, or the name of a reference")
    values: dict[str, Any] = Field(description="grid key -> value; empty outside the grid")
    teacher_sha256: str | None = Field(
        default=None, description="of the file that its recipe names as the teacher"
    )
    recipe: Recipe = Field(description="complete but for the seed, which is 0")

    def with_recipe(self, recipe: Recipe, **changes: str) -> Self:
        return self.model_copy(update={"recipe": recipe, **changes})


class Job(NamedTuple):
    """One run of a sweep."""

    cell: Cell
    seed: int

    @property
    def name(self) -> str:
        return f"{self.cell.name}/seed={self.seed}"


class Plan(Section):
    """All cells and seeds of a sweep; `command` is what trains each run."""

    schema_version: Literal[1] = 1
    recipe: str
    command: Literal["distill", "train-teacher"]
    keys: tuple[str, ...]
    seeds: tuple[int, ...] = Field(min_length=1)
    cells: tuple[Cell, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _values_belong_to_keys(self) -> Self:
        for cell in self.cells:
            if set(cell.values) != (set(self.keys) if cell.line == GRID else set()):
                raise ValueError(f"the values of {cell.name} are not those of the keys")
        return self

    @property
    def jobs(self) -> list[Job]:
        """All runs, seed by seed: a sweep that is stopped early has run as many cells as it could."""
        return [Job(cell, seed) for seed in self.seeds for cell in self.cells]


def planned(
    recipe: str,
    grid: Mapping[str, Sequence[Any]],
    *,
    overrides: Sequence[str],
    seeds: Sequence[int] | None,
    lines: Mapping[str, str],
) -> Plan:
    """Load every cell's recipe.

    Args:
        recipe: name or path.
        grid: key -> the values that vary.
        overrides: --set options. Those of `losses` and `teacher` are not for `lines`, which have their own.
        seeds: of every cell; None is the recipe's own.
        lines: name -> recipe of the baseline and the references.

    Raises:
        RecipeError: a cell is not valid, with the key; or a line is on another dataset.
        UsageError: a key is in --set and in --grid, or two cells would share a folder.
    """
    keys_set = {option.partition("=")[0].strip() for option in overrides}
    if "seed" in keys_set:
        raise UsageError("--set seed: use --seeds")
    if both := sorted(keys_set & grid.keys()):
        raise UsageError(f"{both[0]} is in --set and in --grid")
    cells = _grid(recipe, grid, overrides)
    general = [option for option in overrides if not option.strip().startswith(("losses", "teacher"))]
    first = cells[0].recipe
    for line, name in lines.items():
        loaded = load(name, overrides=general)
        if loaded.data.dataset != first.data.dataset:
            raise RecipeError(
                f"{line} {name} is on {loaded.data.dataset}, the sweep on {first.data.dataset}: "
                "their numbers cannot be compared"
            )
        if loaded.student is None and first.student is not None:
            raise RecipeError(f"{line} {name} trains no student")
        cells.append(Cell(name=line, line=line, values={}, recipe=loaded))
    return Plan(
        recipe=first.name,
        command="distill" if first.student is not None else "train-teacher",
        keys=tuple(grid),
        seeds=tuple(seeds or (first.seed,)),
        cells=tuple(cell.with_recipe(cell.recipe.model_copy(update={"seed": 0})) for cell in cells),
    )


def _grid(recipe: str, grid: Mapping[str, Sequence[Any]], overrides: Sequence[str]) -> list[Cell]:
    """One cell a combination, no two of them alike."""
    cells: dict[str, Cell] = {}
    names: dict[str, str] = {}
    for combination in itertools.product(*grid.values()):
        values = dict(zip(grid, combination, strict=True))
        settings = [f"{key}={in_line(value)}" for key, value in values.items()]
        loaded = load(recipe, overrides=[*overrides, *settings])
        cell = Cell(name=folder_name(values) or AS_IT_IS, line=GRID, values=values, recipe=loaded)
        if cell.name in cells:
            raise UsageError(f"two cells would share the folder {cell.name!r}")
        twin = names.setdefault(loaded.model_dump_json(), cell.name)
        if twin != cell.name:
            raise UsageError(f"{twin} and {cell.name} are one recipe: a key of --grid makes no difference")
        cells[cell.name] = cell
    return list(cells.values())
