"""hwdkit train-teacher and hwdkit distill: one run, from a recipe to a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from hwdkit.errors import UsageError
from hwdkit.terminal import launch, signals, values
from hwdkit.terminal.command import Result, command, options
from hwdkit.terminal.options import DATA, DataRoot, Gpus, MaybeRecipe, Ranks, Set

if TYPE_CHECKING:
    from hwdkit.recipe.schema import Recipe


@options
class Train:
    """Options of both commands; the recipe that `prepared` returns says which network is trained."""

    recipe: MaybeRecipe = None
    set_: Set = None
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run directory; must be new or empty.")] = (
        None
    )
    resume: Annotated[Path | None, typer.Option(help="Continue this run directory exactly.")] = None
    auto_resume: Annotated[
        bool, typer.Option("--auto-resume", help="Continue --out if it has a checkpoint.")
    ] = False
    init_from: Annotated[Path | None, typer.Option(help="Start from this checkpoint's weights.")] = None
    data_root: DataRoot = DATA
    max_time: Annotated[
        str | None, typer.Option(help="Stop cleanly after e.g. 90s, 45m, 11h30m (exit 75).")
    ] = None
    gpus: Gpus = "auto"
    ranks: Ranks = None
    nnodes: Annotated[str, typer.Option(help="Number of machines: N or MIN:MAX.")] = "1"
    rdzv_endpoint: Annotated[str | None, typer.Option(help="HOST:PORT where machines meet.")] = None
    rdzv_id: Annotated[str, typer.Option(help="Name of the job, the same on all machines.")] = "hwdkit"
    max_restarts: Annotated[int, typer.Option(min=0, help="Restart a failed group this often.")] = 0
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show the networks, the losses and how their maps meet; train nothing."
        ),
    ] = False

    NEW: ClassVar[tuple[str, ...]] = ("out", "init_from", "dry_run")
    """Fields that belong to a new run."""

    def __post_init__(self) -> None:
        if (self.recipe is None) == (self.resume is None):
            raise UsageError("give either --recipe (a new run) or --resume (an old one)")
        if self.auto_resume and self.out is None:
            raise UsageError("--auto-resume needs --out: the run directory to continue, or to begin")
        for name in self.NEW if self.resume is not None else ():
            if getattr(self, name) not in (None, False):
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} means nothing with --resume, which continues a run unchanged")
        values.seconds(self.max_time)
        self.launch_plan()

    def launch_plan(self) -> launch.Launch:
        return values.launch_plan(
            gpus=self.gpus,
            ranks=self.ranks,
            nnodes=self.nnodes,
            rdzv_endpoint=self.rdzv_endpoint,
            rdzv_id=self.rdzv_id,
            max_restarts=self.max_restarts,
        )

    def prepared(self, recipe: Recipe) -> Recipe:
        """The recipe as this command reads it, which says what is trained."""
        raise NotImplementedError

    @signals.leaving_at_once()
    def run(self) -> Result | None:
        from hwdkit.recipe.load import load

        # Strict and torch-free: a typo in the recipe fails in milliseconds.
        recipe = load(self.recipe, overrides=self.set_ or ()) if self.recipe is not None else None

        from hwdkit.commands.train import sessions

        return sessions.dry(self, recipe) if self.dry_run and recipe else sessions.train(self, recipe)


@command(example="hwdkit train-teacher --recipe ade20k-r101-teacher --gpus 4")
class TrainTeacher(Train):
    """Train the teacher that a recipe describes."""

    def prepared(self, recipe: Recipe) -> Recipe:
        return recipe.teacher_alone()


@command(example="hwdkit distill --recipe ade20k-r18-hwd --set losses.hwd.beta=0.3")
class Distill(Train):
    """Distil a teacher into a student as a recipe says."""

    teacher: Annotated[
        str | None, typer.Option(help="The teacher's checkpoint or run directory; wins over the recipe.")
    ] = None

    NEW = ("out", "init_from", "teacher", "dry_run")

    def prepared(self, recipe: Recipe) -> Recipe:
        return recipe.student_taught(by=self.teacher)
