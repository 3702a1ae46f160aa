"""hwdkit visualize panels | activations | embeddings | weights | smoothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwdkit.cli.old_options import DATA, DataRoot, Json, OneGpu, Quiet, app
from hwdkit.cli.visualize_options import (
    Baseline,
    Classes,
    Compare,
    Form,
    Images,
    Limit,
    Longest,
    Out,
    Overwrite,
    Seed,
    Split,
    Student,
    Tau,
    Teacher,
    Workers,
)
from hwdkit.commands.visualize.arguments import Given, figure_file
from hwdkit.errors import UsageError
from hwdkit.terminal import exits, paths, values

visualize_app = typer.Typer(
    help="Figures of what distillation did: predictions, activation maps, embeddings, channel weights.",
    no_args_is_help=True,
    epilog="Example:  hwdkit visualize panels --student runs/hwd --teacher runs/teacher --worst 4",
)
app.add_typer(visualize_app, name="visualize")


@visualize_app.command(
    epilog="Example:  hwdkit visualize panels --teacher runs/teacher --baseline runs/baseline "
    "--compare cwd=runs/cwd --compare hwd=runs/hwd --best 4 -o panels.pdf"
)
def panels(
    student: Student = None,
    teacher: Teacher = None,
    baseline: Baseline = None,
    compare: Compare = None,
    images: Images = None,
    worst: Annotated[
        int | None, typer.Option(min=1, max=20, help="The images where student and teacher differ most.")
    ] = None,
    best: Annotated[
        int | None, typer.Option(min=1, max=20, help="Where the student gains most over the baseline.")
    ] = None,
    score: Annotated[str, typer.Option(help="miou | pixel-accuracy: below each panel, and for --best.")] = (
        "miou"
    ),
    longest: Longest = 320,
    split: Split = "val",
    data_root: DataRoot = DATA,
    limit: Limit = None,
    out: Out = None,
    form: Form = None,
    overwrite: Overwrite = False,
    workers: Workers = 2,
    gpus: OneGpu = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Images, ground truth and what each network sees, side by side; without a choice the first 4."""
    figure = figure_file(out, form, name="panels", overwrite=overwrite)
    if sum(choice is not None for choice in (images, worst, best)) > 1:
        raise UsageError("--images, --worst and --best exclude each other")
    shown = values.one_of("--score", score, ("miou", "pixel-accuracy")).replace("-", "_")
    networks = _networks(student, teacher, baseline, compare)
    given = _given(networks, (split, data_root, limit), gpus=gpus, workers=workers, quiet=quiet)

    from hwdkit.commands.visualize import panels as command

    options = command.Options(given, figure, tuple(images or ()), worst, best, score=shown, longest=longest)
    result = command.run(options)
    exits.print_result(result, as_json, lambda: command.render(result))


@visualize_app.command(
    epilog="Example:  hwdkit visualize activations --classes road,car --teacher runs/teacher "
    "--baseline runs/baseline --student runs/hwd"
)
def activations(
    classes: Classes = None,
    student: Student = None,
    teacher: Teacher = None,
    baseline: Baseline = None,
    compare: Compare = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--images",
            metavar="INDEX|NAME,…",
            help="Which images. May be repeated.",
            show_default="the first with all classes",
        ),
    ] = None,
    tau: Tau = 4.0,
    longest: Longest = 320,
    split: Split = "val",
    data_root: DataRoot = DATA,
    out: Out = None,
    form: Form = None,
    overwrite: Overwrite = False,
    gpus: OneGpu = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Where in the image each network's channel of a class is active: what channel-wise losses compare."""
    figure = figure_file(out, form, name="activations", overwrite=overwrite)
    if not classes:
        raise UsageError("--classes missing", hint="name some, such as --classes road,car")
    networks = _networks(student, teacher, baseline, compare)
    given = _given(networks, (split, data_root, None), gpus=gpus, workers=0, quiet=quiet)

    from hwdkit.commands.visualize import activations as command

    options = command.Options(given, figure, tuple(classes), tuple(images or ()), tau=tau, longest=longest)
    result = command.run(options)
    exits.print_result(result, as_json, lambda: command.render(result))


