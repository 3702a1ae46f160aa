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
from typing import IO, Any, NamedTuple

from hwdkit.checkpoints.files import write_failure
from hwdkit.commands.sweep.plan import Job, Plan
from hwdkit.data.parallel import cores
from hwdkit.engine.rundir import RunDir
from hwdkit.errors import Cancelled, CheckpointError, DivergedError, HwdkitError, Interrupted
from hwdkit.terminal.signals import StopRequest

log = logging.getLogger("hwdkit")

POLL = 0.2
"""Seconds between two looks at the processes."""

SETTLED = ("finished", DivergedError.kind)
"""Running it again would change nothing: a diverged run diverges again, step for step."""


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
            f"not readable: {error}",
            where=str(path.info),
            hint="delete the folder of that run to make it again",
        ) from None
    return info if isinstance(info, dict) and "status" in info else {"status": "missing"}


def unsettled(plan: Plan, folder: Path) -> list[Job]:
    """The runs that are still to be made or continued."""
    return [job for job in plan.jobs if state(folder, job)["status"] not in SETTLED]


def arguments(job: Job, plan: Plan, *, folder: Path, data_root: Path) -> list[str]:
    """The command line of a run, after `hwdkit`: begins it, or continues it."""
    recipe = f"{os.path.relpath(folder / job.cell.name)}/recipe.yaml"
    line = [plan.command, "--recipe", recipe, "--set", f"seed={job.seed}", "--out", str(folder / job.name)]
    return [*line, "--auto-resume", "--data-root", str(data_root)]


def command_line(words: Sequence[str]) -> str:
    """One line for a shell."""
    return shlex.join(["hwdkit", *words])


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


class Running(NamedTuple):
    """A run at work."""

    job: Job
    process: subprocess.Popen[bytes]
    slot: int
    began: float
    answer: IO[bytes]


@dataclass
class Pool:
    """Runs jobs in as many processes at once as there are devices.

    Attributes:
        folder: the sweep's.
        data_root: folder of the prepared datasets.
        devices: one entry a run at a time: what CUDA_VISIBLE_DEVICES is set to, or None for the CPU.
        lock: descriptor of the folder's lock, which the runs inherit.
    """

    plan: Plan
    folder: Path
    data_root: Path
    devices: Sequence[str | None]
    lock: int
    stop: StopRequest
    running: list[Running] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    signalled: str = ""

    def failures(self) -> list[Outcome]:
        """Runs that failed by themselves, in that order: not those that obeyed a stop."""
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
                while waiting and len(self.running) < len(self.devices):
                    self._start(waiting.pop(0))
                time.sleep(POLL)
                for run in [run for run in self.running if run.process.poll() is not None]:
                    self.running.remove(run)
                    self.outcomes.append(outcome := self._outcome(run))
                    failed |= fail_fast and outcome.exit_code != 0
                    ended(outcome)
        except HwdkitError:
            self._stop_running()
            for run in self.running:
                run.process.wait()
            raise
        finally:  # leave no process behind when this one cannot wait
            for run in self.running:
                run.process.kill()
            for run in self.running:
                run.process.wait()
                run.answer.close()

    def _start(self, job: Job) -> None:
        slot = min(set(range(len(self.devices))) - {run.slot for run in self.running})
        device = self.devices[slot]
        environment = dict(os.environ)
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        if len(self.devices) > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // len(self.devices))))
        line = arguments(job, self.plan, folder=self.folder, data_root=self.data_root)
        line += ["--gpus", "0" if device is None else "1", "--json", "--quiet"]
        log_path = self._log(job)
        try:
            log_path.parent.mkdir(parents=True, exist_ok=True)
            answer: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # it outlives this function
            with log_path.open("ab") as messages:
                process = subprocess.Popen(
                    [sys.executable, "-m", "hwdkit", *line],
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

    def _outcome(self, run: Running) -> Outcome:
        if self._log(run.job).stat().st_size == 0:
            self._log(run.job).unlink()
        run.answer.seek(0)
        try:
            document = json.loads(run.answer.read())
        except ValueError:  # it was cut off before it could answer
            document = {}
        run.answer.close()
        code = run.process.returncode
        obeyed = bool(self.signalled) and code in (Interrupted.exit_code, Cancelled.exit_code)
        return Outcome(run.job, code, time.monotonic() - run.began, document, obeyed)

    def _log(self, job: Job) -> Path:
        return self.folder / f"{job.name}.log"

    def _stop_running(self) -> None:
        """Once a reason: a Ctrl-C that comes after a SIGTERM is passed on as well."""
        reason = self.stop.reason or "failure"
        if self.signalled == reason:
            return
        self.signalled = reason
        if self.running:
            log.info("stopping: %d runs will save first", len(self.running))
        for run in self.running:
            run.process.send_signal(signal.SIGINT if reason == "Ctrl-C" else signal.SIGTERM)
