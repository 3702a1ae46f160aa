"""What a sweep shows while it works: a table that lives on a terminal, a line a run in a pipe."""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.text import Text

from hwdkit.commands.sweep.plan import Job, Plan
from hwdkit.commands.sweep.runs import Outcome, Pool, state
from hwdkit.engine.rundir import RunDir
from hwdkit.report.render import printable
from hwdkit.report.table import Table
from hwdkit.terminal import console

log = logging.getLogger("hwdkit")

MOST_ROWS = 20
REFRESH = 1.0
"""Seconds between two looks at how far the runs are."""


class Progress:
    """Follows a pool.

    Args:
        plan: all of the sweep.
        words: run name -> `settled_word`, for runs that are settled already.
        todo: the runs to come.
    """

    def __init__(self, plan: Plan, words: dict[str, str], todo: Sequence[Job], pool: Pool) -> None:
        self.plan, self.words, self.pool = plan, dict(words), pool
        self.total, self.left = len(words) + len(todo), len(todo)
        self.live: Live | None = None
        self._looked = 0.0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw the table on stderr if that is a terminal which wants it."""
        if not console.shows_progress():
            yield
            return
        with Live(console=console.stderr, auto_refresh=False, transient=True) as self.live:
            yield
        self.live = None

    def look(self, outcome: Outcome | None) -> None:
        """Take notice of a run that has ended, or of time that has passed."""
        if outcome is not None:
            self.left -= 1
            info = state(self.pool.place.folder, outcome.job) if outcome.exit_code == 0 else {}
            self.words[outcome.job.name] = settled_word(info) if info else outcome.word
            log.info("%s", self._told(outcome))
        now = time.monotonic()
        if self.live is not None and (outcome is not None or now - self._looked >= REFRESH):
            self._looked = now
            self.live.update(self._page(), refresh=True)

    def seconds_left(self) -> float | None:
        """How long the rest will take, by the runs of this visit so far; None before one has ended."""
        ended = [outcome.seconds for outcome in self.pool.outcomes if outcome.exit_code == 0]
        if not ended:
            return None
        # A run's last step is not its end: it evaluates and saves.
        done = (min(0.95, _share(self.pool.place.folder, run.job)) for run in self.pool.running)
        work = self.left - sum(done)
        return statistics.fmean(ended) * work / len(self.pool.place.devices)

    def _told(self, outcome: Outcome) -> str:
        done = f"[{self.total - self.left}/{self.total}] {outcome.job.name}  {outcome.word}"
        if outcome.exit_code == 0:
            done += f"  val mIoU {self.words[outcome.job.name]}"
        elif message := outcome.error.get("message"):
            done += f": {message}"
        done += f"  {outcome.seconds:.0f} s"
        left = self.seconds_left()
        return printable(done + (f"; about {span(left)} left" if self.left and left is not None else ""))

    def _page(self) -> Group:
        left = self.seconds_left()
        rest = "" if left is None else f", about {span(left)} left"
        working = {run.job.name: _share(self.pool.place.folder, run.job) for run in self.pool.running}
        rows = []
        for cell in self._worth_showing(set(working)):
            names = [f"{cell}/seed={seed}" for seed in self.plan.seeds]
            words = (
                f"{working[name]:.0%}" if name in working else self.words.get(name, "") for name in names
            )
            rows.append([cell, *words])
        table = Table(["run", *(f"seed {seed}" for seed in self.plan.seeds)], rows)
        return Group(Text(f"{self.total - self.left} of {self.total} runs{rest}"), table)

    def _worth_showing(self, working: set[str]) -> list[str]:
        """Cells at work first, when there are too many for a screen."""
        cells = [cell.name for cell in self.plan.cells]
        if len(cells) <= MOST_ROWS:
            return cells
        busy = [cell for cell in cells if any(name.startswith(f"{cell}/") for name in working)]
        seen = [name.partition("/")[0] for name in reversed(self.words)]
        return list(dict.fromkeys([*busy, *seen]))[:MOST_ROWS]


def settled_word(info: dict[str, Any]) -> str:
    """What run.json says of a run that is not made again: its mIoU, or that it diverged."""
    try:
        return f"{100 * info['result']['last']['miou']:.2f} %"
    except (LookupError, TypeError):  # diverged; or no file of ours, which the summary will say
        return str(info["status"])


def span(seconds: float) -> str:
    """5400 -> 1 h 30 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    days, hours = divmod(minutes // 60, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60} min"


def _share(folder: Path, job: Job) -> float:
    """How much of a run is done, by the last whole line of its metrics.jsonl; reads no more than that."""
    try:
        with RunDir(folder / job.name).metrics.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 8192))
            lines = file.read().split(b"\n")
        return float(json.loads(lines[-2])["step"]) / job.cell.recipe.train.iterations
    except (OSError, ValueError, LookupError, TypeError):  # nothing is there yet
        return 0.0
