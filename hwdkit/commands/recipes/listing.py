"""The recipes that can be named, one row each. No torch here."""

from __future__ import annotations

from typing import Any

from hwdkit.errors import HwdkitError, UsageError
from hwdkit.recipe.find import available, did_you_mean, find, shown
from hwdkit.recipe.load import load
from hwdkit.recipe.published import published
from hwdkit.report.table import Column, Table


def list_recipes() -> list[dict[str, Any]]:
    """One row a recipe that can be named.

    Keys: name, path, files, dataset, network, losses, miou (published, percent), measured, summary, error.
    Sorted by dataset, then by name. A broken file in ./recipes has a row too: its first
    complaint is in `error`.
    """
    return sorted(map(_row, available()), key=lambda row: (row["dataset"], row["name"]))


def only(
    rows: list[dict[str, Any]], *, dataset: str | None = None, method: str | None = None
) -> list[dict[str, Any]]:
    """The rows of `list_recipes` for one dataset, and those whose names end in -METHOD; None = all.

    Raises:
        UsageError: no recipe of any dataset is named so; lists the methods that there are.
    """
    if method is not None and not any(row["name"].endswith(f"-{method}") for row in rows):
        methods = sorted({row["name"].split("-", 2)[2] for row in rows if row["name"].count("-") >= 2})
        raise UsageError(
            f"no recipe is named ...-{method}.{did_you_mean(method, methods)}",
            where="--method",
            hint=f"Known: {', '.join(methods)}.",
        )
    return [
        row
        for row in rows
        if dataset in (None, row["dataset"]) and (method is None or row["name"].endswith(f"-{method}"))
    ]


def render(rows: list[dict[str, Any]]) -> Table:
    """The rows of `list_recipes` for the terminal; a measured mIoU, where none is published, has a star."""
    columns = [
        Column("recipe", left=True, whole=True),
        Column("losses", left=True),
        Column("mIoU"),
        Column("summary", left=True),
    ]
    cells = []
    for row in rows:
        miou = "" if row["miou"] is None else f"{row['miou']:.2f}"
        if not miou and row["measured"]:
            miou = f"{row['measured']['miou']:.2f}*"
        about = f"not valid: {row['error']}" if row["error"] else row["summary"]
        cells.append((row["name"], row["losses"], miou, about))
    return Table(columns, cells)


def _row(name: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name, "path": "", "files": [], "dataset": "", "network": "", "losses": "",
        "miou": None, "measured": None, "summary": "", "error": None,
    }  # fmt: skip
    try:
        files = [shown(path) for path in find(name)]
        row |= {"files": files, "path": files[0]}
        recipe, record = load(name), published(name)
    except HwdkitError as error:
        return row | {"error": str(error).splitlines()[0]}
    backbone = (recipe.network.backbone or "").partition(".")[0]  # without the tag of its weights
    terms = {name: loss.weight for name, loss in recipe.losses.items() if loss.weight}
    return row | {
        "dataset": recipe.data.dataset,
        "network": f"{recipe.network.head}-{backbone}",
        "losses": " + ".join(
            name if weight == 1 else f"{weight:g} {name}".replace("e-0", "e-")
            for name, weight in terms.items()
        ),
        "miou": record.miou,
        "measured": record.measured.model_dump() if record.measured else None,
        "summary": recipe.summary,
    }
