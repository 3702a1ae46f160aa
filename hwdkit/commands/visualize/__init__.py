"""Figures of what distillation did: predictions, activation maps, embeddings, channel weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, cast, get_args

import typer

from hwdkit.errors import UsageError
from hwdkit.terminal import paths
from hwdkit.terminal.command import Result, command, options, subcommands
from hwdkit.terminal.options import Networks, Workers

Form = Literal["png", "svg", "pdf"]
Longest = Annotated[int, typer.Option("--longest", min=64, max=1024, help="Longer side of a panel, pixels.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Look at the first N images only.")]

group = subcommands(
    "visualize",
    about=(__doc__ or "").strip(),
    example="hwdkit visualize panels --student runs/hwd --teacher runs/teacher --worst 4",
)


@options
class Figure:
    """Where a figure goes, and how it is encoded."""

    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A .png, .svg or .pdf.", show_default="the figure's name"),
    ] = None
    form: Annotated[Form | None, typer.Option("--format", show_default="as --out ends, or png")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the figure if it exists.")] = False

    def __post_init__(self) -> None:
        path = paths.require_possible("--out", self.path)
        forms = get_args(Form)
        if self.suffix not in forms:
            raise UsageError(f"--out: {path} ends in none of {', '.join(f'.{form}' for form in forms)}")
        if self.form is not None and self.form != self.suffix:
            raise UsageError(f"--format {self.form} contradicts --out {path}", hint="leave --format out")
        if path.is_dir():
            raise UsageError(f"--out: {path} is a folder")
        if not self.overwrite and os.path.lexists(path):
            raise UsageError(f"--out: {path} exists", hint="name a new file, or add --overwrite")
        if len(os.fsencode(path.name)) > paths.LONGEST_NAME:
            raise UsageError(f"--out: a name of more than {paths.LONGEST_NAME} bytes; name it shorter")
        paths.require_writable("--out", path.parent, path=path)

    @property
    def path(self) -> Path:
        """The figure's file; without --out it is called like the command."""
        return self.out or Path(f"{type(self).__name__.lower()}.{self.form or 'png'}")

    @property
    def suffix(self) -> Form:
        """How the figure is encoded."""
        return cast(Form, self.path.suffix.lower().removeprefix("."))


@options
class FigureOfNetworks(Figure, Networks):
    """A figure that shows networks."""

    def __post_init__(self) -> None:
        Figure.__post_init__(self)
        Networks.__post_init__(self)
        if not self.named():
            raise UsageError(
                "no network", hint="name one: --student, --teacher, --baseline or --compare NAME=…"
            )


@command(
    group=group,
    example="hwdkit visualize panels --teacher runs/teacher --baseline runs/baseline "
    "--compare cwd=runs/cwd --compare hwd=runs/hwd --best 4 -o panels.pdf",
)
class Panels(FigureOfNetworks):
    """Images, ground truth and what each network sees, side by side; without a choice the first 4."""

    images: Annotated[
        list[str] | None, typer.Option(metavar="INDEX|NAME,…", help="Which images. May be repeated.")
    ] = None
    worst: Annotated[
        int | None, typer.Option(min=1, max=20, help="The images where student and teacher differ most.")
    ] = None
    best: Annotated[
        int | None, typer.Option(min=1, max=20, help="Where the student gains most over the baseline.")
    ] = None
    score: Annotated[
        Literal["miou", "pixel-accuracy"], typer.Option(help="Below each panel, and for --best.")
    ] = "miou"
    longest: Longest = 320
    limit: Limit = None
    workers: Workers = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(choice is not None for choice in (self.images, self.worst, self.best)) > 1:
            raise UsageError("--images, --worst and --best exclude each other")

    def run(self) -> Result:
        from hwdkit.commands.visualize import figure, panels

        return figure.written(self, panels.run(self), panels.render)


