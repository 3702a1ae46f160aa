"""hwdkit prepare-data and hwdkit demo: how most people begin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hwdkit.cli.old_options import DATA, DataRoot, DatasetName, Json, Quiet, app
from hwdkit.errors import UsageError
from hwdkit.terminal import exits, values

OWN = "folder"
KINDS = (*(known.value for known in DatasetName), OWN)


@app.command(epilog="Example:  hwdkit prepare-data ade20k --source ~/downloads/ADEChallengeData2016.zip")
def prepare_data(
    dataset: Annotated[str, typer.Argument(help=f"{', '.join(KINDS[:-1])}; or {OWN}: your own data.")],
    source: Annotated[
        list[Path] | None,
        typer.Option(
            help="What you downloaded: an archive, or the folder it unpacks to; may be repeated.",
            show_default="below the data root",
        ),
    ] = None,
    data_root: DataRoot = DATA,
    check: Annotated[bool, typer.Option("--check", help="Only verify; write nothing.")] = False,
    allow_partial: Annotated[
        bool,
        typer.Option(
            "--allow-partial",
            help="Accept fewer images than published, or own files without a partner; later results say so.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a dataset prepared otherwise.")
    ] = False,
    cache: Annotated[
        bool, typer.Option("--cache", help="Also decode everything to disk: large, and much faster to read.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="folder: what your data is called, as recipes will say.")
    ] = None,
    images: Annotated[
        str | None, typer.Option(metavar="GLOB", help="folder: your images, as in 'photos/**/*.jpg'.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="TEMPLATE", help="folder: their labels, as in 'masks/{stem}.png'.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="folder: names, and if need be colours and ids (YAML, JSON, text).")
    ] = None,
    label_encoding: Annotated[
        str | None, typer.Option(help="folder: ids | colours.", show_default="what the first label has")
    ] = None,
    train_split: Annotated[
        str | None, typer.Option(help="folder: list of images, or their folder.", show_default="the rest")
    ] = None,
    val_split: Annotated[
        str | None, typer.Option(help="folder: list of images, or their folder.", show_default="the rest")
    ] = None,
    val_fraction: Annotated[
        float | None, typer.Option(help="folder: share kept for validation.", show_default="0.1")
    ] = None,
    train: Annotated[
        int | None, typer.Option(min=1, help="scenes: training images.", show_default="2000")
    ] = None,
    val: Annotated[
        int | None, typer.Option(min=1, help="scenes: validation images.", show_default="400")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="scenes: of the generator; folder: of the split.", show_default="0"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes.", show_default="one per core")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Verify a dataset completely and write its index, so that training cannot trip over a file."""
    if dataset not in KINDS:
        raise UsageError(
            f"{dataset!r} is not one of {', '.join(map(repr, KINDS))}",
            hint=f"your own data: hwdkit prepare-data {OWN} --name {dataset} …",
        )
    encoding: Any = label_encoding
    if encoding is not None:
        encoding = values.one_of("--label-encoding", encoding, ("ids", "colours"))
    asked = {
        "name": name,
        "images": images,
        "labels": labels,
        "classes": classes,
        "label-encoding": encoding,
        "train-split": train_split,
        "val-split": val_split,
        "val-fraction": val_fraction,
    }
    given = [f"--{option}" for option, value in asked.items() if value is not None]
    if given and dataset != OWN:
        raise UsageError(f"{', '.join(given)} only means something for {OWN}, not for {dataset}")

    from hwdkit.commands import prepare_data as command
    from hwdkit.datasets.table import DATASETS
    from hwdkit.prepare.own.folder import FolderOptions, require_name
    from hwdkit.prepare.own.splits import SplitRule
    from hwdkit.terminal import console

    console.set_up_logging(quiet=quiet)
    own, drawn = None, {"train": train, "val": val, "seed": seed}
    if dataset == OWN:
        rule = SplitRule(train=train_split, val=val_split, val_fraction=val_fraction, seed=drawn.pop("seed"))
        own = FolderOptions(images=images, labels=labels, classes=classes, encoding=encoding, splits=rule)
    result = command.run(
        dataset if own is None else require_name(name, DATASETS),
        source=source,
        root=data_root,
        own=own,
        check=check,
        allow_partial=allow_partial,
        overwrite=overwrite,
        cache=cache,
        scenes={key: value for key, value in drawn.items() if value is not None},
        workers=workers,
    )
    exits.print_result(result, as_json, lambda: command.render(result))
