"""hwdkit prepare-data: check a dataset and write its index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hwdkit.datasets.table import DATASETS
from hwdkit.errors import UsageError
from hwdkit.terminal.command import Result, command
from hwdkit.terminal.options import DATA, DataRoot

FOLDER, SCENES = "folder", "scenes"
OF_FOLDER = (
    *("name", "images", "labels", "classes", "label_encoding"),
    *("train_split", "val_split", "val_fraction"),
)
OF_SCENES = ("train", "val")


@command(example="hwdkit prepare-data ade20k --source ~/downloads/ADEChallengeData2016.zip")
class PrepareData:
    """Verify a dataset completely and write its index, so that training cannot trip over a file."""

    dataset: Annotated[str, typer.Argument(help=f"{', '.join(DATASETS)}; or {FOLDER}: your own data.")]
    source: Annotated[
        list[Path] | None,
        typer.Option(
            help="What you downloaded: an archive, or the folder it unpacks to; may be repeated.",
            show_default="below the data root",
        ),
    ] = None
    data_root: DataRoot = DATA
    check: Annotated[bool, typer.Option("--check", help="Only verify; write nothing.")] = False
    allow_partial: Annotated[
        bool,
        typer.Option(
            "--allow-partial",
            help="Accept fewer images than published, or own files without a partner; later results say so.",
        ),
    ] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a dataset prepared otherwise.")] = (
        False
    )
    cache: Annotated[
        bool, typer.Option("--cache", help="Also decode everything to disk: large, and much faster to read.")
    ] = False
    name: Annotated[
        str | None, typer.Option(help="folder: what your data is called, as recipes will say.")
    ] = None
    images: Annotated[
        str | None, typer.Option(metavar="GLOB", help="folder: your images, as in 'photos/**/*.jpg'.")
    ] = None
    labels: Annotated[
        str | None, typer.Option(metavar="TEMPLATE", help="folder: their labels, as in 'masks/{stem}.png'.")
    ] = None
    classes: Annotated[
        Path | None, typer.Option(help="folder: names, and if need be colours and ids (YAML, JSON, text).")
    ] = None
    label_encoding: Annotated[
        Literal["ids", "colours"] | None,
        typer.Option(help="folder: ids | colours.", show_default="what the first label has"),
    ] = None
    train_split: Annotated[
        str | None, typer.Option(help="folder: list of images, or their folder.", show_default="the rest")
    ] = None
    val_split: Annotated[
        str | None, typer.Option(help="folder: list of images, or their folder.", show_default="the rest")
    ] = None
    val_fraction: Annotated[
        float | None, typer.Option(help="folder: share kept for validation.", show_default="0.1")
    ] = None
    train: Annotated[
        int | None, typer.Option(min=1, help="scenes: training images.", show_default="2000")
    ] = None
    val: Annotated[int | None, typer.Option(min=1, help="scenes: validation images.", show_default="400")] = (
        None
    )
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="scenes: of the generator; folder: of the split.", show_default="0"),
    ] = None
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="one per core")] = None

    def __post_init__(self) -> None:
        kinds = (*DATASETS, FOLDER)
        if self.dataset not in kinds:
            from hwdkit.recipe.find import did_you_mean

            raise UsageError(
                f"{self.dataset!r} is not one of {', '.join(kinds)}.{did_you_mean(self.dataset, kinds)}",
                hint=f"your own data: hwdkit prepare-data {FOLDER} --name {self.dataset} …",
            )
        of_scenes = OF_SCENES if self.dataset == FOLDER else (*OF_SCENES, "seed")
        for dataset, options in ((FOLDER, OF_FOLDER), (SCENES, of_scenes)):
            typed = [f"--{name.replace('_', '-')}" for name in options if getattr(self, name) is not None]
            if typed and self.dataset != dataset:
                raise UsageError(f"{', '.join(typed)}: only for {dataset}, not for {self.dataset}")

    def run(self) -> Result:
        from hwdkit.commands.prepare_data import summary

        result = summary.run(self)
        return Result(result, lambda: summary.render(result))
