"""The recipes that can be named, one row each. No torch here."""

from __future__ import annotations

from typing import Any

from hwdkit.errors import HwdkitError, UsageError
from hwdkit.recipe.find import available, did_you_mean, find, shown
from hwdkit.recipe.load import load
from hwdkit.recipe.published import published
from hwdkit.recipe.schema import Network
from hwdkit.report.table import Column, Table


def list_recipes() -> list[dict[str, Any]]:
    """One row a recipe that can be named.

    Keys: name, path, files, dataset, network, losses, miou (published, percent), measured, summary, error.
    Sorted by dataset, then by name. A broken file in ./recipes fills `error` with its first complaint rather
    than hiding all the others.
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
        known = sorted({row["name"].split("-", 2)[2] for row in rows if row["name"].count("-") >= 2})
        raise UsageError(
            f"no recipe is named ...-{method}.{did_you_mean(method, known)}",
            where="--method",
            hint=f"Known: {', '.join(known)}.",
        )
    return [
        row
        for row in rows
        if dataset in (None, row["dataset"]) and (method is None or row["name"].endswith(f"-{method}"))
    ]


def render(rows: list[dict[str, Any]]) -> Table:
    """The rows of `list_recipes` as a table for the terminal; dataset and network stand in the summary."""
    columns = [
        Column("recipe", left=True, whole=True),
        Column("losses", left=True),
        Column("mIoU"),
        Column("summary", left=True),
    ]
    cells = []
    for row in rows:
        about = f"not valid: {row['error']}" if row.get("error") else row["summary"]
        cells.append((row["name"], row["losses"], _number(row["miou"], row["measured"]), about))
    return Table(columns, cells)


def _row(name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "path": "", "files": []}
    blank = {"dataset": "", "network": "", "losses": "", "miou": None, "measured": None, "summary": ""}
    try:
        row["files"] = [shown(path) for path in find(name)]
        row["path"] = row["files"][0]
        recipe, known = load(name), published(name)
    except HwdkitError as error:
        return {**row, **blank, "error": str(error).splitlines()[0]}
    network = recipe.student or recipe.teacher
    assert network is not None  # the schema wants something to train
    return {
        **row,
        "dataset": recipe.data.dataset,
        "network": _network(network),
        "losses": " + ".join(_term(name, loss.weight) for name, loss in recipe.losses.items() if loss.weight),
        "miou": known.miou,
        "measured": known.measured.model_dump() if known.measured else None,
        "summary": recipe.summary,
        "error": None,
    }


def _number(miou: float | None, measured: dict[str, Any] | None) -> str:
    """The published mIoU; where there is none, the measured one with a star."""
    if miou is None:
        return f"{measured['miou']:.2f}*" if measured else ""
    return f"{miou:.2f}"


def _network(network: Network) -> str:
    backbone = (network.backbone or "").partition(".")[0]  # without the tag of its weights
    return f"{network.head}-{backbone}"


def _term(name: str, weight: float) -> str:
    return name if weight == 1 else f"{weight:g} {name}".replace("e-0", "e-")
