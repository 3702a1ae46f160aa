"""The terminal: logs and progress on stderr, bars for people and plain lines for pipes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

logger = logging.getLogger("hwdkit")
stderr = Console(stderr=True)
stdout = Console()


def set_up_logging(*, quiet: bool = False, verbose: bool = False) -> None:
    """Send hwdkit's log to stderr: bare lines, so that a pipe reads what a person reads."""
    logger.handlers.clear()
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    handler: logging.Handler
    if stderr.is_terminal:
        handler = RichHandler(
            console=stderr, show_time=False, show_level=False, show_path=False, highlighter=None
        )
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Copy the log to a file, with times."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


@contextmanager
def progress(title: str, total: int, *, done: int = 0, show: bool = True) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, nothing in a pipe (the log has its own lines).

    Yields:
        A function that is told how much is done by now.
    """
    if not (show and stderr.is_terminal and logger.isEnabledFor(logging.INFO)):
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task(title, total=total, completed=done)
        yield lambda completed: bar.update(task, completed=completed)


def print_result(table: Table | str) -> None:
    """Print a result on stdout; in a pipe as wide as it needs, so that no column is cut."""
    if isinstance(table, str):
        sys.stdout.write(table if table.endswith("\n") else table + "\n")
        return
    console = stdout if stdout.is_terminal else Console(width=200)
    console.print(table)
