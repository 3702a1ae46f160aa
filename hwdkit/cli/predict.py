"""hwdkit predict: a trained network on a user's own images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from hwdkit.cli.options import Checkpoint, Json, OneGpu, Quiet, app
from hwdkit.commands import exits, values
from hwdkit.errors import UsageError


@app.command(epilog="Example:  hwdkit predict photos 'more/**/*.png' -c runs/my-run -o predictions --overlay")
def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders (with all below them), or quoted patterns such as 'a/**/*.jpg'."
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
            help="Predict windows of this size, in steps of two thirds.",
            show_default="the whole image",
        ),
    ] = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also the image under half-transparent colours, in overlays/.")
    ] = False,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Also the image beside its colours, in side-by-side/.")
    ] = False,
    gpus: OneGpu = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Segment your own images; no labels and no dataset are needed.

    Writes a PNG of class indices with the classes' colours as its palette. Images are turned upright as their
    EXIF orientation says. Those that cannot be read are listed at the end (exit 4), all others are written.
    """
    window = _window(slide)
    device = values.launch_plan(gpus=gpus)

    from hwdkit.commands import console
    from hwdkit.commands import predict as command

    console.set_up_logging(quiet=quiet)
    on_cpu = values.one_device(device)
    result, failure = command.run(
        images,
        checkpoint,
        command.Options(
            out=out,
            window=window,
            overlays=overlay,
            side_by_side=side_by_side,
            per_image=as_json,
            cpu=on_cpu,
        ),
    )
    exits.print_result(result, as_json, lambda: command.render(result), error=failure)
    if failure:
        raise failure


def _window(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text.lower())
    if found is None or min(int(found[1]), int(found[2])) < 32:
        raise UsageError(f"--slide: {text!r} is not HEIGHTxWIDTH, 32 pixels or more a side, e.g. 512x512")
    return int(found[1]), int(found[2])
