"""hwdkit predict: a trained network on a user's own images and films."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwdkit.cli.old_options import DATA, Checkpoint, DataRoot, Json, OneGpu, Quiet, app
from hwdkit.errors import UsageError
from hwdkit.terminal import exits, paths, sizes, values


@app.command(epilog="Example:  hwdkit predict photos 'more/**/*.png' -c runs/my-run -o predictions --overlay")
def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            help="Images, films, folders (all images below), or quoted patterns such as 'a/**/*.jpg'."
        ),
    ],
    checkpoint: Checkpoint,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Folder for masks/ and what else is asked for; must be new or empty."
        ),
    ],
    slide: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Predict windows of this size and average them.",
            show_default="the whole image",
        ),
    ] = None,
    stride: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Steps of --slide.", show_default="two thirds of the window"),
    ] = None,
    scales: Annotated[str, typer.Option(help="Comma-separated, e.g. 0.75,1.0,1.25.")] = "1.0",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")] = False,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also the image under half-transparent colours, in overlays/.")
    ] = False,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Also the image beside its colours, in side-by-side/.")
    ] = False,
    ids: Annotated[
        bool,
        typer.Option("--ids", help="Also PNGs with the dataset's own ids, for its benchmark, in ids/."),
    ] = False,
    frame_masks: Annotated[
        bool,
        typer.Option("--frame-masks", help="Of films also masks/ (with --ids also ids/) of every frame."),
    ] = False,
    data_root: DataRoot = DATA,
    gpus: OneGpu = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Segment your own images and films; no labels and no dataset are needed.

    Writes a PNG of class indices with the classes' colours as its palette. Images are turned upright as their
    EXIF orientation says. Those that cannot be read are listed at the end (exit 4), all others are written.

    A film becomes an MP4 of it under its colours, in overlays/; it needs PyAV, the extra `video`.

    --data-root is looked into for the --ids of a dataset of your own only.
    """
    window = None if slide is None else sizes.height_by_width("--slide", slide, least=32)
    step = None if stride is None else sizes.height_by_width("--stride", stride, least=1)
    if step and (window is None or step[0] > window[0] or step[1] > window[1]):
        raise UsageError(f"--stride {stride}: needs a --slide HxW that is no smaller, or pixels are left out")
    factors = values.scales("--scales", scales)
    paths.require_possible("--checkpoint", checkpoint)
    if ids:
        paths.require_folder("--data-root", data_root)
    device = values.launch_plan(gpus=gpus)

    from hwdkit.commands.predict import command, prediction
    from hwdkit.terminal import console

    console.set_up_logging(quiet=quiet)
    on_cpu = values.one_device(device)
    result, failure = command.run(
        images,
        checkpoint,
        prediction.Options(
            out=out,
            window=window,
            stride=step,
            scales=factors,
            flip=flip,
            overlays=overlay,
            side_by_side=side_by_side,
            ids=ids,
            frame_masks=frame_masks,
            data_root=data_root,
            per_image=as_json,
            cpu=on_cpu,
        ),
    )
    exits.print_result(result, as_json, lambda: command.render(result), error=failure)
    if failure:
        raise failure
