"""hwdkit per-class-report: where distillation helped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwdkit.cli.options import (
    DATA,
    DataRoot,
    Json,
    OneGpu,
    Quiet,
    app,
)
from hwdkit.commands import exits, values


@app.command(
    epilog="Example:  hwdkit per-class-report --student runs/hwd --teacher runs/teacher "
    "--compare cwd=runs/cwd --format html --out report"
)
def per_class_report(
    student: Annotated[Path, typer.Option(help="The student: checkpoint or run directory.")],
    teacher: Annotated[Path, typer.Option(help="The teacher: checkpoint or run directory.")],
    baseline: Annotated[
        Path | None, typer.Option(help="The student trained alone; deltas are against it.")
    ] = None,
    compare: Annotated[
        list[str] | None, typer.Option(metavar="NAME=CHECKPOINT", help="One more network; may be repeated.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which split of the dataset.")] = "val",
    data_root: DataRoot = DATA,
    temperature: Annotated[
        float, typer.Option("--tau", min=1e-3, help="Temperature of the activation maps.")
    ] = 4.0,
    absent: Annotated[
        str, typer.Option(help="present | paper: rule for classes that do not occur.")
    ] = "present",
    sort: Annotated[str, typer.Option(help="name | share | iou | gap | td-ntd")] = "share",
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="table | json | csv | md | html; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the files.", show_default="reports")
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="Images shown in the HTML page.")] = 6,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N images; the report says so.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Loader processes.")] = 2,
    gpus: OneGpu = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Where distillation helped: class IoU of every network, TD, NTD and TD/NTD per class."""
    named = values.compared(compare or [])
    order = values.one_of("--sort", sort, ("name", "share", "iou", "gap", "td-ntd"))
    rule = values.one_of("--absent", absent, ("present", "paper"))
    wanted = formats or ["table", "json", "csv", "md", "html"]
    for name in wanted:
        values.one_of("--format", name, ("table", "json", "csv", "md", "html"))
    device = values.launch_plan(gpus=gpus)

    from hwdkit.commands import console
    from hwdkit.commands import per_class_report as command

    console.set_up_logging(quiet=quiet)
    on_cpu = values.one_device(device)
    report, files = command.run(
        command.Options(
            student=student,
            teacher=teacher,
            baseline=baseline,
            compare=named,
            split=split,
            data_root=data_root,
            temperature=temperature,
            absent=rule,
            sort=order,
            formats=tuple(wanted),
            out=out or Path("reports"),
            examples=examples,
            limit=limit,
            workers=workers,
            cpu=on_cpu,
        )
    )
    paths = [str(path) for path in files]
    exits.print_result(
        {**report.to_dict(), "files": paths},
        as_json,
        # Without the table, the paths are the result: for a script to pick up.
        lambda: command.render(report, order) if "table" in wanted else "\n".join(paths),
    )
