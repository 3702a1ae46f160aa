"""hwdkit export: a trained network as a file for other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hwdkit.errors import UsageError
from hwdkit.terminal import values
from hwdkit.terminal.command import Result, command
from hwdkit.terminal.options import DATA, Checkpoint, DataRoot
from hwdkit.terminal.values import height_by_width

Format = Literal["onnx", "torch-export"]


@command(example="hwdkit export -c runs/my-run -o student.onnx --bake-preprocessing --output classes")
class Export:
    """Export a network to ONNX or torch.export, and check that the file computes the same.

    The file holds the deployed network: no auxiliary head, evaluation mode. Class names, colours and what the
    input must look like are in its metadata.
    """

    checkpoint: Checkpoint
    out: Annotated[Path, typer.Option("--out", "-o", help="A new file: .onnx, or .pt2 for torch-export.")]
    kind: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="torch-export is a .pt2 archive for PyTorch.",
            show_default="what the suffix of --out says",
        ),
    ] = None
    size: Annotated[
        str, typer.Option("--input", metavar="HxW", help="Size of the image that the file takes.")
    ] = "512x512"
    dynamic: Annotated[
        str | None,
        typer.Option(
            help="What the file leaves open: any of batch,height,width.", show_default="one image of --input"
        ),
    ] = None
    output: Annotated[
        Literal["logits", "full", "classes"],
        typer.Option(help="logits (at the network's stride) | full (logits of every pixel) | classes (ids)"),
    ] = "logits"
    bake: Annotated[
        bool,
        typer.Option(
            "--bake-preprocessing", help="Take uint8 RGB: the normalisation becomes part of the file."
        ),
    ] = False
    opset: Annotated[int, typer.Option(min=18, max=21, help="onnx: version of its operators.")] = 18
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Run the file and compare it with the network.")
    ] = True
    tolerance: Annotated[
        float,
        typer.Option(min=0, help="Largest difference of a logit; above it nothing is written (exit 5)."),
    ] = 1e-3
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="Image, folder or pattern to verify and calibrate on; may be repeated.",
            show_default="the checkpoint's dataset",
        ),
    ] = None
    data_root: DataRoot = DATA
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="onnx: 8-bit weights and activations; measures on the dataset what they cost."
        ),
    ] = False
    calibration: Annotated[int, typer.Option(min=1, help="int8: images to calibrate on.")] = 64
    limit: Annotated[
        int | None, typer.Option(min=1, help="int8: measure mIoU on the first N images; the result says so.")
    ] = None
    max_miou_drop: Annotated[
        float, typer.Option(help="int8: exit 9 when more points of mIoU are lost; the file is kept.")
    ] = 1.0

    def __post_init__(self) -> None:
        height_by_width("--input", self.size, least=32)
        for axis in self.axes:
            values.one_of("--dynamic", axis, ("batch", "height", "width"))
        if self.int8 and self.format != "onnx":
            raise UsageError("--int8 is made by onnxruntime: it needs --format onnx")

    @property
    def format(self) -> Format:
        """What is written: --format, or what the file's suffix says."""
        return self.kind or ("torch-export" if self.out.suffix == ".pt2" else "onnx")

    @property
    def axes(self) -> frozenset[Any]:
        """The axes that the file leaves open."""
        return frozenset(part.strip() for part in (self.dynamic or "").split(",") if self.dynamic is not None)

    def run(self) -> Result:
        from hwdkit.commands.export import exported

        result, gate = exported.run(self)
        return Result(result, lambda: exported.render(result), gate)
