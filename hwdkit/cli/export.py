"""hwdkit export: a trained network as a file for other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hwdkit.cli.old_options import DATA, Checkpoint, DataRoot, Json, Quiet, app
from hwdkit.errors import UsageError
from hwdkit.terminal import exits, values
from hwdkit.terminal.sizes import height_by_width


@app.command(
    epilog="Example:  hwdkit export -c runs/my-run -o student.onnx --bake-preprocessing --output classes"
)
def export(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option("--out", "-o", help="A new file: .onnx, or .pt2 for torch-export.")],
    kind: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="onnx | torch-export (a .pt2 archive for PyTorch)",
            show_default="what the suffix of --out says",
        ),
    ] = None,
    size: Annotated[
        str, typer.Option("--input", metavar="HxW", help="Size of the image that the file takes.")
    ] = "512x512",
    dynamic: Annotated[
        str | None,
        typer.Option(
            help="What the file leaves open: any of batch,height,width.", show_default="one image of --input"
        ),
    ] = None,
    output: Annotated[
        str,
        typer.Option(help="logits (at the network's stride) | full (logits of every pixel) | classes (ids)"),
    ] = "logits",
    bake: Annotated[
        bool,
        typer.Option(
            "--bake-preprocessing", help="Take uint8 RGB: the normalisation becomes part of the file."
        ),
    ] = False,
    opset: Annotated[int, typer.Option(min=18, max=21, help="onnx: version of its operators.")] = 18,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Run the file and compare it with the network.")
    ] = True,
    tolerance: Annotated[
        float,
        typer.Option(min=0, help="Largest difference of a logit; above it nothing is written (exit 5)."),
    ] = 1e-3,
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="Image, folder or pattern to verify and calibrate on; may be repeated.",
            show_default="the checkpoint's dataset",
        ),
    ] = None,
    data_root: DataRoot = DATA,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="onnx: 8-bit weights and activations; measures on the dataset what they cost."
        ),
    ] = False,
    calibration: Annotated[int, typer.Option(min=1, help="int8: images to calibrate on.")] = 64,
    limit: Annotated[
        int | None, typer.Option(min=1, help="int8: measure mIoU on the first N images; the result says so.")
    ] = None,
    max_miou_drop: Annotated[
        float, typer.Option(help="int8: exit 9 when more points of mIoU are lost; the file is kept.")
    ] = 1.0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a network to ONNX or torch.export, and check that the file computes the same.

    The file holds the deployed network: no auxiliary head, evaluation mode. Class names, colours and what the
    input must look like are in its metadata.
    """
    implied = "torch-export" if out.suffix == ".pt2" else "onnx"
    format_ = values.one_of("--format", kind or implied, ("onnx", "torch-export"))
    height_width = height_by_width("--input", size, least=32)
    axes = _axes(dynamic)
    what = values.one_of("--output", output, ("logits", "full", "classes"))
    if int8 and format_ != "onnx":
        raise UsageError("--int8 is made by onnxruntime: it needs --format onnx")

    from hwdkit.commands.export import command
    from hwdkit.export.deployed import Form
    from hwdkit.terminal import console

    console.set_up_logging(quiet=quiet)
    result, gate = command.run(
        checkpoint,
        command.Options(
            out=out,
            format=format_,
            form=Form(size=height_width, dynamic=axes, output=what, baked=bake),
            opset=opset,
            verify=verify,
            tolerance=tolerance,
            images=tuple(images or ()),
            data_root=data_root,
            int8=int8,
            calibration=calibration,
            limit=limit,
            max_miou_drop=max_miou_drop,
        ),
    )
    exits.print_result(result, as_json, lambda: command.render(result), error=gate)
    if gate:
        raise gate


def _axes(text: str | None) -> frozenset[Any]:
    if text is None:
        return frozenset()
    return frozenset(
        values.one_of("--dynamic", part.strip(), ("batch", "height", "width")) for part in text.split(",")
    )
