"""What the figures of hwdkit visualize are told: networks, images, where they go. No torch here."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

from hwdkit.errors import UsageError
from hwdkit.terminal import paths

Form = Literal["png", "svg", "pdf"]


@dataclass(frozen=True)
class Given:
    """The networks and the images that the command line names."""

    student: Path | None = None
    teacher: Path | None = None
    baseline: Path | None = None
    compare: dict[str, Path] = field(default_factory=dict)
    split: str = "val"
    data_root: Path = Path("data")
    limit: int | None = None
    workers: int = 2
    cpu: bool = False


@dataclass(frozen=True)
class FigureFile:
    """A file that a figure may be written to, and its form."""

    path: Path
    form: Form


def figure_file(out: Path | None, form: str | None, *, name: str, overwrite: bool) -> FigureFile:
    """Decide on file and form.

    Args:
        out: --out; None is `name` with the form's suffix, in the working directory.
        form: --format; None is what the suffix says, or png.
        name: what the figure is called by default, without suffix.
        overwrite: whether a file that exists may be replaced.

    Raises:
        UsageError: an unknown suffix or form, two that contradict each other, or a file that exists.
        EnvironmentFailure: its folder cannot be written.
    """
    forms = get_args(Form)
    if form is not None and form not in forms:
        raise UsageError(f"--format: {form!r} is not one of {', '.join(forms)}")
    path = paths.require_possible("--out", out or Path(f"{name}.{form or 'png'}"))
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in forms:
        raise UsageError(f"--out: {path} ends in none of {', '.join(f'.{known}' for known in forms)}")
    if form is not None and form != suffix:
        raise UsageError(f"--format {form} contradicts --out {path}", hint="leave --format out")
    if path.is_dir():
        raise UsageError(f"--out: {path} is a folder")
    if not overwrite and os.path.lexists(path):
        raise UsageError(f"--out: {path} exists", hint="name a new file, or add --overwrite")
    if len(os.fsencode(path.name)) > paths.LONGEST_NAME:
        raise UsageError(f"--out: a name of more than {paths.LONGEST_NAME} bytes; name it shorter")
    paths.require_writable("--out", path.parent, path=path)
    return FigureFile(path, cast(Form, suffix))
