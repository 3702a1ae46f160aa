"""hwdkit evaluate: how good a network is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hwdkit.errors import UsageError
from hwdkit.terminal import launch, paths, values
from hwdkit.terminal.command import Result, command
from hwdkit.terminal.options import DATA, Absent, Checkpoint, DataRoot, Gpus, Limit, Ranks, Split, Workers


@command(example="hwdkit evaluate -c runs/my-run --split val --fail-under 0.70")
class Evaluate:
    """Evaluate a checkpoint: mIoU, mAcc, pixel accuracy and per-class IoU."""

    checkpoint: Checkpoint
    split: Split = "val"
    dataset: Annotated[
        str | None,
        typer.Option(help="Another prepared dataset with the same classes.", show_default="the checkpoint's"),
    ] = None
    data_root: DataRoot = DATA
    mode: Annotated[Literal["whole", "slide"], typer.Option(help="Native size, or windows of it.")] = "whole"
    window: Annotated[tuple[int, int], typer.Option(help="slide: height and width of a window.")] = (512, 512)
    stride: Annotated[tuple[int, int], typer.Option(help="slide: vertical and horizontal step.")] = (341, 341)
    scales: Annotated[str, typer.Option(help="Comma-separated, e.g. 0.75,1.0,1.25.")] = "1.0"
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")] = False
    absent: Absent = "present"
    limit: Limit = None
    save_masks: Annotated[Path | None, typer.Option(help="Write class maps as palette PNGs here.")] = None
    save_overlays: Annotated[Path | None, typer.Option(help="Write colour overlays as PNGs here.")] = None
    save_predictions: Annotated[
        Path | None,
        typer.Option(help="Write PNGs with the dataset's own ids here, for its benchmark; must be empty."),
    ] = None
    fail_under: Annotated[
        float | None, typer.Option(min=0, max=1, help="Exit 9 when mIoU (0..1) is below this.")
    ] = None
    workers: Workers = 2
    gpus: Gpus = "auto"
    ranks: Ranks = None

    def __post_init__(self) -> None:
        values.scales("--scales", self.scales)
        for option, pair in (("--window", self.window), ("--stride", self.stride)):
            if min(pair) < 1:
                raise UsageError(f"{option}: {pair[0]} {pair[1]} is not a height and a width in pixels")
        for option, folder in (("--save-masks", self.save_masks), ("--save-overlays", self.save_overlays)):
            if folder is not None:
                paths.require_writable(option, folder)
        if self.save_predictions is not None:
            paths.require_empty("--save-predictions", self.save_predictions)
        paths.require_folder("--data-root", self.data_root)

    def run(self) -> Result | None:
        plan = values.launch_plan(gpus=self.gpus, ranks=self.ranks)
        if not launch.is_worker() and plan.processes() > 1:
            launch.launch_again(plan)
            return None

        from hwdkit.commands.evaluate import scores

        result = scores.run(self, cpu=plan.cpu)
        return Result(result, lambda: scores.render(result), scores.gate(result, self.fail_under))
