"""What is in a recipe: its files as text, or the resolved recipe; and whether it is valid.

No torch: an editor or a pre-commit hook may call these on every save.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hwdkit.errors import RecipeError
from hwdkit.recipe.find import PARTS, RECIPES, find, is_path, named, recipes_of, shown, text
from hwdkit.recipe.load import dump, load, load_files
from hwdkit.recipe.published import Published, published


def show(name_or_path: str, *, resolved: bool = False, overrides: Sequence[str] = ()) -> str:
    """What a recipe needs, its numbers and its files; or with `resolved` the complete recipe.

    Raises:
        RecipeError: not found or not valid; or overrides without `resolved`.
    """
    if resolved:
        return dump(load(name_or_path, overrides=overrides))
    if overrides:
        raise RecipeError("--set changes the resolved recipe only", hint="Add --resolved.")
    if file := part(name_or_path):
        return text(file)
    paths = find(name_or_path)
    lines = [f"# {line}" for line in _header(of_recipe(name_or_path))]
    if len(paths) > 1:
        lines += ["", f"base: [{', '.join(path.stem for path in paths)}]"]
    for path in paths:
        lines += ["", *([f"--- # {shown(path)}"] if len(paths) > 1 else []), text(path).rstrip()]
    return "\n".join(lines) + "\n"


def part(name_or_path: str) -> Path | None:
    """The file of a student or a method by itself; None for a recipe."""
    file = Path(name_or_path) if is_path(name_or_path) else named(name_or_path, (*RECIPES, *PARTS))
    return file if file is not None and file.parent.name in PARTS else None


def of_part(file: Path) -> dict[str, Any]:
    """A part by itself, as JSON types."""
    return {"files": [shown(file)], "text": text(file)}


def of_recipe(name_or_path: str, *, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The resolved recipe, its files, how to run it and what is known of it, as JSON types."""
    recipe = load(name_or_path, overrides=overrides)
    command = "train-teacher" if recipe.student is None else "distill"
    needs = [f"data/{recipe.data.dataset} (hwdkit prepare-data {recipe.data.dataset})"]
    if recipe.student and recipe.teacher and recipe.teacher.recipe:
        needs.append(f"a finished run of {recipe.teacher.recipe}, or --teacher PATH")
    return {
        "recipe": recipe.model_dump(mode="json"),
        "files": [shown(path) for path in find(name_or_path)],
        "command": f"hwdkit {command} --recipe {name_or_path}",
        "needs": needs,
        "published": published(name_or_path).model_dump(mode="json"),
    }


def _header(data: dict[str, Any]) -> list[str]:
    """Command, needs, hardware, runtime and mIoU, one or more lines each."""
    record = Published.model_validate(data["published"])
    number = record.reported or "no published number for this setting"
    measured = f"measured here: {record.measured}" if record.measured else "not measured here"
    fields = {
        "Files": data["files"],
        "Command": [data["command"]],
        "Needs": data["needs"],
        "Hardware": [record.hardware],
        "Runtime": [record.runtime],
        "mIoU": [f"{number}; {measured}", record.note],
    }
    lines = [data["recipe"]["summary"]] if data["recipe"]["summary"] else []
    for label, values in fields.items():
        wrapped = [line for value in values for line in textwrap.wrap(value, 100, break_on_hyphens=False)]
        lines += [f"{label + ':' if not i else '':<10}{line}" for i, line in enumerate(wrapped)]
    return lines


def validate(names_or_paths: Iterable[str]) -> list[dict[str, str]]:
    """Load every recipe; a folder stands for the recipes in it, a student for each of its recipes.

    Returns:
        name and path of each, all valid.

    Raises:
        RecipeError: every fault of every file, one a line.
    """
    valid, faults, broken = [], dict[str, None](), 0  # a fault of a part counts once for all its recipes
    for name_or_path in names_or_paths:
        try:
            recipes = dict(recipes_of(name_or_path))
            if not recipes:
                faults[f"{name_or_path}: no recipes in this folder"] = None
        except RecipeError as error:
            faults[str(error)], recipes = None, {}
            broken += 1
        for name, files in recipes.items():
            try:
                valid.append({"name": load_files(files, name=name).name, "path": shown(files[0])})
            except RecipeError as error:
                faults[str(error)] = None
                broken += 1
    if faults:
        raise RecipeError("\n".join(faults), hint=f"{broken} not valid, {len(valid)} valid." if valid else "")
    return valid
