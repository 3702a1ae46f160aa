"""hwdkit compare: is the difference real?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwdkit.commands.compare.seed_paths import SeedPaths, parse
from hwdkit.errors import UsageError
from hwdkit.terminal import paths, values
from hwdkit.terminal.command import Result, command, typed
from hwdkit.terminal.options import DATA, Absent, DataRoot, Limit, OneGpu, Split, Workers

TEXTS = ("table", "json", "csv", "md", "latex")


@command(example="hwdkit compare runs/baseline runs/cwd hwd=runs/hwd-0,runs/hwd-1 --per-class")
class Compare:
    """Is the difference real? mIoU of several methods, with intervals over images and seeds.

    Runs whose recipes differ in their seed alone are seeds of one method. Every network sees every image
    once, whole; each method's difference to the baseline gets an interval by a paired bootstrap over images.
    """

    networks: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|CKPT|NAME=PATH,…",
            help="Run directories, folders of runs, checkpoints, or a name and the seeds of one method.",
        ),
    ]
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The method, or one of its paths, to compare all others with.",
            show_default="the one run without a distillation loss",
        ),
    ] = None
    teacher: Annotated[
        str | None,
        typer.Option(metavar="PATH[,PATH…]", help="The teacher, shown first under this name."),
    ] = None
    split: Split = "val"
    data_root: DataRoot = DATA
    absent: Absent = "present"
    limit: Limit = None
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="Every pair, not only each against the baseline.")
    ] = False
    per_class: Annotated[bool, typer.Option("--per-class", help="Also a table of the classes.")] = False
    resamples: Annotated[int, typer.Option(min=100, max=1_000_000, help="Of the images.")] = 2000
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0
    confidence: Annotated[float, typer.Option(min=50, max=99.9, help="Of the intervals, in percent.")] = 95.0
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="table | json | csv | md | latex | png; may be repeated with --out."),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for compare.{json,csv,md,tex,png}; older ones are replaced."
        ),
    ] = None
    workers: Workers = 2
    gpus: OneGpu = "auto"

    def __post_init__(self) -> None:
        for name in self.written:
            values.one_of("--format", name, (*TEXTS, "png"))
        if self.out is not None:
            paths.require_writable("--out", self.out)
        elif len(self.written) > 1 or "png" in self.written:
            raise UsageError("--format: several formats, or a png, need a folder to be written to: --out DIR")
        elif "as_json" in typed() and self.formats and self.written != ("json",):
            raise UsageError(
                f"--json and --format {self.written[0]}: stdout holds one of them", hint="or add --out DIR"
            )
        self.methods()

    @property
    def written(self) -> tuple[str, ...]:
        """The formats asked for, each once."""
        every = ["table"] if self.out is None else [*TEXTS, "png"]
        return tuple(dict.fromkeys(self.formats or every))

    def methods(self) -> tuple[SeedPaths, ...]:
        """The networks, by the method that they are named for; the teacher first."""
        return parse(self.networks, self.teacher)

    def run(self) -> Result:
        cpu = values.one_device(values.launch_plan(gpus=self.gpus))

        from hwdkit.commands.compare import report

        comparison, files = report.run(self, cpu=cpu)
        return Result(report.to_dict(comparison, files), lambda: report.render(comparison, self))
