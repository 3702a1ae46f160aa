"""Which networks are profiled: those of recipes, of checkpoints, and of backbones on the command line.

No torch here: a mistake costs no waiting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from hwdkit.errors import UsageError
from hwdkit.terminal import values
from hwdkit.terminal.command import options
from hwdkit.terminal.options import Set

if TYPE_CHECKING:
    from hwdkit.recipe.schema import Network, Recipe


@options
class Subjects:
    """The options that name networks; at least one of them is needed."""

    recipe: Annotated[
        list[str] | None,
        typer.Option("--recipe", "-r", help="A recipe's name, or a path to a YAML file; may be repeated."),
    ] = None
    overrides: Set = None
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint", "-c", help="A trained network: a file or a run directory; may be repeated."
        ),
    ] = None
    backbone: Annotated[
        list[str] | None,
        typer.Option(help="A network on this timm backbone; needs --classes; may be repeated."),
    ] = None
    head: Annotated[
        list[str] | None,
        typer.Option(
            help="With --backbone: a head as recipes name it, e.g. pspnet; may be repeated.",
            show_default="deeplabv3",
        ),
    ] = None
    output_stride: Annotated[
        int | None, typer.Option(help="8, 16 or 32, with --backbone.", show_default="8")
    ] = None
    aux: Annotated[
        bool | None,
        typer.Option("--aux/--no-aux", help="With --backbone: an auxiliary head.", show_default="aux"),
    ] = None
    role: Annotated[
        Literal["student", "teacher", "both"] | None,
        typer.Option(
            help="Which network of the recipe.",
            show_default="both, of several recipes the student; budgets bind the student, if there is one",
        ),
    ] = None
    classes: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, help="Number of classes.", show_default="the dataset's"),
    ] = None

    def __post_init__(self) -> None:
        if not (self.recipe or self.checkpoint or self.backbone):
            raise UsageError(
                "give --recipe (its networks), --checkpoint (a trained one) or --backbone",
                hint="each may be repeated, e.g. --backbone resnet18 --backbone mobilenetv2_100 --classes 19",
            )
        if not self.backbone:
            of_backbone = {"--head": self.head, "--output-stride": self.output_stride, "--aux": self.aux}
            refuse(of_backbone, "belongs to --backbone")
        elif self.classes is None:
            raise UsageError("--backbone needs --classes: the number of classes")
        if not self.recipe:
            refuse({"--set": self.overrides, "--role": self.role}, "belongs to --recipe")
        if not (self.recipe or self.backbone):
            refuse(
                {"--classes": self.classes},
                "means nothing with --checkpoint, which holds one finished network",
            )
        self.networks()

    def count(self) -> int:
        """How many recipes, checkpoints and backbones there are."""
        return len([*(self.recipe or ()), *(self.checkpoint or ()), *(self.backbone or ())])

    def recipes(self, overrides: Sequence[str] = ()) -> tuple[Recipe, ...]:
        """Every recipe, with `--set` and then other overrides."""
        from hwdkit.recipe.load import load

        return tuple(
            load(name, overrides=[*(self.overrides or ()), *overrides]) for name in self.recipe or ()
        )

    def networks(self) -> tuple[Network, ...]:
        """Every backbone under every head, as a recipe would describe them."""
        from hwdkit.recipe.schema import Network

        if self.output_stride not in (None, 8, 16, 32):
            raise UsageError(f"--output-stride: {self.output_stride} is not one of 8, 16, 32")
        choices = get_args(Network.model_fields["head"].annotation)
        heads = [values.one_of("--head", head, choices) for head in self.head or ["deeplabv3"]]
        shape = {"output_stride": self.output_stride or 8, "aux": self.aux is not False}
        return tuple(
            Network.model_validate({"backbone": backbone, "head": head, **shape})
            for backbone in self.backbone or ()
            for head in heads
        )


def refuse(options: Mapping[str, object], why: str) -> None:
    """Raise a UsageError for the first option that was typed."""
    for option, value in options.items():
        if value is not None and value is not False and value != []:
            raise UsageError(f"{option} {why}")
