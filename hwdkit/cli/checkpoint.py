"""hwdkit checkpoint import | inspect | verify | strip | card."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from hwdkit.cli.old_options import DatasetName, Json, app
from hwdkit.errors import UsageError
from hwdkit.terminal import exits, paths, values

checkpoint_app = typer.Typer(
    help="Import published weights; inspect, verify, strip and describe checkpoints.",
    no_args_is_help=True,
    epilog="Example:  hwdkit checkpoint inspect runs/my-run",
)
app.add_typer(checkpoint_app, name="checkpoint")

File = Annotated[Path, typer.Argument(help="A checkpoint, or a run directory that holds one.")]


@checkpoint_app.command(
    "import",
    epilog="Example:  hwdkit checkpoint import deeplabv3_resnet101.pth --from cirkd "
    "--dataset cityscapes -o teacher.safetensors",
)
def checkpoint_import(
    file: Annotated[Path, typer.Argument(help="The file that was published; of smp also its folder.")],
    source: Annotated[str, typer.Option("--from", help="cirkd | hwd | torchvision | mmseg | smp")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new .safetensors file.")],
    dataset: Annotated[
        DatasetName | None, typer.Option(help="What it was trained on: names its classes.")
    ] = None,
    backbone_only: Annotated[
        bool,
        typer.Option("--backbone-only", help="ImageNet weights, for `pretrained:` in a recipe."),
    ] = False,
    backbone: Annotated[
        str | None, typer.Option(help="timm's name of an smp encoder, where no config.json says it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn published weights into a checkpoint that describes itself; nothing is overwritten."""
    for option, path in (("FILE", file), ("--out", out)):
        paths.require_possible(option, path)
    origin = values.one_of("--from", source, ("cirkd", "hwd", "torchvision", "mmseg", "smp"))

    from hwdkit.commands.checkpoint import importing as command

    name = dataset.value if dataset else None
    options = command.Options(
        source=origin, out=out, dataset=name, backbone_only=backbone_only, backbone=backbone
    )
    result = command.run(file, options)
    exits.print_result(result, as_json, lambda: command.render(result))


@checkpoint_app.command("inspect", epilog="Example:  hwdkit checkpoint inspect runs/my-run --json")
def checkpoint_inspect(file: File, as_json: Json = False) -> None:
    """Print what a checkpoint says of itself: network, classes, dataset, recipe, metrics, input."""
    paths.require_possible("FILE", file)

    from hwdkit.commands.checkpoint import command

    result = command.inspect(file)
    exits.print_result(result, as_json, lambda: command.render_inspect(result))


@checkpoint_app.command("verify", epilog="Example:  hwdkit checkpoint verify teacher.safetensors")
def checkpoint_verify(file: File, as_json: Json = False) -> None:
    """Load a checkpoint strictly, look for NaN, and segment one image; exit 5 if anything is wrong."""
    paths.require_possible("FILE", file)

    from hwdkit.commands.checkpoint import command

    result = command.verify(file)
    exits.print_result(result, as_json, lambda: command.render_verify(result))


@checkpoint_app.command(
    "strip", epilog="Example:  hwdkit checkpoint strip runs/my-run -o my-network.safetensors --dtype fp16"
)
def checkpoint_strip(
    file: File,
    out: Annotated[Path, typer.Option("--out", "-o", help="A new .safetensors file.")],
    dtype: Annotated[str, typer.Option(help="Of the weights in the file: fp32 | fp16 | bf16")] = "fp32",
    as_json: Json = False,
) -> None:
    """Write a copy for deployment: without auxiliary head and private paths, its logits compared.

    fp16 and bf16 halve the file; the network that is loaded from it computes in float32 all the same.
    """
    paths.require_possible("FILE", file)
    kind = values.one_of("--dtype", dtype, ("fp32", "fp16", "bf16"))

    from hwdkit.commands.checkpoint import strip as command

    result = command.run(file, command.Options(out=out, dtype=kind))
    exits.print_result(result, as_json, lambda: command.render(result))


@checkpoint_app.command(
    "card", epilog="Example:  hwdkit checkpoint card runs/my-run --evaluation val.json -o README.md"
)
def checkpoint_card(
    file: File,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A new .md file.", show_default="stdout")
    ] = None,
    repo_id: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Where it will be published: adds its download.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="Of the weights, e.g. apache-2.0; none is assumed.")
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="What `hwdkit evaluate --json` printed: adds the class table.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="The run that trained it.", show_default="the folder it lies in, if it is one"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model card: Markdown with the Hub's front matter, of nothing but what the files say.

    How it was trained is in the run's recipe.yaml and run.json. No path of this machine gets into the card.
    """
    for option, path in (("FILE", file), ("--evaluation", evaluation), ("--run", run)):
        if path is not None:
            paths.require_possible(option, path)
    if repo_id is not None and not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", repo_id, re.ASCII):
        raise UsageError(f"--repo-id: {repo_id!r} is not OWNER/NAME")
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise UsageError(f"--license: {licence!r} is no identifier such as apache-2.0, cc-by-4.0 or other")

    from hwdkit.commands.checkpoint import card as command
    from hwdkit.terminal import console

    console.set_up_logging()
    options = command.Options(
        out=out, repo_id=repo_id or "", licence=licence or "", evaluation=evaluation, run=run
    )
    result = command.run(file, options)
    exits.print_result(result, as_json, lambda: command.render(result))
