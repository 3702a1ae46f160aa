"""hwdkit prepare-data and hwdkit demo: how most people begin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwdkit.cli.options import DATA, DataRoot, DatasetName, Json, OneGpu, Quiet, app
from hwdkit.commands import exits, values


@app.command(epilog="Example:  hwdkit prepare-data ade20k --source ~/downloads/ADEChallengeData2016")
def prepare_data(
    name: Annotated[DatasetName, typer.Argument(help="Which dataset.")],
    source: Annotated[
        Path | None,
        typer.Option(help="Folder that you downloaded and unpacked.", show_default="below the data root"),
    ] = None,
    data_root: DataRoot = DATA,
    check: Annotated[bool, typer.Option("--check", help="Only verify; write nothing.")] = False,
    allow_partial: Annotated[
        bool,
        typer.Option("--allow-partial", help="Accept fewer images than published; later results say so."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a dataset prepared otherwise.")
    ] = False,
    train: Annotated[
        int | None, typer.Option(min=1, help="scenes: training images.", show_default="2000")
    ] = None,
    val: Annotated[
        int | None, typer.Option(min=1, help="scenes: validation images.", show_default="400")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="scenes: seed of the generator.", show_default="0")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes.", show_default="one per core")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Verify a dataset completely and write its index, so that training cannot trip over a file."""
    from hwdkit.commands import console
    from hwdkit.commands import prepare_data as command

    console.set_up_logging(quiet=quiet)
    result = command.run(
        name.value,
        source=source,
        root=data_root,
        check=check,
        allow_partial=allow_partial,
        overwrite=overwrite,
        train=train,
        val=val,
        seed=seed,
        workers=workers,
    )
    exits.print_result(result, as_json, lambda: command.render(result))


@app.command(epilog="Example:  hwdkit demo --out my-demo")
def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for data, runs and report; must be new or empty.")
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of all runs.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A minute instead of six: checks the road, shows nothing.")
    ] = False,
    gpus: OneGpu = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The whole road in minutes: data, teacher, baseline, CWD, HWD, evaluation, report."""
    device = values.launch_plan(gpus=gpus)

    from hwdkit.commands import console
    from hwdkit.commands import demo as command

    console.set_up_logging(quiet=quiet)
    on_cpu = values.one_device(device)
    result = command.run(out, seed=seed, quick=quick, cpu=on_cpu)
    exits.print_result(result, as_json, lambda: command.render(result))
