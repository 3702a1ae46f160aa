"""How far a long job is: a bar at a terminal, elsewhere a line of the log now and then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from hwdkit.terminal.console import logger, shows_progress, stderr

LONG = 200
"""Below this many items, a job is over before a line of the log would help."""


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Yield what to call with a job's name, how much is done, and of how much."""
    if not shows_progress():
        tenths: dict[str, int] = {}

        def write(job: str, done: int, total: int) -> None:
            tenth = 10 * done // total
            if total >= LONG and tenth > tenths.get(job, 0):
                tenths[job] = tenth
                logger.info("%s: %d of %d", job, done, total)

        yield write
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def draw(job: str, done: int, total: int) -> None:
            if job not in tasks:
                tasks[job] = bars.add_task(job, total=total)
            bars.update(tasks[job], completed=done)

        yield draw
