"""Options that several commands share, and the application that commands belong to. No torch here."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hwdkit.datasets.table import DATASETS
from hwdkit.terminal.command import app as app

Recipe = Annotated[str, typer.Option("--recipe", "-r", help="A recipe's name, or a path to a YAML file.")]
MaybeRecipe = Annotated[
    str | None, typer.Option("--recipe", "-r", help="A recipe's name, or a path to a YAML file.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a key of the recipe; may be repeated."),
]
DataRoot = Annotated[
    Path, typer.Option("--data-root", envvar="HWDKIT_DATA", help="Folder that holds the prepared datasets.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors on stderr.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Run directory; must be new or empty.")]
Gpus = Annotated[str, typer.Option("--gpus", help="auto (all visible), a number, or 0 for the CPU.")]
OneGpu = Annotated[str, typer.Option("--gpus", help="auto (one if there is one), 1, or 0 for the CPU.")]
DATA = Path("data")


DatasetName = StrEnum("DatasetName", {name.replace("-", "_"): name for name in DATASETS})  # type: ignore[misc]
