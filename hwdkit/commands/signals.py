"""Stopping in good order: SIGTERM, Ctrl-C and a time limit all mean "finish this step, save, leave"."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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

    def error(self, resume: str) -> HwdkitError:
        """The exit that this stop means: 130 for Ctrl-C, 75 for everything a scheduler does."""
        kind = Cancelled if self.reason == "Ctrl-C" else Interrupted
        return kind(
            f"stopped ({self.reason or 'another rank was stopped'}), saved", hint=f"continue: {resume}"
        )

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch SIGTERM and the first Ctrl-C; a second Ctrl-C leaves at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGINT and self.reason == "Ctrl-C":
                raise KeyboardInterrupt
            # The first reason stays, except that a person at the keyboard outranks a scheduler or a clock.
            if number == signal.SIGINT or not self.reason:
                self.reason = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
