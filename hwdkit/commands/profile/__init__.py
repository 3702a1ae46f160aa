"""hwdkit profile: what a network, or a training step, costs."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from hwdkit.commands.profile import budgets
from hwdkit.commands.profile.subjects import Subjects, refuse
from hwdkit.errors import UsageError
from hwdkit.terminal import values
from hwdkit.terminal.command import Result, command
from hwdkit.terminal.options import DATA, DataRoot, OneGpu


@command(example="hwdkit profile -r ade20k-r18-hwd --input 512x512 --max-params 14M --latency")
class Profile(Subjects):
    """Count parameters and multiply-adds in three ways; measure latency, memory and training steps.

    Several recipes, checkpoints and backbones make one table, to choose a network for a budget.
    """

    size: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="HxW; may be repeated, but not with --train-step, whose crop it sets.",
            show_default="512x512; the recipe's crop with --train-step",
        ),
    ] = None
    counter: Annotated[
        Literal["all", "torch", "thop", "paper"],
        typer.Option(help="torch counts the true MACs, paper ignores dilation."),
    ] = "all"
    latency: Annotated[
        bool, typer.Option("--latency", help="Measure time and peak memory of a forward pass.")
    ] = False
    train_step: Annotated[
        bool,
        typer.Option(
            "--train-step", help="Measure a training step of the recipe on random data, loss by loss."
        ),
    ] = False
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Images per pass or step.", show_default="1; the recipe's with --train-step"
        ),
    ] = None
    warmup: Annotated[
        int | None,
        typer.Option(min=0, help="Passes or steps before measuring.", show_default="5; 2 with --train-step"),
    ] = None
    iterations: Annotated[
        int | None,
        typer.Option(
            "--iters", min=1, help="Passes or steps measured.", show_default="20; 10 with --train-step"
        ),
    ] = None
    dtype: Annotated[
        Literal["fp32", "bf16", "fp16"] | None,
        typer.Option(help="Autocast of --latency; a step has train.amp.", show_default="fp32"),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="CPU threads of torch.", show_default="torch's choice"),
    ] = None
    max_params: Annotated[
        str | None, typer.Option(metavar="N", help="Exit 9 above so many deployed parameters, e.g. 14M.")
    ] = None
    max_gmacs: Annotated[
        str | None,
        typer.Option(metavar="N", help="Exit 9 above so many true deployed GMACs of an image, e.g. 70."),
    ] = None
    max_latency_ms: Annotated[
        float | None, typer.Option(metavar="MS", help="Exit 9 above this median; implies --latency.")
    ] = None
    data_root: DataRoot = DATA
    gpus: OneGpu = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_step and not self.recipe:
            raise UsageError("--train-step belongs to --recipe")
        if self.train_step and self.count() > 1:
            raise UsageError("--train-step measures one --recipe")
        if self.train_step and len(self.shapes()) > 1:
            raise UsageError("--train-step measures one --input")
        if not (self.timed or self.train_step):
            measuring = {
                "--batch": self.batch, "--warmup": self.warmup,
                "--iters": self.iterations, "--threads": self.threads,
            }  # fmt: skip
            refuse(measuring, "belongs to --latency and --train-step")
        if not self.timed:
            refuse({"--dtype": self.dtype}, "belongs to --latency; a training step has --set train.amp=…")
        self.shapes()
        self.limits()
        values.launch_plan(gpus=self.gpus)

    @property
    def timed(self) -> bool:
        return self.latency or self.max_latency_ms is not None

    def shapes(self) -> list[tuple[int, int]]:
        """Height and width of the images, if typed."""
        return [values.height_by_width("--input", text, least=32) for text in self.size or ()]

    def limits(self) -> dict[str, float]:
        return budgets.parse(self.max_params, self.max_gmacs, self.max_latency_ms)

    def run(self) -> Result:
        overrides = []
        if self.train_step:
            overrides += [f"data.crop=[{height}, {width}]" for height, width in self.shapes()]
            overrides += [f"train.batch_size={self.batch}"] if self.batch else []
        recipes = self.recipes(overrides)
        cpu = values.one_device(values.launch_plan(gpus=self.gpus))

        from hwdkit.commands.profile import costs

        result = costs.run(self, recipes, cpu=cpu)
        return Result(result, lambda: costs.render(result), budgets.gate(result["budgets"]))