@command(
    group=group,
    example="hwdkit visualize activations --classes road,car --teacher runs/teacher "
    "--baseline runs/baseline --student runs/hwd",
)
class Activations(FigureOfNetworks):
    """Where in the image each network's channel of a class is active: what channel-wise losses compare."""

    classes: Annotated[
        list[str] | None, typer.Option(metavar="NAME,…", help="Which classes. May be repeated.")
    ] = None
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INDEX|NAME,…",
            help="Which images. May be repeated.",
            show_default="the first with all classes",
        ),
    ] = None
    tau: Annotated[float, typer.Option(min=1e-3, help="Temperature of the activation maps.")] = 4.0
    longest: Longest = 320

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.classes:
            raise UsageError("--classes missing", hint="name some, such as --classes road,car")

    def run(self) -> Result:
        from hwdkit.commands.visualize import activations, figure

        return figure.written(self, activations.run(self), activations.render)


@command(
    group=group,
    example="hwdkit visualize embeddings --baseline runs/baseline --student runs/hwd -o tsne.png",
)
class Embeddings(FigureOfNetworks):
    """t-SNE of the pixels' features before the classifier: how far apart the classes lie."""

    classes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,…", help="Which classes. May be repeated.", show_default="all, or the 20 largest"
        ),
    ] = None
    per_class: Annotated[int, typer.Option(min=5, max=2000, help="Pixels of each class at most.")] = 100
    perplexity: Annotated[float, typer.Option(min=2, max=500, help="Of t-SNE.")] = 30.0
    pca: Annotated[int, typer.Option(min=2, max=512, help="Dimensions that t-SNE starts from.")] = 50
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the sample and of t-SNE.")] = 0
    limit: Limit = None
    workers: Workers = 2

    def run(self) -> Result:
        from hwdkit.commands.visualize import embeddings, figure

        return figure.written(self, embeddings.run(self), embeddings.render)


@command(group=group, example="hwdkit visualize weights --teacher runs/teacher --student runs/hwd --hwd mu=1")
class Weights(FigureOfNetworks):
    """Which channels HWD pushes: each class's mean weight, at the end or over training."""

    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[STEP=]CHECKPOINT",
            help="One student at several steps instead: weights over training. May be repeated.",
        ),
    ] = None
    hwd: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="An option of the loss, as in a recipe. May be repeated.",
            show_default="those of the student's run",
        ),
    ] = None
    classes: Annotated[
        list[str] | None, typer.Option(metavar="NAME,…", help="Draw these only.", show_default="the --top")
    ] = None
    top: Annotated[int | None, typer.Option(min=1, help="Classes drawn.", show_default="40; with --at 8")] = (
        None
    )
    limit: Limit = None
    workers: Workers = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher is None:
            raise UsageError("--teacher missing", hint="weights come from the difference to a teacher")
        if self.at and (self.student or self.baseline or self.compare):
            raise UsageError(
                "--at shows one student over training: it excludes --student, --baseline, --compare"
            )

    def run(self) -> Result:
        from hwdkit.commands.visualize import figure, weights

        return figure.written(self, weights.run(self), weights.render)


@command(group=group, example="hwdkit visualize smoothing --beta 0.01,0.1,0.9 -o smoothing.svg")
class Smoothing(Figure):
    """HWD's smoothing, Eq. 7: how much a channel weighs by its normalised divergence; needs no network."""

    beta: Annotated[str, typer.Option(help="Comma-separated, each between 0 and 1.")] = "0.01,0.1,0.5,0.9"
    low: Annotated[float, typer.Option(min=-10, max=10, help="First normalised divergence.")] = -2.0
    high: Annotated[float, typer.Option(min=-10, max=10, help="Last one.")] = 3.0
    points: Annotated[int, typer.Option(min=2, max=10_000, help="How many between them.")] = 101

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 < value < 1 for value in self.betas):
            raise UsageError(f"--beta {self.beta}: each must lie within 0 and 1, both excluded")
        if not self.low < self.high:
            raise UsageError(f"--low {self.low:g} is not below --high {self.high:g}")

    @property
    def betas(self) -> tuple[float, ...]:
        """--beta as numbers, each once."""
        try:
            return tuple(dict.fromkeys(float(part) for part in self.beta.split(",")))
        except ValueError:
            raise UsageError(f"--beta: {self.beta!r} is not a list of numbers such as 0.1,0.5") from None

    def run(self) -> Result:
        from hwdkit.commands.visualize import figure, smoothing

        return figure.written(self, smoothing.run(self), smoothing.render)
