"""The command line: parses, calls commands/*, prints. Nothing here imports torch before a command runs.

stdout carries the result (a table, or one JSON document with --json); logs, progress and errors go to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from hwdkit import __version__
from hwdkit.errors import HwdkitError

app = typer.Typer(
    name="hwdkit",
    help="Distil semantic-segmentation networks: a big teacher teaches a small student.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start here:  hwdkit demo        Exit codes and JSON schemas: docs/cli.md",
)

Recipe = Annotated[str, typer.Option("--recipe", "-r", help="A recipe's name, or a path to a YAML file.")]
MaybeRecipe = Annotated[
    str | None, typer.Option("--recipe", "-r", help="A recipe's name, or a path to a YAML file.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a recipe key, e.g. losses.hwd.beta=0.3."),
]
DataRoot = Annotated[
    Path, typer.Option("--data-root", envvar="HWDKIT_DATA", help="Folder that holds the prepared datasets.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors on stderr.")]
Checkpoint = Annotated[
    Path,
    typer.Option(
        "--checkpoint", "-c", help="A student.safetensors / teacher.safetensors, or a run directory."
    ),
]
Gpus = Annotated[str, typer.Option("--gpus", help="auto (all visible), a number, or 0 for the CPU.")]
Ranks = Annotated[
    int | None, typer.Option("--ranks", min=1, help="Processes on this machine [default: one per GPU].")
]
Nnodes = Annotated[str, typer.Option("--nnodes", help="Number of machines: N or MIN:MAX.")]
RdzvEndpoint = Annotated[str | None, typer.Option("--rdzv-endpoint", help="HOST:PORT where machines meet.")]
RdzvId = Annotated[str, typer.Option("--rdzv-id", help="Name of the job, the same on all machines.")]
MaxRestarts = Annotated[int, typer.Option("--max-restarts", min=0, help="Restart a failed group this often.")]
DATA = Path("data")


class DatasetName(StrEnum):
    ade20k = "ade20k"
    camvid = "camvid"
    cityscapes = "cityscapes"
    scenes = "scenes"


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)
    ] = False,
) -> None:
    """Distil semantic-segmentation networks: a big teacher teaches a small student."""
    if version:
        typer.echo(f"hwdkit {__version__}")
        raise typer.Exit


@app.command(epilog="Example:  hwdkit prepare-data ade20k --source ~/downloads/ADEChallengeData2016")
def prepare_data(
    name: Annotated[DatasetName, typer.Argument(help="Which dataset.")],
    source: Annotated[
        Path | None,
        typer.Option(help="Folder that you downloaded and unpacked [default: below the data root]."),
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
    train: Annotated[int | None, typer.Option(min=1, help="scenes: training images [default: 2000].")] = None,
    val: Annotated[int | None, typer.Option(min=1, help="scenes: validation images [default: 400].")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="scenes: seed of the generator [default: 0].")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes [default: one per core].")] = None,
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
    _print(result, as_json, lambda: command.render(result))


@app.command(epilog="Example:  hwdkit train-teacher --recipe ade20k-r101-teacher --gpus 4")
def train_teacher(
    recipe: MaybeRecipe = None,
    set_: Set = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run directory; must be new or empty.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue this run directory exactly.")] = None,
    auto_resume: Annotated[bool, typer.Option(help="Continue --out if it has a checkpoint.")] = False,
    init_from: Annotated[Path | None, typer.Option(help="Start from this checkpoint's weights.")] = None,
    data_root: DataRoot = DATA,
    max_time: Annotated[
        str | None, typer.Option(help="Stop cleanly after e.g. 90s, 45m, 11h30m (exit 75).")
    ] = None,
    gpus: Gpus = "auto",
    ranks: Ranks = None,
    nnodes: Nnodes = "1",
    rdzv_endpoint: RdzvEndpoint = None,
    rdzv_id: RdzvId = "hwdkit",
    max_restarts: MaxRestarts = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the teacher that a recipe describes."""
    _train(
        "train-teacher", recipe, set_, teacher=None, out=out, resume=resume, auto_resume=auto_resume,
        init_from=init_from, data_root=data_root, max_time=max_time, as_json=as_json, quiet=quiet,
        launch={"gpus": gpus, "ranks": ranks, "nnodes": nnodes, "rdzv_endpoint": rdzv_endpoint,
                "rdzv_id": rdzv_id, "max_restarts": max_restarts},
    )  # fmt: skip


