"""hwdkit profile: what a network, or a training step, costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, get_args

import typer

from hwdkit.cli.options import DATA, DataRoot, Json, MaybeRecipe, OneGpu, Quiet, Set, app
from hwdkit.commands import budgets, exits, values
from hwdkit.errors import HwdkitError, UsageError


@app.command(epilog="Example:  hwdkit profile -r ade20k-r18-hwd --input 512x512 --max-params 14M --latency")
def profile(
    recipe: MaybeRecipe = None,
    set_: Set = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", "-c", help="Profile a trained network: a file or a run directory."),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Profile a network of this timm backbone; needs --classes.")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="With --backbone: a head as recipes name it, e.g. pspnet.", show_default="deeplabv3"
        ),
    ] = None,
    output_stride: Annotated[
        int | None, typer.Option(help="8, 16 or 32, with --backbone.", show_default="8")
    ] = None,
    aux: Annotated[
        bool | None,
        typer.Option("--aux/--no-aux", help="With --backbone: an auxiliary head.", show_default="aux"),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            help="student | teacher | both: which network of the recipe.",
            show_default="both; budgets bind the student, if there is one",
        ),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Number of classes.", show_default="the dataset's")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="HxW; may be repeated, but not with --train-step, whose crop it sets.",
            show_default="512x512; the recipe's crop with --train-step",
        ),
    ] = None,
    counter: Annotated[
        str, typer.Option(help="all | torch (true MACs) | thop | paper (ignores dilation)")
    ] = "all",
    latency: Annotated[
        bool, typer.Option("--latency", help="Measure time and peak memory of a forward pass.")
    ] = False,
    train_step: Annotated[
        bool,
        typer.Option(
            "--train-step", help="Measure a training step of the recipe on random data, loss by loss."
        ),
    ] = False,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Images a pass or step.", show_default="1; the recipe's with --train-step"),
    ] = None,
    warmup: Annotated[
        int | None,
        typer.Option(min=0, help="Passes or steps before measuring.", show_default="5; 2 with --train-step"),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(
            "--iters", min=1, help="Passes or steps measured.", show_default="20; 10 with --train-step"
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="fp32 | bf16 | fp16 (autocast) of --latency; a step has train.amp.")
    ] = "fp32",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of torch.", show_default="torch's choice")
    ] = None,
    max_params: Annotated[
        str | None, typer.Option(metavar="N", help="Exit 9 above so many deployed parameters, e.g. 14M.")
    ] = None,
    max_gmacs: Annotated[
        str | None,
        typer.Option(metavar="N", help="Exit 9 above so many true deployed GMACs of an image, e.g. 70."),
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(metavar="MS", help="Exit 9 above this median; implies --latency.")
    ] = None,
    data_root: DataRoot = DATA,
    gpus: OneGpu = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Count parameters and multiply-adds, three ways; measure latency, memory and training steps."""
    if sum(given is not None for given in (recipe, checkpoint, backbone)) != 1:
        raise UsageError("give one of --recipe (its networks), --checkpoint (a trained one) and --backbone")
    described = {"--head": head, "--output-stride": output_stride, "--aux": aux}
    of_recipe = {"--set": set_ or None, "--role": role, "--train-step": train_step or None}
    if backbone is None:
        _refuse(described, "belongs to --backbone")
    if recipe is None:
        _refuse(of_recipe, "belongs to --recipe")
    if checkpoint is not None:
        _refuse({"--classes": classes}, "means nothing with --checkpoint, which holds one finished network")
    if backbone is not None and classes is None:
        raise UsageError("--backbone needs --classes: how many classes the network tells apart")
    if train_step and len(size or []) > 1:
        raise UsageError("--train-step measures one --input")
    which = None if role is None else values.one_of("--role", role, ("student", "teacher", "both"))
    count = values.one_of("--counter", counter, ("all", "torch", "thop", "paper"))
    kind = values.one_of("--dtype", dtype, ("fp32", "bf16", "fp16"))
    bounds = budgets.parse(max_params, max_gmacs, max_latency_ms)
    sizes = [values.size(text) for text in size or []]
    launched = values.launch_plan(gpus=gpus)

    from hwdkit.recipe.load import load
    from hwdkit.recipe.schema import Network

    overrides = list(set_ or [])
    if train_step:
        overrides += [f"data.crop=[{height}, {width}]" for height, width in sizes]
        overrides += [f"train.batch_size={batch}"] if batch else []
    loaded = load(recipe, overrides=overrides) if recipe else None
    network = None
    if backbone is not None:
        if output_stride not in (None, 8, 16, 32):
            raise UsageError(f"--output-stride: {output_stride} is not one of 8, 16, 32")
        heads = get_args(Network.model_fields["head"].annotation)
        network = Network.model_validate(
            {
                "backbone": backbone,
                "head": values.one_of("--head", head or "deeplabv3", heads),
                "output_stride": output_stride or 8,
                "aux": aux is not False,
            }
        )
    if not sizes:
        sizes = [loaded.data.crop if train_step and loaded else (512, 512)]

    from hwdkit.commands import console
    from hwdkit.commands import profile as command

    console.set_up_logging(quiet=quiet)
    on_cpu = values.one_device(launched)
    result = command.run(
        command.Subject(loaded, checkpoint, network),
        command.Options(
            role=which,
            classes=classes,
            sizes=tuple(sizes),
            counter=count,
            latency=latency or max_latency_ms is not None,
            train_step=train_step,
            batch=batch or 1,
            warmup=warmup if warmup is not None else 2 if train_step else 5,
            iterations=iterations or (10 if train_step else 20),
            dtype=kind,
            threads=threads,
            budgets=bounds,
            cpu=on_cpu,
            data_root=data_root,
        ),
    )
    missed: HwdkitError | None = budgets.gate(result["budgets"])
    exits.print_result(result, as_json, lambda: command.render(result), error=missed)
    if missed:
        raise missed


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Raise a UsageError for the first option that was given."""
    for option, value in options.items():
        if value is not None:
            raise UsageError(f"{option} {why}")
