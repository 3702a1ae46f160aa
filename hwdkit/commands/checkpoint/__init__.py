"""Import published weights; inspect, verify, strip and describe checkpoints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from hwdkit.errors import UsageError
from hwdkit.terminal import paths
from hwdkit.terminal.command import Result, command, options, subcommands
from hwdkit.terminal.options import KnownDataset

group = subcommands("checkpoint", about=__doc__, example="hwdkit checkpoint inspect runs/my-run")


@options
class OfCheckpoint:
    """The argument of all commands but import."""

    file: Annotated[Path, typer.Argument(help="A checkpoint, or a run directory that holds one.")]

    def __post_init__(self) -> None:
        paths.require_possible("FILE", self.file)


@command(
    group=group,
    example="hwdkit checkpoint import deeplabv3_resnet101.pth --from cirkd --dataset cityscapes "
    "-o teacher.safetensors",
)
class Import:
    """Turn published weights into a checkpoint that describes its network; nothing is overwritten."""

    file: Annotated[Path, typer.Argument(help="The published file; for smp also its folder.")]
    source: Annotated[
        Literal["cirkd", "hwd", "torchvision", "mmseg", "smp"],
        typer.Option("--from", help="Who published it."),
    ]
    out: Annotated[Path, typer.Option("--out", "-o", help="A new .safetensors file.")]
    dataset: Annotated[
        KnownDataset | None,
        typer.Option(help="The dataset that it was trained on; names its classes."),
    ] = None
    backbone_only: Annotated[
        bool, typer.Option("--backbone-only", help="ImageNet weights, for `pretrained:` in a recipe.")
    ] = False
    backbone: Annotated[
        str | None, typer.Option(help="timm's name of an smp encoder, where no config.json says it.")
    ] = None

    def __post_init__(self) -> None:
        paths.require_possible("FILE", self.file)
        paths.require_new_file("--out", self.out, suffix=".safetensors")
        if self.backbone is not None and (self.source != "smp" or self.backbone_only):
            raise UsageError("--backbone names the encoder of an smp network; leave it out here")
        if self.dataset is None and not self.backbone_only:
            raise UsageError(
                "--dataset is missing: it names the classes of the network",
                hint="for the ImageNet weights of a backbone give --backbone-only instead",
            )
        if self.dataset is not None and self.backbone_only:
            raise UsageError("--dataset means nothing with --backbone-only: a backbone has no classes")

    def run(self) -> Result:
        from hwdkit.commands.checkpoint import importing

        result = importing.run(self)
        return Result(result, lambda: importing.render(result))


@command(group=group, example="hwdkit checkpoint inspect runs/my-run --json")
class Inspect(OfCheckpoint):
    """Print what a checkpoint says of itself: network, classes, dataset, recipe, metrics, input."""

    def run(self) -> Result:
        from hwdkit.commands.checkpoint import contents

        result = contents.inspect(self.file)
        return Result(result, lambda: contents.render(result))


@command(group=group, example="hwdkit checkpoint verify teacher.safetensors")
class Verify(OfCheckpoint):
    """Load a checkpoint strictly, look for NaN, and segment one image; exit 5 if anything is wrong."""

    def run(self) -> Result:
        from hwdkit.commands.checkpoint import verification

        result = verification.verify(self.file)
        return Result(result, lambda: verification.render(result))


@command(group=group, example="hwdkit checkpoint strip runs/my-run -o my-network.safetensors --dtype fp16")
class Strip(OfCheckpoint):
    """Write a copy for deployment, without auxiliary head and private paths; its logits are compared.

    fp16 and bf16 halve the file; the network still computes in float32.
    """

    out: Annotated[Path, typer.Option("--out", "-o", help="A new .safetensors file.")]
    dtype: Annotated[Literal["fp32", "fp16", "bf16"], typer.Option(help="Of the weights in the file.")] = (
        "fp32"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        paths.require_new_file("--out", self.out, suffix=".safetensors")

    def run(self) -> Result:
        from hwdkit.commands.checkpoint import strip

        result = strip.run(self)
        return Result(result, lambda: strip.render(result))


@command(group=group, example="hwdkit checkpoint card runs/my-run --evaluation val.json -o README.md")
class Card(OfCheckpoint):
    """Write a model card: Markdown with the front matter of the Hugging Face Hub, from what the files say.

    The recipe.yaml and run.json of its run say how it was trained. The card names no path of this machine.
    """

    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A new .md file.", show_default="stdout")
    ] = None
    repo_id: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Where it will be published; adds the download command."),
    ] = None
    licence: Annotated[
        str | None, typer.Option("--license", help="Of the weights, e.g. apache-2.0; none is assumed.")
    ] = None
    evaluation: Annotated[
        Path | None, typer.Option(help="What `hwdkit evaluate --json` printed: adds the class table.")
    ] = None
    trained_by: Annotated[
        Path | None,
        typer.Option(
            "--run", help="The run that trained it.", show_default="the folder it lies in, if it is one"
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, path in (("--evaluation", self.evaluation), ("--run", self.trained_by)):
            if path is not None:
                paths.require_possible(option, path)
        name = r"[A-Za-z0-9][\w.-]*"
        if self.repo_id is not None and not re.fullmatch(f"{name}/{name}", self.repo_id, re.ASCII):
            raise UsageError(f"--repo-id: {self.repo_id!r} is not OWNER/NAME")
        if self.licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.licence):
            raise UsageError(
                f"--license: {self.licence!r} is no identifier such as apache-2.0, cc-by-4.0 or other"
            )
        if self.out is not None:
            paths.require_new_file("--out", self.out, suffix=".md")

    def run(self) -> Result:
        from hwdkit.commands.checkpoint import card

        result = card.run(self)
        return Result(result, lambda: card.render(result))
