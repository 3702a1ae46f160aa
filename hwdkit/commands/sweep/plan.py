"""What a sweep consists of: cells (one setting each) and seeds.

No torch here: every cell's recipe is checked in milliseconds. Running them is in `runs.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from hwdkit.commands.sweep.grid import AS_IT_IS, GRID, Axis, folder_name, value
from hwdkit.errors import RecipeError, UsageError
from hwdkit.recipe.load import load
from hwdkit.recipe.schema import Recipe


@dataclass(frozen=True)
class Cell:
    """One setting, run once a seed.

    Attributes:
        name: its folder below the sweep's.
        line: `grid`, `baseline`, or the name of a reference.
        values: grid key -> value; empty off the grid.
        recipe: complete but for the seed, which is 0.
        teacher_sha256: of the teacher that its recipe is pinned to, or None.
    """

    name: str
    line: str
    values: dict[str, Any]
    recipe: Recipe
    teacher_sha256: str | None = None


@dataclass(frozen=True)
class Plan:
    """All cells and seeds of a sweep; `command` is what trains each run."""

    recipe: str
    command: str
    keys: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]


class Job(NamedTuple):
    """One run of a sweep."""

    cell: Cell
    seed: int

    @property
    def name(self) -> str:
        return f"{self.cell.name}/seed={self.seed}"


def jobs(plan: Plan) -> list[Job]:
    """All runs, seed by seed: a sweep that is stopped early has seen as many cells as it could."""
    return [Job(cell, seed) for seed in plan.seeds for cell in plan.cells]


def planned(
    recipe: str,
    grid: Sequence[Axis],
    *,
    overrides: Sequence[str],
    seeds: Sequence[int] | None,
    lines: Mapping[str, str],
) -> Plan:
    """Load every cell's recipe.

    Args:
        recipe: name or path.
        grid: what varies.
        overrides: --set options. Those of `losses` and `teacher` are not for `lines`, which have their own.
        seeds: of every cell; None is the recipe's own.
        lines: name -> recipe of the baseline and the references.

    Raises:
        RecipeError: a cell is not valid, with the key; or a line is on another dataset.
        UsageError: a key is in --set and in --grid, or two cells would share a folder.
    """
    keys = tuple(axis.key for axis in grid)
    keys_set = {option.partition("=")[0].strip() for option in overrides}
    if "seed" in keys_set:
        raise UsageError("--set seed: use --seeds")
    if both := sorted(keys_set & set(keys)):
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
        cells.append(Cell(line, line, {}, loaded))
    unseeded = [replace(cell, recipe=cell.recipe.model_copy(update={"seed": 0})) for cell in cells]
    command = "distill" if first.student is not None else "train-teacher"
    return Plan(first.name, command, keys, tuple(seeds or (first.seed,)), tuple(unseeded))


def _grid(recipe: str, grid: Sequence[Axis], overrides: Sequence[str]) -> list[Cell]:
    """One cell a combination, no two of them alike."""
    cells: dict[str, Cell] = {}
    names: dict[str, str] = {}
    for texts in itertools.product(*(axis.values for axis in grid)):
        pairs = {axis.key: text for axis, text in zip(grid, texts, strict=True)}
        loaded = load(recipe, overrides=[*overrides, *(f"{key}={text}" for key, text in pairs.items())])
        values = {key: value(key, text) for key, text in pairs.items()}
        cell = Cell(folder_name(values) or AS_IT_IS, GRID, values, loaded)
        if cell.name in cells:
            raise UsageError(f"two cells would share the folder {cell.name!r}")
        twin = names.setdefault(loaded.model_dump_json(), cell.name)
        if twin != cell.name:
            raise UsageError(f"{twin} and {cell.name} are one recipe: a key of --grid makes no difference")
        cells[cell.name] = cell
    return list(cells.values())
