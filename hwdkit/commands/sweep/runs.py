"""The runs of a sweep: which are missing, and one process each, as `hwdkit distill` on a shell would be.

A process of its own gives every run a fresh memory and a GPU, and lets one fail without the others.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hwdkit.checkpoints.files import write_failure
from hwdkit.commands.sweep.plan import Job, Plan
from hwdkit.data.parallel import cores
from hwdkit.engine.rundir import RunDir
from hwdkit.errors import Cancelled, CheckpointError, DivergedError, HwdkitError, Interrupted
from hwdkit.terminal.signals import StopRequest

log = logging.getLogger("hwdkit")

POLL = 0.2
"""Seconds between two looks at the processes."""


@dataclass(frozen=True)
class Workplace:
    """Where and with what runs are made.

    Attributes:
        folder: the sweep's.
        data_root: folder of the prepared datasets.
        devices: one entry a run at a time: what CUDA_VISIBLE_DEVICES is set to, or None for the CPU.
    """

    folder: Path
    data_root: Path
    devices: tuple[str | None, ...] = (None,)


@dataclass
class Outcome:
    """How a run's process ended: with what JSON document, and whether because the sweep asked it to stop."""

    job: Job
    exit_code: int
    seconds: float
    document: dict[str, Any] = field(default_factory=dict)
    obeyed: bool = False

    @property
    def error(self) -> dict[str, Any]:
        return dict(self.document.get("error") or {})

    @property
    def word(self) -> str:
        """finished, diverged, interrupted, …: what to call it in one word."""
        if self.exit_code < 0:
            return f"killed by {signal.Signals(-self.exit_code).name}"
        return str(self.error.get("kind", "failed")) if self.exit_code else "finished"


@dataclass
class Running:
    """A run at work."""

    job: Job
    process: subprocess.Popen[bytes]
    slot: int
    began: float
    answer: IO[bytes]
    stopping: bool = False


def arguments(job: Job, plan: Plan, workplace: Workplace) -> list[str]:
    """The command line of a run, after `hwdkit`: begins it, or continues it."""
    cell = workplace.folder / job.cell.name
    line = [plan.command, "--recipe", f"{os.path.relpath(cell)}/recipe.yaml", "--set", f"seed={job.seed}"]
    line += ["--out", str(workplace.folder / job.name), "--auto-resume"]
    return [*line, "--data-root", str(workplace.data_root)]


def state(folder: Path, job: Job) -> dict[str, Any]:
    """run.json of a run; `status` is "missing" where there is none.

    Raises:
        CheckpointError: it cannot be read.
    """
    path = RunDir(folder / job.name)
    try:
        info = path.read_info()
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(
            f"not readable: {error}", where=str(path.info), hint="delete that run's folder to make it again"
        ) from None
    return info if isinstance(info, dict) and "status" in info else {"status": "missing"}


def is_settled(info: dict[str, Any]) -> bool:
    """Whether running it again would change nothing: a diverged run diverges again, step for step."""
    return info["status"] in ("finished", DivergedError.kind)


class Pool:
    """Runs jobs in so many processes at once as the workplace has devices."""

    def __init__(self, plan: Plan, workplace: Workplace, *, lock: int, stop: StopRequest) -> None:
        self.plan, self.workplace, self.lock, self.stop = plan, workplace, lock, stop
        self.running: list[Running] = []
        self.outcomes: list[Outcome] = []
        self._signalled = ""

    def failures(self) -> list[Outcome]:
        """Runs that failed of themselves, in the order in which they did: not those that obeyed a stop."""
        return [outcome for outcome in self.outcomes if outcome.exit_code and not outcome.obeyed]

    def run(self, jobs: Sequence[Job], *, fail_fast: bool, ended: Callable[[Outcome], None]) -> None:
        """Run all jobs, unless a stop is requested or, with `fail_fast`, one fails.

        Args:
            jobs: in this order.
            fail_fast: stop the others cleanly when one fails.
            ended: called with every outcome.

        A second Ctrl-C leaves at once; what was saved stays. When a run cannot be started or looked at, those
        at work save first.
        """
        waiting, failed = list(jobs), False
        try:
            while waiting or self.running:
                if self.stop() or failed:
                    waiting.clear()
                    self._stop_running()
                while waiting and len(self.running) < len(self.workplace.devices):
                    self._start(waiting.pop(0))
                time.sleep(POLL)
                for outcome in self._ended():
                    self.outcomes.append(outcome)
                    failed |= fail_fast and outcome.exit_code != 0
                    ended(outcome)
        except HwdkitError:
            self._stop_running()
            for run in self.running:
                run.process.wait()
            raise
        finally:
            self._kill()

    def _start(self, job: Job) -> None:
        slot = min(set(range(len(self.workplace.devices))) - {run.slot for run in self.running})
        device = self.workplace.devices[slot]
        environment = dict(os.environ)
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        if len(self.workplace.devices) > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // len(self.workplace.devices))))
        line = [*arguments(job, self.plan, self.workplace), "--gpus", "0" if device is None else "1"]
        log_path = self.workplace.folder / f"{job.name}.log"
        try:
            log_path.parent.mkdir(parents=True, exist_ok=True)
            answer: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # it outlives this function
            with log_path.open("ab") as messages:
                process = subprocess.Popen(
                    [sys.executable, "-m", "hwdkit", *line, "--json", "--quiet"],
                    stdin=subprocess.DEVNULL,
                    stdout=answer,
                    stderr=messages,
                    env=environment,
                    pass_fds=(self.lock,),
                    start_new_session=True,  # a Ctrl-C at the terminal must reach it once, from here
                )
        except OSError as error:
            raise write_failure(log_path, error) from error
        self.running.append(Running(job, process, slot, time.monotonic(), answer))

    def _ended(self) -> list[Outcome]:
        done = [run for run in self.running if run.process.poll() is not None]
        self.running = [run for run in self.running if run not in done]
        return [self._outcome(run) for run in done]

    def _outcome(self, run: Running) -> Outcome:
        code = run.process.returncode
        messages = self.workplace.folder / f"{run.job.name}.log"
        if messages.stat().st_size == 0:
            messages.unlink()
        run.answer.seek(0)
        try:
            document = json.loads(run.answer.read())
        except ValueError:  # it was cut off before it could answer
            document = {}
        run.answer.close()
        obeyed = run.stopping and code in (Interrupted.exit_code, Cancelled.exit_code)
        return Outcome(run.job, code, time.monotonic() - run.began, document, obeyed)

    def _stop_running(self) -> None:
        """Once a reason: a Ctrl-C that comes after a SIGTERM is passed on as well."""
        reason = self.stop.reason or "failure"
        if self._signalled == reason:
            return
        self._signalled = reason
        if self.running:
            log.info("stopping: %d at work will save first", len(self.running))
        for run in self.running:
            run.stopping = True
            run.process.send_signal(signal.SIGINT if reason == "Ctrl-C" else signal.SIGTERM)

    def _kill(self) -> None:
        """Leave no process behind when this one cannot wait."""
        for run in self.running:
            run.process.kill()
        for run in self.running:
            run.process.wait()
            run.answer.close()


def command_line(words: Sequence[str]) -> str:
    """One line for a shell."""
    return shlex.join(["hwdkit", *words])
