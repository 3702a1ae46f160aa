"""Clean stops: SIGTERM, Ctrl-C and a time limit mean "finish this step, save, leave".

Before there is anything to save they mean "leave". No torch here.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from hwdkit.errors import Cancelled, HwdkitError, Interrupted


class StopRequest:
    """Whether and why training should end after the present step.

    Args:
        max_seconds: wall-clock limit from now on, or None.
    """

    def __init__(self, max_seconds: float | None = None) -> None:
        self.reason = ""
        self._deadline = time.monotonic() + max_seconds if max_seconds is not None else None

    def __call__(self) -> bool:
        if not self.reason and self._deadline is not None and time.monotonic() >= self._deadline:
            self.reason = "the time limit is reached"
        return bool(self.reason)

    def error(self, resume: str | None) -> HwdkitError:
        """The exit that this stop means: 130 for Ctrl-C, 75 for everything a scheduler does.

        Args:
            resume: what continues; None: nothing was saved.
        """
        kind = Cancelled if self.reason == "Ctrl-C" else Interrupted
        why = f"stopped ({self.reason or 'another rank was stopped'})"
        if resume is None:
            return kind(f"{why}, nothing saved")
        return kind(f"{why}, saved", hint=f"continue: {resume}")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch SIGTERM and the first Ctrl-C; a second Ctrl-C leaves at once."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGINT and self.reason == "Ctrl-C":
                raise KeyboardInterrupt
            # The first reason stays, except that a person at the keyboard outranks a scheduler or a clock.
            if number == signal.SIGINT or not self.reason:
                self.reason = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"

        with _answered(on_signal):
            yield


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end a command and its processes; what needs time to save listens itself.

    An exception would not do: third-party modules catch whatever is raised while they are imported.
    """
    from hwdkit.terminal import console, exits, launch  # noqa: F401  an interrupted import could not be reported

    def leave(number: int, frame: FrameType | None) -> None:
        again = "run the same command again, with --auto-resume"
        stopped = Interrupted("stopped (SIGTERM)", hint=again)
        code = exits.complain(Cancelled("cancelled") if number == signal.SIGINT else stopped)
        if "multiprocessing" in sys.modules:
            for process in sys.modules["multiprocessing"].active_children():
                process.kill()  # they ignore Ctrl-C and would stay
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)

    with _answered(leave):
        yield


@contextmanager
def _answered(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM, which only the main thread can; restore the earlier handlers afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
