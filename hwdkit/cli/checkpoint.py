"""hwdkit checkpoint import | inspect | verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwdkit.cli.options import DatasetName, Json, app
from hwdkit.commands import exits, values

checkpoint_app = typer.Typer(
    help="Import published weights; inspect and verify checkpoints.",
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
    file: Annotated[Path, typer.Argument(help="The .pth file that was published.")],
    source: Annotated[str, typer.Option("--from", help="cirkd (CIRKD's and HWD's files) | torchvision")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new .safetensors file.")],
    dataset: Annotated[
        DatasetName | None, typer.Option(help="What it was trained on: names its classes.")
    ] = None,
    backbone_only: Annotated[
        bool,
        typer.Option("--backbone-only", help="ImageNet weights, for `pretrained:` in a recipe."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn published weights into a checkpoint that describes itself; nothing is overwritten."""
    origin = values.one_of("--from", source, ("cirkd", "torchvision"))

    from hwdkit.commands import checkpoint_import as command

    name = dataset.value if dataset else None
    options = command.Options(source=origin, out=out, dataset=name, backbone_only=backbone_only)
    result = command.run(file, options)
    exits.print_result(result, as_json, lambda: command.render(result))


@checkpoint_app.command("inspect", epilog="Example:  hwdkit checkpoint inspect runs/my-run --json")
def checkpoint_inspect(file: File, as_json: Json = False) -> None:
    """Print what a checkpoint says of itself: network, classes, dataset, recipe, metrics, input."""
    from hwdkit.commands import checkpoint as command

    result = command.inspect(file)
    exits.print_result(result, as_json, lambda: command.render_inspect(result))


@checkpoint_app.command("verify", epilog="Example:  hwdkit checkpoint verify teacher.safetensors")
def checkpoint_verify(file: File, as_json: Json = False) -> None:
    """Load a checkpoint strictly, look for NaN, and segment one image; exit 5 if anything is wrong."""
    from hwdkit.commands import checkpoint as command

    result = command.verify(file)
    exits.print_result(result, as_json, lambda: command.render_verify(result))
