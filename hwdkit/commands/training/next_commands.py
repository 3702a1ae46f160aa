"""What to type after a run, with its real paths."""

from __future__ import annotations

import shlex
from pathlib import Path


def after_training(
    run_dir: Path, *, trains_teacher: bool, teacher: Path | None, data_root: Path
) -> list[str]:
    """Command lines for a shell, the likeliest first.

    Args:
        run_dir: of the finished run.
        trains_teacher: whether it trained a teacher.
        teacher: the checkpoint that a student learned from, or None.
        data_root: where its dataset lies.
    """
    run = shlex.quote(str(run_dir))
    data = "" if data_root == Path("data") else f" --data-root {shlex.quote(str(data_root))}"
    lines = [f"hwdkit evaluate --checkpoint {run}{data}"]
    if trains_teacher:
        return [f"hwdkit distill --recipe NAME --teacher {run}{data}", *lines]
    if teacher is not None:
        pair = f"--student {run} --teacher {shlex.quote(str(teacher))}"
        lines.append(f"hwdkit per-class-report {pair}{data}")
    return [*lines, f"hwdkit compare OTHER_RUN {run}{data}"]
