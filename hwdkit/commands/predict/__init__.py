"""hwdkit predict: a trained network on a user's own images and films."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwdkit.errors import UsageError
from hwdkit.terminal import paths, values
from hwdkit.terminal.command import Result, command, typed
from hwdkit.terminal.options import DATA, Checkpoint, DataRoot, OneGpu


@command(example="hwdkit predict photos 'more/**/*.png' -c runs/my-run -o predictions --overlay")
class Predict:
    """Segment your own images and films; no labels and no dataset are needed.

    Writes a PNG of class indices with the classes' colours as its palette. Images are turned upright as their
    EXIF orientation says. Those that cannot be read are listed at the end (exit 4); all others are written.

    A film becomes an MP4 with its colours over it, in overlays/; this needs PyAV, the extra `video`.

    --data-root is used only by --ids, for a dataset of your own.
    """

    images: Annotated[
        list[str],
        typer.Argument(
            help="Images, films, folders (all images below), or quoted patterns such as 'a/**/*.jpg'."
        ),
    ]
    checkpoint: Checkpoint
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Folder for masks/ and what else is asked for; must be new or empty."
        ),
    ]
    slide: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Predict windows of this size and average them.",
            show_default="the whole image",
        ),
    ] = None
    stride: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Steps of --slide.", show_default="two thirds of the window"),
    ] = None
    scales: Annotated[str, typer.Option(help="Comma-separated, e.g. 0.75,1.0,1.25.")] = "1.0"
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")] = False
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also the image under half-transparent colours, in overlays/.")
    ] = False
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Also the image beside its colours, in side-by-side/.")
    ] = False
    ids: Annotated[
        bool,
        typer.Option("--ids", help="Also PNGs with the dataset's own ids, for its benchmark, in ids/."),
    ] = False
    frame_masks: Annotated[
        bool,
        typer.Option("--frame-masks", help="Of films also masks/ (with --ids also ids/) of every frame."),
    ] = False
    data_root: DataRoot = DATA
    gpus: OneGpu = "auto"

    def __post_init__(self) -> None:
        window, step = self.window, self.step
        if self.stride and (window is None or step[0] > window[0] or step[1] > window[1]):
            raise UsageError(
                f"--stride {self.stride}: needs a --slide HxW that is no smaller, or pixels are left out"
            )
        values.scales("--scales", self.scales)
        paths.require_possible("--checkpoint", self.checkpoint)
        if self.ids:
            paths.require_folder("--data-root", self.data_root)

    @property
    def window(self) -> tuple[int, int] | None:
        """Height and width of a window; None is the whole image."""
        return None if self.slide is None else values.height_by_width("--slide", self.slide, least=32)

    @property
    def step(self) -> tuple[int, int]:
        """Vertical and horizontal step of the windows."""
        if self.stride is not None:
            return values.height_by_width("--stride", self.stride, least=1)
        height, width = self.window or (512, 512)
        return height * 2 // 3, width * 2 // 3  # as `hwdkit evaluate` by default: 341 of 512

    def run(self) -> Result:
        cpu = values.one_device(values.launch_plan(gpus=self.gpus))

        from hwdkit.commands.predict import class_maps

        result, failure = class_maps.run(self, cpu=cpu, rows="as_json" in typed())
        return Result(result, lambda: class_maps.render(result), failure)
