"""hwdkit evaluate: how good a network is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwdkit.cli.options import (
    DATA,
    Checkpoint,
    DataRoot,
    Gpus,
    Json,
    Quiet,
    Ranks,
    app,
)
from hwdkit.errors import UsageError
from hwdkit.terminal import exits, paths, values


@app.command(epilog="Example:  hwdkit evaluate -c runs/my-run --split val --fail-under 0.70")
def evaluate(
    checkpoint: Checkpoint,
    split: Annotated[str, typer.Option(help="Which split of the dataset.")] = "val",
    dataset: Annotated[
        str | None,
        typer.Option(help="Another prepared dataset with the same classes.", show_default="the checkpoint's"),
    ] = None,
    data_root: DataRoot = DATA,
    mode: Annotated[str, typer.Option(help="whole | slide")] = "whole",
    window: Annotated[tuple[int, int], typer.Option(help="slide: height and width of a window.")] = (
        512,
        512,
    ),
    stride: Annotated[tuple[int, int], typer.Option(help="slide: vertical and horizontal step.")] = (
        341,
        341,
    ),
    scales: Annotated[str, typer.Option(help="Comma-separated, e.g. 0.75,1.0,1.25.")] = "1.0",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")] = False,
    absent: Annotated[
        str, typer.Option(help="present (mean over classes that occur) | paper (absent = 0)")
    ] = "present",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N images; the result says so.")
    ] = None,
    save_masks: Annotated[Path | None, typer.Option(help="Write class maps as palette PNGs here.")] = None,
    save_overlays: Annotated[Path | None, typer.Option(help="Write colour overlays as PNGs here.")] = None,
    save_predictions: Annotated[
        Path | None,
        typer.Option(help="Write PNGs with the dataset's own ids here, for its benchmark; must be empty."),
    ] = None,
    fail_under: Annotated[
        float | None, typer.Option(min=0, max=1, help="Exit 9 when mIoU (0..1) is below this.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Loader processes.")] = 2,
    gpus: Gpus = "auto",
    ranks: Ranks = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate a checkpoint: mIoU, mAcc, pixel accuracy and per-class IoU."""
    plan = values.launch_plan(gpus=gpus, ranks=ranks)
    how = values.one_of("--mode", mode, ("whole", "slide"))
    rule = values.one_of("--absent", absent, ("present", "paper"))
    factors = values.scales("--scales", scales)
    for option, pair in (("--window", window), ("--stride", stride)):
        if min(pair) < 1:
            raise UsageError(f"{option}: {pair[0]} {pair[1]} is not a height and a width in pixels")
    for option, folder in (("--save-masks", save_masks), ("--save-overlays", save_overlays)):
        if folder is not None:
            paths.require_writable(option, folder)
    if save_predictions is not None:
        paths.require_empty("--save-predictions", save_predictions)

    from hwdkit.commands import evaluate as command
    from hwdkit.terminal import console
    from hwdkit.terminal.launch import is_worker, launch_again, speaks

    console.set_up_logging(quiet=quiet or not speaks())
    paths.require_folder("--data-root", data_root)
    if not is_worker() and plan.processes() > 1:
        return launch_again(plan)
    result = command.run(
        checkpoint,
        command.Options(
            split=split,
            dataset=dataset,
            data_root=data_root,
            mode=how,
            window=window,
            stride=stride,
            scales=factors,
            flip=flip,
            absent=rule,
            limit=limit,
            save_masks=save_masks,
            save_overlays=save_overlays,
            save_predictions=save_predictions,
            workers=workers,
            cpu=plan.cpu,
        ),
    )
    gate = command.check_gate(result, fail_under)
    if speaks():
        exits.print_result(result, as_json, lambda: command.render(result), error=gate)
    if gate:
        raise gate
