"""hwdkit per-class-report: where distillation helped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from hwdkit.cli.old_options import (
    DATA,
    DataRoot,
    Json,
    OneGpu,
    Quiet,
    app,
)
from hwdkit.errors import UsageError
from hwdkit.terminal import exits, paths, values

FORMATS = ("table", "json", "csv", "md", "latex", "html")
ORDERS = ("name", "share", "iou", "gap", "td-ntd", "weight", "class")
MEASURING = (
    *("student", "teacher", "baseline", "compare", "split", "data_root", "divergence", "map_", "temperature"),
    *("absent", "examples", "limit", "workers", "gpus"),
)
"""Options that a finished report has behind it."""


@app.command(
    epilog="Example:  hwdkit per-class-report --student runs/hwd --teacher runs/teacher "
    "--compare cwd=runs/cwd --format html --out report"
)
def per_class_report(
    context: Annotated[typer.Context, typer.Option(hidden=True)],  # for the reference, no option at all
    student: Annotated[
        Path | None, typer.Option(help="The student: checkpoint or run directory. Needed unless --from.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="The teacher: checkpoint or run directory. Needed unless --from.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="The student trained alone; deltas are against it.")
    ] = None,
    compare: Annotated[
        list[str] | None, typer.Option(metavar="NAME=CHECKPOINT", help="One more network; may be repeated.")
    ] = None,
    saved: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="REPORT.json",
            help="Show a finished report again, or write it in other formats; needs no network and no data.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Which split of the dataset.")] = "val",
    data_root: DataRoot = DATA,
    divergence: Annotated[
        str, typer.Option(help="mse | kl: what TD, NTD and the weights measure at a position.")
    ] = "mse",
    map_: Annotated[
        str, typer.Option("--map", help="activation | logit: which maps they compare; kl needs activation.")
    ] = "activation",
    temperature: Annotated[
        float, typer.Option("--tau", min=1e-3, help="Temperature of the activation maps.")
    ] = 4.0,
    absent: Annotated[
        str, typer.Option(help="present | paper: rule for classes that do not occur.")
    ] = "present",
    sort: Annotated[str, typer.Option(help=" | ".join(ORDERS))] = "share",
    classes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,…",
            help="Show these classes only; JSON and page keep all. May be repeated.",
            show_default="all",
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help=f"{' | '.join(FORMATS)}; may be repeated.",
            show_default="all but latex; with --from: table",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for the files; replaces those of an older report.",
            show_default="reports",
        ),
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="Images shown in the HTML page.")] = 6,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N images; the report says so.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Loader processes.")] = 2,
    gpus: OneGpu = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Where distillation helped: class IoU of every network, TD, NTD and TD/NTD per class."""
    if saved is None and (student is None or teacher is None):
        missing = " and ".join(
            f"--{name}" for name, path in (("student", student), ("teacher", teacher)) if not path
        )
        raise UsageError(f"{missing} missing", hint="name both, or a finished report with --from")
    if saved is not None:
        _refuse_measuring(context)
    named = values.compared(compare or [])
    order = values.one_of("--sort", sort, ORDERS)
    if not math.isfinite(temperature):
        raise UsageError(f"--tau: {temperature} is no temperature")
    rule = values.one_of("--absent", absent, ("present", "paper"))
    kind = values.one_of("--divergence", divergence, ("mse", "kl"))
    on = {"activation": "activation", "logit": "logits"}[
        values.one_of("--map", map_, ("activation", "logit"))
    ]
    if (kind, on) == ("kl", "logits"):
        raise UsageError(
            "--divergence kl compares distributions, which logits are not: it needs --map activation"
        )
    wanted = formats or (["table"] if saved else [name for name in FORMATS if name != "latex"])
    for name in wanted:
        values.one_of("--format", name, FORMATS)
    writes = any(name != "table" for name in wanted)
    out = (paths.require_writable if writes else paths.require_folder)("--out", out or Path("reports"))
    device = values.launch_plan(gpus=gpus)

    from hwdkit.commands import per_class_report as command
    from hwdkit.terminal import console

    console.set_up_logging(quiet=quiet)
    on_cpu = values.one_device(device)
    options = command.Options(
        student=student,
        teacher=teacher,
        baseline=baseline,
        compare=named,
        saved=saved,
        split=split,
        data_root=data_root,
        divergence=kind,
        divergence_on=on,  # type: ignore[arg-type]
        temperature=temperature,
        absent=rule,
        sort=order,
        classes=tuple(classes or ()),
        formats=tuple(wanted),
        out=out,
        examples=examples,
        limit=limit,
        workers=workers,
        cpu=on_cpu,
    )
    report, files = command.run(options)
    written = [str(path) for path in files]
    exits.print_result(
        {**report.to_dict(), "files": written},
        as_json,
        # Without the table, the paths are the result: for a script to pick up.
        lambda: command.render(report, options) if "table" in wanted else "\n".join(written),
    )


def _refuse_measuring(context: typer.Context) -> None:
    """A finished report cannot be measured otherwise; a variable of the environment is no such wish."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in MEASURING and source is not None and source.name == "COMMANDLINE":
            raise UsageError(
                f"{parameter.opts[0]} means nothing with --from: that report is measured already",
                hint="leave it out, or leave out --from to measure again",
            )