@app.command(epilog="Example:  hwdkit distill --recipe ade20k-r18-hwd --set losses.hwd.beta=0.3")
def distill(
    recipe: MaybeRecipe = None,
    set_: Set = None,
    teacher: Annotated[
        str | None, typer.Option(help="The teacher's checkpoint or run directory; wins over the recipe.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run directory; must be new or empty.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue this run directory exactly.")] = None,
    auto_resume: Annotated[bool, typer.Option(help="Continue --out if it has a checkpoint.")] = False,
    init_from: Annotated[Path | None, typer.Option(help="Start from this checkpoint's weights.")] = None,
    data_root: DataRoot = DATA,
    max_time: Annotated[
        str | None, typer.Option(help="Stop cleanly after e.g. 90s, 45m, 11h30m (exit 75).")
    ] = None,
    gpus: Gpus = "auto",
    ranks: Ranks = None,
    nnodes: Nnodes = "1",
    rdzv_endpoint: RdzvEndpoint = None,
    rdzv_id: RdzvId = "hwdkit",
    max_restarts: MaxRestarts = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Distil a teacher into a student as a recipe says."""
    _train(
        "distill", recipe, set_, teacher=teacher, out=out, resume=resume, auto_resume=auto_resume,
        init_from=init_from, data_root=data_root, max_time=max_time, as_json=as_json, quiet=quiet,
        launch={"gpus": gpus, "ranks": ranks, "nnodes": nnodes, "rdzv_endpoint": rdzv_endpoint,
                "rdzv_id": rdzv_id, "max_restarts": max_restarts},
    )  # fmt: skip


def _train(
    command: str, name: str | None, overrides: list[str] | None, *, teacher: str | None, out: Path | None,
    resume: Path | None, auto_resume: bool, init_from: Path | None, data_root: Path, max_time: str | None,
    as_json: bool, quiet: bool, launch: dict[str, Any],
) -> None:  # fmt: skip
    from hwdkit.recipe.load import load

    if (name is None) == (resume is None):
        raise typer.BadParameter("give either --recipe (a new run) or --resume (an old one)")
    if auto_resume and out is None:
        raise typer.BadParameter("--auto-resume needs --out")
    if auto_resume and out is not None and (out / "checkpoints" / "last.pt").is_file():
        name, resume = None, out
    # Strict and torch-free: a typo in the recipe fails in milliseconds.
    loaded = load(name, overrides=overrides or []) if name is not None else None

    from hwdkit.commands import console, distill, train_teacher, training
    from hwdkit.commands.launch import Launch, is_worker
    from hwdkit.commands.launch import launch as start
    from hwdkit.engine.rundir import default_path

    plan = Launch(**launch)
    console.set_up_logging(quiet=quiet or not _prints())
    out = resume or out or default_path(loaded.name if loaded else "")
    if not is_worker() and (plan.processes() > 1 or plan.nnodes != "1"):
        arguments = (
            sys.argv[1:]
            if "--out" in sys.argv or "-o" in sys.argv or resume
            else [*sys.argv[1:], "--out", str(out)]
        )
        sys.exit(start(plan, arguments))
    if loaded is None:
        loaded = training.resumed_recipe(out, overrides or [])
    settings = training.Settings(
        data_root=data_root,
        out=out,
        resume=resume is not None,
        cpu=plan.cpu,
        max_seconds=_seconds(max_time),
        init_from=init_from,
    )
    if command == "distill":
        result = distill.run(loaded, settings, teacher=teacher)
    else:
        result = train_teacher.run(loaded, settings)
    if _prints():
        _print(result, as_json, lambda: training.render(result))


@app.command(epilog="Example:  hwdkit evaluate -c runs/my-run --split val --fail-under 0.70")
def evaluate(
    checkpoint: Checkpoint,
    split: Annotated[str, typer.Option(help="Which split of the dataset.")] = "val",
    dataset: Annotated[
        DatasetName | None,
        typer.Option(help="Another dataset with the same classes [default: the checkpoint's]."),
    ] = None,
    data_root: DataRoot = DATA,
    mode: Annotated[str, typer.Option(help="whole | slide")] = "whole",
    window: Annotated[tuple[int, int], typer.Option(help="slide: height and width of a window.")] = (
        512,
        512,
    ),
    stride: Annotated[tuple[int, int], typer.Option(help="slide: vertical and horizontal step.")] = (
        341,
        341,
    ),
    scales: Annotated[str, typer.Option(help="Comma-separated, e.g. 0.75,1.0,1.25.")] = "1.0",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")] = False,
    absent: Annotated[
        str, typer.Option(help="present (mean over classes that occur) | paper (absent = 0)")
    ] = "present",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N images; the result says so.")
    ] = None,
    save_masks: Annotated[Path | None, typer.Option(help="Write class maps as palette PNGs here.")] = None,
    save_overlays: Annotated[Path | None, typer.Option(help="Write colour overlays as PNGs here.")] = None,
    fail_under: Annotated[
        float | None, typer.Option(min=0, max=1, help="Exit 9 when mIoU (0..1) is below this.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Loader processes.")] = 2,
    gpus: Gpus = "auto",
    ranks: Ranks = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate a checkpoint: mIoU, mAcc, pixel accuracy and per-class IoU."""
    from hwdkit.commands import console
    from hwdkit.commands import evaluate as command
    from hwdkit.commands.launch import Launch, is_worker, launch

    plan = Launch(gpus=gpus, ranks=ranks)
    console.set_up_logging(quiet=quiet or not _prints())
    if not is_worker() and ranks is not None and ranks > 1:
        sys.exit(launch(plan, sys.argv[1:]))
    result = command.run(
        checkpoint,
        command.Options(
            split=split,
            dataset=dataset.value if dataset else None,
            data_root=data_root,
            mode=_one_of("--mode", mode, ("whole", "slide")),
            window=window,
            stride=stride,
            scales=_numbers("--scales", scales),
            flip=flip,
            absent=_one_of("--absent", absent, ("present", "paper")),
            limit=limit,
            save_masks=save_masks,
            save_overlays=save_overlays,
            workers=workers,
            cpu=plan.cpu,
        ),
    )
    if _prints():
        _print(result, as_json, lambda: command.render(result))
    command.check_gate(result, fail_under)


@app.command(epilog="Example:  hwdkit profile -r ade20k-r18-hwd --input 512x512 --latency")
def profile(
    recipe: MaybeRecipe = None,
    set_: Set = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", "-c", help="Profile a trained network instead of a recipe's."),
    ] = None,
    role: Annotated[
        str, typer.Option(help="student | teacher | both: which network of the recipe.")
    ] = "both",
    classes: Annotated[
        int | None, typer.Option(min=1, help="Number of classes [default: the dataset's].")
    ] = None,
    size: Annotated[
        list[str] | None, typer.Option("--input", help="HxW; may be repeated. [default: 512x512]")
    ] = None,
    counter: Annotated[
        str, typer.Option(help="all | torch (true MACs) | thop | paper (ignores dilation)")
    ] = "all",
    latency: Annotated[
        bool, typer.Option("--latency/--no-latency", help="Measure the time of a forward pass.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Batch size for the latency.")] = 1,
    warmup: Annotated[int, typer.Option(min=0, help="Passes before measuring.")] = 5,
    iterations: Annotated[int, typer.Option("--iters", min=1, help="Passes measured.")] = 20,
    gpus: Gpus = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Count parameters and multiply-adds, three ways; measure latency and memory."""
    from hwdkit.recipe.load import load

    if (recipe is None) == (checkpoint is None):
        raise typer.BadParameter("give either --recipe or --checkpoint")
    loaded = load(recipe, overrides=set_ or []) if recipe else None

    from hwdkit.commands import console
    from hwdkit.commands import profile as command

    console.set_up_logging(quiet=quiet)
    result = command.run(
        loaded,
        checkpoint,
        command.Options(
            role=_one_of("--role", role, ("student", "teacher", "both")),
            classes=classes,
            sizes=tuple(_size(text) for text in size or ["512x512"]),
            counter=_one_of("--counter", counter, ("all", "torch", "thop", "paper")),
            latency=latency,
            batch=batch,
            warmup=warmup,
            iterations=iterations,
            cpu=gpus == "0",
        ),
    )
    _print(result, as_json, lambda: command.render(result))


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
        Path | None, typer.Option("--out", "-o", help="Folder for the files [default: reports].")
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="Images shown in the HTML page.")] = 6,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N images; the report says so.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Loader processes.")] = 2,
    gpus: Gpus = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Where distillation helped: class IoU of every network, TD, NTD and TD/NTD per class."""
    from hwdkit.commands import console
    from hwdkit.commands import per_class_report as command

    console.set_up_logging(quiet=quiet)
    named = dict(_named(text) for text in compare or [])
    order = _one_of("--sort", sort, ("name", "share", "iou", "gap", "td-ntd"))
    wanted = formats or ["table", "json", "csv", "md", "html"]
    for name in wanted:
        _one_of("--format", name, ("table", "json", "csv", "md", "html"))
    report, files = command.run(
        command.Options(
            student=student,
            teacher=teacher,
            baseline=baseline,
            compare=named,
            split=split,
            data_root=data_root,
            temperature=temperature,
            absent=_one_of("--absent", absent, ("present", "paper")),
            sort=order,
            formats=tuple(wanted),
            out=out or Path("reports"),
            examples=examples,
            limit=limit,
            workers=workers,
            cpu=gpus == "0",
        )
    )
    _print(
        {**report.to_dict(), "files": [str(path) for path in files]},
        as_json,
        lambda: command.render(report, order),
    )


@app.command(epilog="Example:  hwdkit demo --out my-demo")
def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for data, runs and report; must be new or empty.")
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of all runs.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A minute instead of six: checks the road, shows nothing.")
    ] = False,
    gpus: Gpus = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The whole road in minutes: data, teacher, baseline, CWD, HWD, evaluation, report."""
    from hwdkit.commands import console
    from hwdkit.commands import demo as command

    console.set_up_logging(quiet=quiet)
    result = command.run(out, seed=seed, quick=quick, cpu=gpus == "0")
    _print(result, as_json, lambda: command.render(result))


recipes_app = typer.Typer(help="List, show, validate and copy recipes.", no_args_is_help=True)
app.add_typer(recipes_app, name="recipes")


@recipes_app.command("list", epilog="Example:  hwdkit recipes list --dataset ade20k")
def recipes_list(
    dataset: Annotated[str | None, typer.Option(help="Only recipes for this dataset.")] = None,
    as_json: Json = False,
) -> None:
    """List the recipes that can be named."""
    from hwdkit.commands import recipes as command

    rows = [row for row in command.list_recipes() if dataset in (None, row["dataset"])]
    _print({"recipes": rows}, as_json, lambda: command.render_list(rows))


@recipes_app.command("show", epilog="Example:  hwdkit recipes show ade20k-r18-hwd --resolved")
def recipes_show(
    name: Annotated[str, typer.Argument(help="A recipe's name or path.")],
    resolved: Annotated[
        bool, typer.Option("--resolved", help="With all bases and defaults written out.")
    ] = False,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Print a recipe."""
    from hwdkit.commands import recipes as command

    if as_json:
        _print({"recipe": command.show_data(name, overrides=set_ or [])}, True, str)
    else:
        sys.stdout.write(command.show(name, resolved=resolved, overrides=set_ or []))


