"""hwdkit profile: what a network, or a training step, costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from hwdkit.cli.old_options import DATA, DataRoot, Json, OneGpu, Quiet, Set, app
from hwdkit.commands.profile import budgets
from hwdkit.errors import HwdkitError, UsageError
from hwdkit.terminal import exits, sizes, values

if TYPE_CHECKING:
    from hwdkit.recipe.schema import Network


@app.command(epilog="Example:  hwdkit profile -r ade20k-r18-hwd --input 512x512 --max-params 14M --latency")
def profile(
    recipe: Annotated[
        list[str] | None,
        typer.Option("--recipe", "-r", help="A recipe's name, or a path to a YAML file; may be repeated."),
    ] = None,
    set_: Set = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint", "-c", help="A trained network: a file or a run directory; may be repeated."
        ),
    ] = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option(help="A network on this timm backbone; needs --classes; may be repeated."),
    ] = None,
    head: Annotated[
        list[str] | None,
        typer.Option(
            help="With --backbone: a head as recipes name it, e.g. pspnet; may be repeated.",
            show_default="deeplabv3",
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
            show_default="both, of several recipes the student; budgets bind the student, if there is one",
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, help="Number of classes.", show_default="the dataset's"),
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
        str | None,
        typer.Option(
            help="fp32 | bf16 | fp16 (autocast) of --latency; a step has train.amp.", show_default="fp32"
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="CPU threads of torch.", show_default="torch's choice"),
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
    """Count parameters and multiply-adds, three ways; measure latency, memory and training steps.

    Several recipes, checkpoints and backbones make one table: a shortlist against a budget.
    """
    if not (recipe or checkpoint or backbone):
        raise UsageError(
            "give --recipe (its networks), --checkpoint (a trained one) or --backbone",
            hint="each may be repeated, e.g. --backbone resnet18 --backbone mobilenetv2_100 --classes 19",
        )
    timed = latency or max_latency_ms is not None
    if not backbone:
        _refuse({"--head": head, "--output-stride": output_stride, "--aux": aux}, "belongs to --backbone")
    if not recipe:
        _refuse({"--set": set_, "--role": role, "--train-step": train_step}, "belongs to --recipe")
    if not (recipe or backbone):
        _refuse({"--classes": classes}, "means nothing with --checkpoint, which holds one finished network")
    if not (timed or train_step):
        measured = {"--batch": batch, "--warmup": warmup, "--iters": iterations, "--threads": threads}
        _refuse(measured, "belongs to --latency and --train-step: multiply-adds are counted, of one image")
    if not timed:
        _refuse({"--dtype": dtype}, "belongs to --latency; a training step has --set train.amp=…")
    if backbone and classes is None:
        raise UsageError("--backbone needs --classes: how many classes the network tells apart")
    if train_step and len(recipe or []) + len(checkpoint or []) + len(backbone or []) > 1:
        raise UsageError("--train-step measures one --recipe")
    if train_step and len(size or []) > 1:
        raise UsageError("--train-step measures one --input")
    which = None if role is None else values.one_of("--role", role, ("student", "teacher", "both"))
    count = values.one_of("--counter", counter, ("all", "torch", "thop", "paper"))
    kind = values.one_of("--dtype", dtype or "fp32", ("fp32", "bf16", "fp16"))
    bounds = budgets.parse(max_params, max_gmacs, max_latency_ms)
    shapes = [sizes.height_by_width("--input", text, least=32) for text in size or []]
    launched = values.launch_plan(gpus=gpus)

    from hwdkit.recipe.load import load

    overrides = list(set_ or [])
    if train_step:
        overrides += [f"data.crop=[{height}, {width}]" for height, width in shapes]
        overrides += [f"train.batch_size={batch}"] if batch else []
    recipes = tuple(load(name, overrides=overrides) for name in recipe or [])
    networks = _networks(backbone or [], head or ["deeplabv3"], output_stride, aux is not False)

    from hwdkit.commands.profile import command
    from hwdkit.terminal import console

    console.set_up_logging(quiet=quiet)
    on_cpu = values.one_device(launched)
    result = command.run(
        command.Subjects(recipes, tuple(checkpoint or []), networks),
        command.Options(
            role=which,
            classes=classes,
            sizes=tuple(shapes) or ((recipes[0].data.crop if train_step else (512, 512)),),
            counter=count,
            latency=timed,
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


def _networks(
    backbones: Sequence[str], heads: Sequence[str], output_stride: int | None, aux: bool
) -> tuple[Network, ...]:
    """Every backbone under every head, as a recipe would describe them."""
    from hwdkit.recipe.schema import Network

    if output_stride not in (None, 8, 16, 32):
        raise UsageError(f"--output-stride: {output_stride} is not one of 8, 16, 32")
    known = get_args(Network.model_fields["head"].annotation)
    chosen = [values.one_of("--head", head, known) for head in heads]
    stride = output_stride or 8
    return tuple(
        Network.model_validate({"backbone": backbone, "head": head, "output_stride": stride, "aux": aux})
        for backbone in backbones
        for head in chosen
    )


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Raise a UsageError for the first option that was given."""
    for option, value in options.items():
        if value is not None and value is not False and value != []:
            raise UsageError(f"{option} {why}")
