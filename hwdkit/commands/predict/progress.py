"""How far a long piece of work is: a bar for people, in a pipe a line now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.markup import escape

from hwdkit.report.render import printable
from hwdkit.terminal import console

log = logging.getLogger("hwdkit")

SECONDS_BETWEEN_LINES = 30.0


@contextmanager
def progress(title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show progress on stderr: a bar at a terminal, else every `SECONDS_BETWEEN_LINES` a line.

    Args:
        title: what is worked on; a file's name may hold anything.
        total: how many there are; 0 = unknown.
        unit: what is counted, e.g. "frames".

    Yields:
        A function to call with the number done by now.
    """
    title = printable(title)
    began = reported = time.monotonic()

    with console.progress(escape(title), total) as advance:

        def report(done: int) -> None:
            nonlocal reported
            advance(done)
            now = time.monotonic()
            if done and now - reported >= SECONDS_BETWEEN_LINES and not console.stderr.is_terminal:
                speed = done / max(now - began, 1e-9)
                of, left = "", ""
                if total > done:
                    of, left = f" of {total}", f", about {(total - done) / speed:.0f} s left"
                log.info("%s: %d%s %s, %.2f %s/s%s", title, done, of, unit, speed, unit, left)
                reported = now

        yield report