@recipes_app.command("validate", epilog="Example:  hwdkit recipes validate my/*.yaml")
def recipes_validate(
    names: Annotated[list[str], typer.Argument(help="Recipes' names or paths.")], as_json: Json = False
) -> None:
    """Check recipes completely; exit 3 with every error."""
    from hwdkit.commands import recipes as command

    valid = command.validate(names)
    _print(
        {"valid": valid}, as_json, lambda: f"{len(valid)} recipe{'s are' if len(valid) != 1 else ' is'} valid"
    )


@recipes_app.command(
    "copy", epilog="Example:  hwdkit recipes copy ade20k-r18-hwd my/ade20k-mine.yaml --resolved"
)
def recipes_copy(
    name: Annotated[str, typer.Argument(help="A recipe's name or path.")],
    destination: Annotated[Path, typer.Argument(help="A folder, or a new file.")],
    resolved: Annotated[
        bool, typer.Option("--resolved", help="One file with everything written out.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy a recipe, to change it; nothing is overwritten."""
    from hwdkit.commands import recipes as command

    written = [str(path) for path in command.copy(name, destination, resolved=resolved)]
    _print({"written": written}, as_json, lambda: "\n".join(written))


@recipes_app.command("schema", epilog="Example:  hwdkit recipes schema > recipe.schema.json")
def recipes_schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from hwdkit.commands import recipes as command

    sys.stdout.write(json.dumps(command.schema(), indent=2) + "\n")


def _prints() -> bool:
    """Of several processes only the first speaks."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def _print(result: Any, as_json: bool, render: Callable[[], Any]) -> None:
    if as_json:
        if isinstance(result, dict) and "status" not in result:
            result = {"schema_version": 1, "status": "ok", **result}
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
        return
    from hwdkit.commands.console import print_result

    print_result(render())


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise typer.BadParameter(f"{option}: {value!r} is not one of {', '.join(allowed)}")
    return value


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {text!r} is not a comma-separated list of numbers") from error
    if min(numbers) <= 0:
        raise typer.BadParameter(f"{option}: every number must be positive")
    return numbers


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and min(int(height), int(width)) >= 32):
        raise typer.BadParameter(f"--input: {text!r} is not HEIGHTxWIDTH with at least 32 pixels a side")
    return int(height), int(width)


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise typer.BadParameter(f"--compare: {text!r} is not NAME=CHECKPOINT")
    return name, Path(path)


def _seconds(text: str | None) -> float | None:
    """'11h30m' -> 41400.0; a bare number is seconds."""
    if text is None:
        return None
    import re

    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text)
    if not text or found is None or not any(found.groups()):
        raise typer.BadParameter(f"--max-time: {text!r} is not a duration such as 90s, 45m or 11h30m")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(3600 * hours + 60 * minutes + seconds)


def main() -> NoReturn:
    """Entry point: one place where an error becomes a message and an exit code."""
    try:
        app()
    except HwdkitError as error:
        _complain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("cancelled\n")
        sys.exit(130)
    sys.exit(0)


def _complain(error: HwdkitError) -> None:
    if os.environ.get("HWDKIT_DEBUG"):
        import traceback

        traceback.print_exception(error)
    who = "" if _prints() else f" (rank {os.environ.get('RANK', os.environ.get('SLURM_PROCID'))})"
    sys.stderr.write(f"error[{error.kind}]{who}: {error}\n")
    if "--json" in sys.argv[1:] and _prints():
        details = {"kind": error.kind, "message": error.message, "where": error.where, "hint": error.hint}
        document = {"schema_version": 1, "status": "error", "exit_code": error.exit_code, "error": details}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
