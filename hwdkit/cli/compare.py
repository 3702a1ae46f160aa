"""hwdkit compare: is the difference real?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwdkit.cli.old_options import DATA, DataRoot, Json, OneGpu, Quiet, app
from hwdkit.commands.compare import arguments as compare_arguments
from hwdkit.errors import UsageError
from hwdkit.terminal import exits, paths, values

TEXTS = ("table", "json", "csv", "md", "latex")


@app.command(epilog="Example:  hwdkit compare runs/baseline runs/cwd hwd=runs/hwd-0,runs/hwd-1 --per-class")
def compare(
    networks: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|CKPT|NAME=PATH,…",
            help="Run directories, folders of runs, checkpoints, or a name and the seeds of one method.",
        ),
    ],
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The method, or one of its paths, to compare all others with.",
            show_default="the one run without a distillation loss",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="PATH[,PATH…]", help="The teacher, shown first under this name."),
    ] = None,
    split: Annotated[str, typer.Option(help="Which split of the dataset.")] = "val",
    data_root: DataRoot = DATA,
    absent: Annotated[
        str, typer.Option(help="present (mean over classes that occur) | paper (absent = 0)")
    ] = "present",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N images; the result says so.")
    ] = None,
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="Every pair, not only each against the baseline.")
    ] = False,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also a table of the classes.")] = False,
    resamples: Annotated[int, typer.Option(min=100, max=1_000_000, help="Of the images.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    confidence: Annotated[float, typer.Option(min=50, max=99.9, help="Of the intervals, in percent.")] = 95.0,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="table | json | csv | md | latex | png; may be repeated with --out."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for compare.{json,csv,md,tex,png}; older ones are replaced."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Loader processes.")] = 2,
    gpus: OneGpu = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Is the difference real? mIoU of several methods, with intervals over images and seeds.

    Runs whose recipes differ in their seed alone are seeds of one method. Every network sees every image
    once, whole; each method's difference to the baseline gets an interval by a paired bootstrap over images.
    """
    rule = values.one_of("--absent", absent, ("present", "paper"))
    wanted = tuple(dict.fromkeys(formats or (["table"] if out is None else [*TEXTS, "png"])))
    for name in wanted:
        values.one_of("--format", name, (*TEXTS, "png"))
    if out is None and (len(wanted) > 1 or "png" in wanted):
        raise UsageError("--format: several formats, or a png, need a folder to be written to: --out DIR")
    if as_json and out is None and formats and wanted != ("json",):
        raise UsageError(
            f"--json and --format {wanted[0]}: stdout holds one of them", hint="or add --out DIR"
        )
    if out is not None:
        paths.require_writable("--out", out)
    given = compare_arguments.parse(networks, teacher)
    device = values.launch_plan(gpus=gpus)

    from hwdkit.commands.compare import command
    from hwdkit.terminal import console

    console.set_up_logging(quiet=quiet)
    on_cpu = values.one_device(device)
    options = command.Options(
        given=given,
        baseline=baseline,
        split=split,
        data_root=data_root,
        absent=rule,
        limit=limit,
        resamples=resamples,
        seed=seed,
        confidence=confidence,
        all_pairs=all_pairs,
        per_class=per_class,
        formats=wanted,
        out=out,
        workers=workers,
        cpu=on_cpu,
    )
    comparison, files = command.run(options)
    result = command.to_dict(comparison, files)
    exits.print_result(result, as_json, lambda: command.render(comparison, options))
