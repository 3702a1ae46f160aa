"""hwdkit profile: what a network costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwdkit.cli.options import (
    DATA,
    DataRoot,
    Json,
    MaybeRecipe,
    OneGpu,
    Quiet,
    Set,
    app,
)
from hwdkit.commands import exits, values
from hwdkit.errors import UsageError


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
