"""Options that several commands share, as the types of their fields. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hwdkit.datasets.table import DATASETS
from hwdkit.terminal import paths, values
from hwdkit.terminal.command import options
from hwdkit.types import NamedPath

Recipe = Annotated[str, typer.Option("--recipe", "-r", help="A recipe's name, or a path to a YAML file.")]
MaybeRecipe = Annotated[
    str | None, typer.Option("--recipe", "-r", help="A recipe's name, or a path to a YAML file.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a key of the recipe; may be repeated."),
]
DataRoot = Annotated[
    Path, typer.Option("--data-root", envvar="HWDKIT_DATA", help="Folder that holds the prepared datasets.")
]
DATA = Path("data")
if TYPE_CHECKING:
    KnownDataset = str
else:
    KnownDataset = Literal[tuple(DATASETS)]
    """A dataset that hwdkit knows, as a choice that typer checks."""
Checkpoint = Annotated[
    Path,
    typer.Option(
        "--checkpoint", "-c", help="A student.safetensors / teacher.safetensors, or a run directory."
    ),
]
Split = Annotated[str, typer.Option("--split", help="Which split of the dataset.")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Only the first N images; the result says so.")
]
Absent = Annotated[
    Literal["present", "paper"],
    typer.Option("--absent", help="present (mean over classes that occur) | paper (absent = 0)"),
]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Loader processes.")]
Gpus = Annotated[str, typer.Option("--gpus", help="auto (all visible), a number, or 0 for the CPU.")]
OneGpu = Annotated[str, typer.Option("--gpus", help="auto (one if there is one), 1, or 0 for the CPU.")]
Ranks = Annotated[
    int | None,
    typer.Option("--ranks", min=1, help="Processes on this machine.", show_default="one per GPU"),
]


@options
class Networks:
    """Trained networks of one dataset, and the split that they are shown."""

    student: Annotated[
        Path | None, typer.Option(help="Checkpoint or run.", show_default="the last --compare")
    ] = None
    teacher: Annotated[Path | None, typer.Option(help="Checkpoint or run.")] = None
    baseline: Annotated[Path | None, typer.Option(help="The student trained alone: checkpoint or run.")] = (
        None
    )
    compare: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=CHECKPOINT", help="One more network; may be repeated."),
    ] = None
    split: Split = "val"
    data_root: DataRoot = DATA
    gpus: OneGpu = "auto"

    def __post_init__(self) -> None:
        for name, path in (("student", self.student), ("teacher", self.teacher), ("baseline", self.baseline)):
            if path is not None:
                paths.require_possible(f"--{name}", path)
        values.compared(self.compare or ())
        paths.require_folder("--data-root", self.data_root)
        values.launch_plan(gpus=self.gpus)

    def cpu(self) -> bool:
        """Whether to use the CPU; a GPU that is asked for must be there."""
        return values.one_device(values.launch_plan(gpus=self.gpus))

    def named(self, *, student: str = "student") -> list[NamedPath]:
        """Every network in the order of tables and figures, the student last.

        Without --student, the last --compare is the student, under its own name.

        Args:
            student: what --student is called.
        """
        students = values.compared(self.compare or ()) | ({student: self.student} if self.student else {})
        named = [NamedPath("teacher", "teacher", self.teacher)] if self.teacher else []
        named += [NamedPath("baseline", "baseline", self.baseline)] if self.baseline else []
        named += [NamedPath(name, "compare", path) for name, path in students.items()]
        return [*named[:-1], named[-1]._replace(role="student")] if students else named