@visualize_app.command(
    epilog="Example:  hwdkit visualize embeddings --baseline runs/baseline --student runs/hwd -o tsne.png"
)
def embeddings(
    student: Student = None,
    teacher: Teacher = None,
    baseline: Baseline = None,
    compare: Compare = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--classes",
            metavar="NAME,…",
            help="Which classes. May be repeated.",
            show_default="all, or the 20 largest",
        ),
    ] = None,
    per_class: Annotated[int, typer.Option(min=5, max=2000, help="Pixels of each class at most.")] = 100,
    perplexity: Annotated[float, typer.Option(min=2, max=500, help="Of t-SNE.")] = 30.0,
    pca: Annotated[int, typer.Option(min=2, max=512, help="Dimensions that t-SNE starts from.")] = 50,
    seed: Seed = 0,
    split: Split = "val",
    data_root: DataRoot = DATA,
    limit: Limit = None,
    out: Out = None,
    form: Form = None,
    overwrite: Overwrite = False,
    workers: Workers = 2,
    gpus: OneGpu = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """t-SNE of the pixels' features before the classifier: how far apart the classes lie."""
    figure = figure_file(out, form, name="embeddings", overwrite=overwrite)
    networks = _networks(student, teacher, baseline, compare)
    given = _given(networks, (split, data_root, limit), gpus=gpus, workers=workers, quiet=quiet)

    from hwdkit.commands.visualize import embeddings as command

    options = command.Options(
        given, figure, tuple(classes or ()), per_class=per_class, perplexity=perplexity, pca=pca, seed=seed
    )
    result = command.run(options)
    exits.print_result(result, as_json, lambda: command.render(result))


@visualize_app.command(
    epilog="Example:  hwdkit visualize weights --teacher runs/teacher --student runs/hwd --hwd mu=1"
)
def weights(
    student: Student = None,
    teacher: Teacher = None,
    baseline: Baseline = None,
    compare: Compare = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[STEP=]CHECKPOINT",
            help="One student at several steps instead: weights over training. May be repeated.",
        ),
    ] = None,
    hwd: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="An option of the loss, as in a recipe. May be repeated.",
            show_default="those of the student's run",
        ),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--classes", metavar="NAME,…", help="Draw these only.", show_default="the --top"),
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Classes drawn.", show_default="40; with --at 8")
    ] = None,
    split: Split = "val",
    data_root: DataRoot = DATA,
    limit: Limit = None,
    out: Out = None,
    form: Form = None,
    overwrite: Overwrite = False,
    workers: Workers = 2,
    gpus: OneGpu = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Which channels HWD pushes: each class's mean weight, at the end or over training."""
    figure = figure_file(out, form, name="weights", overwrite=overwrite)
    if teacher is None:
        raise UsageError("--teacher missing", hint="weights come from the difference to a teacher")
    if at and (student or baseline or compare):
        raise UsageError("--at shows one student over training: it excludes --student, --baseline, --compare")
    networks = _networks(student, teacher, baseline, compare)
    given = _given(networks, (split, data_root, limit), gpus=gpus, workers=workers, quiet=quiet)

    from hwdkit.commands.visualize import weights as command

    options = command.Options(given, figure, tuple(at or ()), tuple(hwd or ()), tuple(classes or ()), top=top)
    result = command.run(options)
    exits.print_result(result, as_json, lambda: command.render(result))


@visualize_app.command(epilog="Example:  hwdkit visualize smoothing --beta 0.01,0.1,0.9 -o smoothing.svg")
def smoothing(
    beta: Annotated[str, typer.Option(help="Comma-separated, each between 0 and 1.")] = "0.01,0.1,0.5,0.9",
    low: Annotated[float, typer.Option(min=-10, max=10, help="First normalised divergence.")] = -2.0,
    high: Annotated[float, typer.Option(min=-10, max=10, help="Last one.")] = 3.0,
    points: Annotated[int, typer.Option(min=2, max=10_000, help="How many between them.")] = 101,
    out: Out = None,
    form: Form = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """HWD's smoothing, Eq. 7: how much a channel weighs by its normalised divergence; needs no network."""
    figure = figure_file(out, form, name="smoothing", overwrite=overwrite)
    try:
        betas = tuple(dict.fromkeys(float(part) for part in beta.split(",")))
    except ValueError:
        raise UsageError(f"--beta: {beta!r} is not a list of numbers such as 0.1,0.5") from None
    if not all(0 < value < 1 for value in betas):
        raise UsageError(f"--beta {beta}: each must lie within 0 and 1, both excluded")
    if not low < high:
        raise UsageError(f"--low {low:g} is not below --high {high:g}")

    from hwdkit.commands.visualize import smoothing as command

    result = command.run(betas, (low, high, points), figure)
    exits.print_result(result, as_json, lambda: command.render(result))


Networks = tuple[Path | None, Path | None, Path | None, dict[str, Path]]


def _networks(
    student: Path | None, teacher: Path | None, baseline: Path | None, compare: list[str] | None
) -> Networks:
    for option, path in (("--student", student), ("--teacher", teacher), ("--baseline", baseline)):
        if path is not None:
            paths.require_possible(option, path)
    return student, teacher, baseline, values.compared(compare or [])


def _given(
    networks: Networks, data: tuple[str, Path, int | None], *, gpus: str, workers: int, quiet: bool
) -> Given:
    """What the command line names, for the commands; the log is set up."""
    student, teacher, baseline, compare = networks
    split, root, limit = data
    paths.require_folder("--data-root", root)
    plan = values.launch_plan(gpus=gpus)

    from hwdkit.terminal import console

    console.set_up_logging(quiet=quiet)
    cpu = values.one_device(plan)
    return Given(student, teacher, baseline, compare, split, root, limit, workers, cpu)
