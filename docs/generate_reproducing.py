"""The published numbers in reproducing.md, from the recipes."""

from __future__ import annotations

from hwdkit.recipe import load
from hwdkit.recipe.find import files_of
from hwdkit.recipe.published import published

TABLES = {
    "main": {"alone": "baseline", "CWD": "cwd", "HWD": "hwd-released"},
    "rivals": {f"`…-{method}`": method for method in ("skd", "ifvd", "cirkd", "dist", "mgd")},
}
"""The columns of each table: heading and method."""


def blocks() -> dict[str, str]:
    """Both tables."""
    return {name: table(columns, recipes=name == "main") for name, columns in TABLES.items()}


def table(columns: dict[str, str], *, recipes: bool) -> str:
    """A row for every student that has a published number without a teacher.

    Args:
        recipes: also name each student's teacher, its number and its recipes.
    """
    heads = [
        "student",
        "data",
        *(["teacher"] if recipes else []),
        *columns,
        *(["recipes"] if recipes else []),
    ]
    rows = [heads, ["---"] * len(heads)]
    students = [
        student for student in files_of("students") if published(f"{student}-baseline").miou is not None
    ]
    for student in sorted(students, key=lambda student: (published(f"{student}-baseline").source, student)):
        recipe = load(f"{student}-hwd")
        network, _, data = recipe.summary.partition(",")[0].partition(" on ")
        cells = [_number(f"{student}-{method}") for method in columns.values()]
        assert recipe.teacher is not None
        if recipes:
            cells = [_number(str(recipe.teacher.recipe)), *cells, f"`{student}-…`"]
        rows.append([network, data, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows).replace(" --- ", "---")


def _number(name: str) -> str:
    miou = published(name).miou
    return "" if miou is None else f"{miou:.2f}"
