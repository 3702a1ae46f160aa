"""The terminal: logs and progress on stderr, bars for people and plain lines for pipes."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, RenderableType
from rich.logging import RichHandler
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from hwdkit.errors import EnvironmentFailure

logger = logging.getLogger("hwdkit")
stderr = Console(stderr=True)
stdout = Console()

LONG = 200
"""With fewer items, a job is over before a line of the log would help."""


def set_up_logging(*, quiet: bool = False, verbose: bool = False) -> None:
    """Send hwdkit's log to stderr: bare lines, so that a pipe reads what a person reads."""
    logger.handlers.clear()
    logger.propagate = False
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    handler: logging.Handler
    if stderr.is_terminal:
        handler = RichHandler(
            console=stderr, show_time=False, show_level=False, show_path=False, highlighter=None
        )
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.WARNING if quiet else logging.NOTSET)  # a run's log file gets everything
    logger.addHandler(handler)


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Copy the log to a file, with times."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def shows_progress() -> bool:
    """Whether stderr is a terminal, without --quiet."""
    return stderr.is_terminal and not any(handler.level > logging.INFO for handler in logger.handlers)


@contextmanager
def progress(title: str, total: int, *, done: int = 0, show: bool = True) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, nothing in a pipe (the log has its own lines).

    Yields:
        A function to call with how much is done by now.
    """
    if not (show and shows_progress()):
        yield lambda _: None
        return
    with _bars() as bars:
        task = bars.add_task(title, total=total, completed=done)
        yield lambda completed: bars.update(task, completed=completed)


@contextmanager
def progress_of_jobs() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each of several jobs on a terminal; in a pipe a line of the log at every tenth of a long one.

    Yields:
        A function to call with a job's name, how much is done, and of how much.
    """
    if not shows_progress():
        tenths: dict[str, int] = {}

        def write(job: str, done: int, total: int) -> None:
            tenth = 10 * done // total
            if total >= LONG and tenth > tenths.get(job, 0):
                tenths[job] = tenth
                logger.info("%s: %d of %d", job, done, total)

        yield write
        return
    with _bars() as bars:
        tasks: dict[str, TaskID] = {}

        def draw(job: str, done: int, total: int) -> None:
            if job not in tasks:
                tasks[job] = bars.add_task(job, total=total)
            bars.update(tasks[job], completed=done)

        yield draw


def _bars() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=stderr, transient=True)


def print_result(result: RenderableType) -> None:
    """Print a result on stdout; in a pipe as wide as it needs, so that no column is cut."""
    if isinstance(result, str):
        write(result if result.endswith("\n") or not result else result + "\n")
    elif stdout.is_terminal:
        stdout.print(result)
    else:
        text = io.StringIO()
        page = Console(file=text, width=10_000, color_system=None, force_terminal=False)
        page.width = max(1, Measurement.get(page, page.options, result).maximum)
        page.print(result)
        lines = [line.rstrip() for line in text.getvalue().splitlines()]
        write("\n".join(lines).strip("\n") + "\n")


def write(text: str) -> None:
    """Write to stdout; a reader that has left, like `head`, is no failure.

    Raises:
        EnvironmentFailure: stdout is closed, or its disk is full.
    """
    if sys.stdout is None:
        raise EnvironmentFailure("stdout is closed: the result has nowhere to go")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # Python flushes stdout once more on its way out, which must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise EnvironmentFailure(f"cannot write to stdout: {error.strerror}") from error
