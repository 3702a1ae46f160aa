"""hwdkit evaluate, profile and per-class-report: what a network can do, what it costs, where it fails."""

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
    MaybeRecipe,
    OneGpu,
    Quiet,
    Ranks,
    Set,
    app,
)
from hwdkit.commands import exits, values
from hwdkit.errors import UsageError


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

    from hwdkit.commands import console
    from hwdkit.commands import evaluate as command
    from hwdkit.commands.launch import is_worker, launch_again, speaks

    console.set_up_logging(quiet=quiet or not speaks())
    command.require_empty(save_predictions)
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


@app.command(epilog="Example:  hwdkit profile -r ade20k-r18-hwd --input 512x512 --latency")
def profile(
    recipe: MaybeRecipe = None,
    set_: Set = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", "-c", help="Profile a trained network instead of a recipe's."),
    ] = None,
    role: Annotated[
        str, typer.Option(help="student | teacher | both: which network of the recipe.")
    ] = "both",
    classes: Annotated[
        int | None, typer.Option(min=1, help="Number of classes.", show_default="the dataset's")
    ] = None,
    size: Annotated[
        list[str] | None, typer.Option("--input", help="HxW; may be repeated.", show_default="512x512")
    ] = None,
    counter: Annotated[
        str, typer.Option(help="all | torch (true MACs) | thop | paper (ignores dilation)")
    ] = "all",
    latency: Annotated[bool, typer.Option("--latency", help="Measure the time of a forward pass.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Batch size for the latency.")] = 1,
    warmup: Annotated[int, typer.Option(min=0, help="Passes before measuring.")] = 5,
    iterations: Annotated[int, typer.Option("--iters", min=1, help="Passes measured.")] = 20,
    data_root: DataRoot = DATA,
    gpus: OneGpu = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Count parameters and multiply-adds, three ways; measure latency and memory."""
    if (recipe is None) == (checkpoint is None):
        raise UsageError("give either --recipe (its networks) or --checkpoint (a trained one)")
    for option, given in (("--set", set_), ("--classes", classes), ("--role", role != "both")):
        if checkpoint is not None and given:
            raise UsageError(f"{option} means nothing with --checkpoint, which holds one finished network")
    which = values.one_of("--role", role, ("student", "teacher", "both"))
    count = values.one_of("--counter", counter, ("all", "torch", "thop", "paper"))
    sizes = tuple(values.size(text) for text in size or ["512x512"])
    device = values.launch_plan(gpus=gpus)

    from hwdkit.recipe.load import load

    loaded = load(recipe, overrides=set_ or []) if recipe else None

    from hwdkit.commands import console
    from hwdkit.commands import profile as command

    console.set_up_logging(quiet=quiet)
    on_cpu = values.one_device(device)
    result = command.run(
        loaded,
        checkpoint,
        command.Options(
            role=which,
            classes=classes,
            sizes=sizes,
            counter=count,
            latency=latency,
            batch=batch,
            warmup=warmup,
            iterations=iterations,
            cpu=on_cpu,
            data_root=data_root,
        ),
    )
    exits.print_result(result, as_json, lambda: command.render(result))


@app.command(
    epilog="Example:  hwdkit per-class-report --student runs/hwd --teacher runs/teacher "
    "--compare cwd=runs/cwd --format html --out report"
)
def per_class_report(
    student: Annotated[Path, typer.Option(help="The student: checkpoint or run directory.")],
    teacher: Annotated[Path, typer.Option(help="The teacher: checkpoint or run directory.")],
    baseline: Annotated[
        Path | None, typer.Option(help="The student trained alone; deltas are against it.")
    ] = None,
    compare: Annotated[
        list[str] | None, typer.Option(metavar="NAME=CHECKPOINT", help="One more network; may be repeated.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which split of the dataset.")] = "val",
    data_root: DataRoot = DATA,
    temperature: Annotated[
        float, typer.Option("--tau", min=1e-3, help="Temperature of the activation maps.")
    ] = 4.0,
    absent: Annotated[
        str, typer.Option(help="present | paper: rule for classes that do not occur.")
    ] = "present",
    sort: Annotated[str, typer.Option(help="name | share | iou | gap | td-ntd")] = "share",
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="table | json | csv | md | html; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the files.", show_default="reports")
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="Images shown in the HTML page.")] = 6,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N images; the report says so.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Loader processes.")] = 2,
    gpus: OneGpu = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Where distillation helped: class IoU of every network, TD, NTD and TD/NTD per class."""
    named = values.compared(compare or [])
    order = values.one_of("--sort", sort, ("name", "share", "iou", "gap", "td-ntd"))
    rule = values.one_of("--absent", absent, ("present", "paper"))
    wanted = formats or ["table", "json", "csv", "md", "html"]
    for name in wanted:
        values.one_of("--format", name, ("table", "json", "csv", "md", "html"))
    device = values.launch_plan(gpus=gpus)

    from hwdkit.commands import console
    from hwdkit.commands import per_class_report as command

    console.set_up_logging(quiet=quiet)
    on_cpu = values.one_device(device)
    report, files = command.run(
        command.Options(
            student=student,
            teacher=teacher,
            baseline=baseline,
            compare=named,
            split=split,
            data_root=data_root,
            temperature=temperature,
            absent=rule,
            sort=order,
            formats=tuple(wanted),
            out=out or Path("reports"),
            examples=examples,
            limit=limit,
            workers=workers,
            cpu=on_cpu,
        )
    )
    paths = [str(path) for path in files]
    exits.print_result(
        {**report.to_dict(), "files": paths},
        as_json,
        # Without the table, the paths are the result: for a script to pick up.
        lambda: command.render(report, order) if "table" in wanted else "\n".join(paths),
    )
