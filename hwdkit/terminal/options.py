"""Options that several commands share, as the types of their fields. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import click
import typer

from hwdkit.datasets.table import DATASETS

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
DATA = Path("data")
KnownDataset = click.Choice(tuple(DATASETS))
"""For `typer.Option(click_type=...)`: a dataset that hwdkit knows."""
Checkpoint = Annotated[
    Path,
    typer.Option(
        "--checkpoint", "-c", help="A student.safetensors / teacher.safetensors, or a run directory."
    ),
]
Compare = Annotated[
    list[str] | None,
    typer.Option("--compare", metavar="NAME=CHECKPOINT", help="One more network; may be repeated."),
]
Split = Annotated[str, typer.Option("--split", help="Which split of the dataset.")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Only the first N images; the result says so.")
]
Absent = Annotated[
    Literal["present", "paper"],
    typer.Option("--absent", help="present (mean over classes that occur) | paper (absent = 0)"),
]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Loader processes.")]
Gpus = Annotated[str, typer.Option("--gpus", help="auto (all visible), a number, or 0 for the CPU.")]
OneGpu = Annotated[str, typer.Option("--gpus", help="auto (one if there is one), 1, or 0 for the CPU.")]
Ranks = Annotated[
    int | None,
    typer.Option("--ranks", min=1, help="Processes on this machine.", show_default="one per GPU"),
]
