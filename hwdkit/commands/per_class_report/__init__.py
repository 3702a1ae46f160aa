"""hwdkit per-class-report: where distillation helped."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Literal

import typer

from hwdkit.errors import UsageError
from hwdkit.terminal import paths, values
from hwdkit.terminal.command import Result, command, typed
from hwdkit.terminal.options import Absent, Limit, Networks, Workers
from hwdkit.types import DivergenceKind, Order

SHOWING = {"saved", "sort", "classes", "formats", "out"}
"""The options that do not say how to measure."""

FORMATS = ("table", "json", "csv", "md", "latex", "html")


@command(
    example="hwdkit per-class-report --student runs/hwd --teacher runs/teacher "
    "--compare cwd=runs/cwd --format html --out report"
)
class PerClassReport(Networks):
    """Where distillation helped: class IoU of every network, TD, NTD and TD/NTD per class."""

    student: Annotated[
        Path | None, typer.Option(help="The student: checkpoint or run directory. Needed unless --from.")
    ] = None
    teacher: Annotated[
        Path | None, typer.Option(help="The teacher: checkpoint or run directory. Needed unless --from.")
    ] = None
    baseline: Annotated[
        Path | None, typer.Option(help="The student trained alone; deltas are against it.")
    ] = None
    saved: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="REPORT.json",
            help="Show a finished report again, or write it in other formats; needs no network and no data.",
        ),
    ] = None
    limit: Limit = None
    workers: Workers = 2
    divergence: Annotated[
        DivergenceKind, typer.Option(help="What TD, NTD and the weights measure at a position.")
    ] = "mse"
    map_: Annotated[
        Literal["activation", "logit"],
        typer.Option("--map", help="Which maps they compare; kl needs activation."),
    ] = "activation"
    tau: Annotated[float, typer.Option(min=1e-3, help="Temperature of the activation maps.")] = 4.0
    absent: Absent = "present"
    sort: Annotated[Order, typer.Option(help="Order of the classes.")] = "share"
    classes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,…",
            help="Show these classes only; JSON and page keep all. May be repeated.",
            show_default="all",
        ),
    ] = None
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help=f"{' | '.join(FORMATS)}; may be repeated.",
            show_default="all but latex; with --from: table",
        ),
    ] = None
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the files; replaces those of an older report.")
    ] = Path("reports")
    examples: Annotated[int, typer.Option(min=0, help="Images shown in the HTML page.")] = 6

    def __post_init__(self) -> None:
        if self.saved is None:
            pair = {"--student": self.student, "--teacher": self.teacher}
            if missing := " and ".join(option for option, path in pair.items() if not path):
                raise UsageError(f"{missing} missing", hint="name both, or a finished report with --from")
            super().__post_init__()
        else:
            self._refuse_measuring()
        if not math.isfinite(self.tau):
            raise UsageError(f"--tau: {self.tau} is not a finite temperature")
        if (self.divergence, self.map_) == ("kl", "logit"):
            raise UsageError(
                "--divergence kl compares distributions, which logits are not: it needs --map activation"
            )
        for name in self.written:
            values.one_of("--format", name, FORMATS)
        writes = any(name != "table" for name in self.written)
        (paths.require_writable if writes else paths.require_folder)("--out", self.out)

    def _refuse_measuring(self) -> None:
        """A finished report cannot be measured again; an environment variable does not ask for it."""
        for name in (field.name for field in fields(self) if field.name in typed() - SHOWING):
            option = "--" + name.strip("_").replace("_", "-")
            raise UsageError(
                f"{option} means nothing with --from: that report is already measured",
                hint="leave it out, or leave out --from to measure again",
            )

    @property
    def written(self) -> tuple[str, ...]:
        """The formats asked for."""
        return tuple(self.formats or (["table"] if self.saved else ["table", "json", "csv", "md", "html"]))

    def run(self) -> Result:
        from hwdkit.commands.per_class_report import report

        measured, files = report.run(self)
        written = [str(path) for path in files]
        return Result(
            {**measured.to_dict(), "files": written},
            # Without the table, the paths are the result: for a script to pick up.
            lambda: report.render(measured, self) if "table" in self.written else "\n".join(written),
        )
