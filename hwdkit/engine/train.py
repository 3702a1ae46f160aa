"""A run: `fit` with a folder, so that training can stop, continue exactly, and leave a network.

It knows no recipe: `commands/train/run.py` makes a run of one, `hwdkit.fit` of Python objects.
"""

from __future__ import annotations

import logging
import math
import platform
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from hwdkit import __version__
from hwdkit.checkpoints.files import save_model
from hwdkit.distributed import Ranks, on_main_rank, wait_for_all
from hwdkit.engine.loop import Hooks, Plan, Training, fit
from hwdkit.engine.objectives import Teach
from hwdkit.engine.run import Metrics, Run, Trained, step_line, validation_line
from hwdkit.engine.rundir import RunDir
from hwdkit.engine.scalars import Scalars
from hwdkit.errors import CheckpointError, DataError, HwdkitError
from hwdkit.models.network import Network
from hwdkit.terminal import console
from hwdkit.terminal.memory import explained_memory
from hwdkit.terminal.signals import StopRequest
from hwdkit.types import Batch

log = logging.getLogger("hwdkit")

FINGERPRINTS: dict[str, type[HwdkitError]] = {
    "dataset_fingerprint": DataError,
    "teacher_sha256": CheckpointError,
}
"""Facts of run.json that must not change before a resume, and the error that a change is."""


def train(
    training: Training,
    stream: Callable[[int], Generator[Sequence[Batch], None, None]],
    teach: Teach | None,
    *,
    plan: Plan,
    run: Run,
    evaluate: Callable[[Network], Metrics] | None = None,
    ranks: Ranks,
    stop: StopRequest | None = None,
) -> Trained:
    """Train to the end, or until a signal or the time limit; with a folder the run can then be resumed.

    Args:
        training: network, losses and optimizer; the state of a resumed run is loaded into it.
        stream: step -> this rank's micro-batches of every step from that one on.
        teach: the frozen teacher, or None for supervised training.
        plan: how long, how fast, how often.
        run: what it is called and what it leaves behind.
        evaluate: student -> metrics, on all ranks; None: no validation.
        ranks: which process this is.
        stop: where the time limit comes from; None: no limit.

    Returns:
        The result; the same on every rank, but for the times.

    Raises:
        Interrupted, Cancelled: stopped; saved if there is a folder.
        HwdkitError: the folder is in use or holds another run, training diverged, a disk is full, ...
    """
    session = _Session(training, plan, run, evaluate, ranks, stop or StopRequest())
    try:
        # From here on a signal means: one more step, save, leave. With several ranks from the first step
        # on: one that waits for another, which has failed, must be ended.
        with session.listening(ranks.world == 1):
            session.open_folder()
            with session.recorded(), explained_memory():
                return session.train(stream, teach)
    finally:
        if run.folder:
            run.folder.release()


@dataclass
class _Session:
    """One process's part in a run, from opening its folder to its result."""

    training: Training
    plan: Plan
    run: Run
    evaluate: Callable[[Network], Metrics] | None
    ranks: Ranks
    stop: StopRequest
    best: Metrics = field(default_factory=dict)
    latest: Metrics = field(default_factory=dict)
    rows: list[Metrics] = field(default_factory=list)  # of this session's steps
    began: float = field(default_factory=time.perf_counter)
    scalars: Scalars | None = None

    @property
    def output(self) -> RunDir | None:
        """The folder, on the rank that writes."""
        return self.run.folder if self.ranks.is_main else None

    def listening(self, when: bool) -> AbstractContextManager[None]:
        """Let a signal stop the run after its step; without a folder, which cannot be resumed, at once."""
        return self.stop.listening() if when and self.run.folder else nullcontext()

    def open_folder(self) -> None:
        """Lock the folder, load the state of a resumed run, and describe this one in run.json."""
        if self.run.folder is None:
            return
        on_main_rank(self.run.folder.hold)
        if self.run.resume:
            self._load(self.run.folder)
        on_main_rank(self._claim)

    def _load(self, folder: RunDir) -> None:
        state, info = folder.reopen(), folder.read_info()
        for key, error in FINGERPRINTS.items():
            if self.run.facts.get(key) is not None and info.get(key) != self.run.facts[key]:
                raise error(
                    f"{key} has changed since the run began",
                    hint="it cannot continue exactly; start a new run, or use --init-from with its "
                    "checkpoint",
                )
        self.best, self.latest = state.pop("best"), state.pop("latest")
        self.began -= float(info.get("seconds", 0.0))
        try:
            self.training.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"does not fit the run's own recipe: {str(error).splitlines()[0]}", where=str(folder.last)
            ) from error

    def _claim(self) -> None:
        folder = self.run.folder
        assert folder is not None
        if self.run.resume:
            folder.forget_metrics_after(self.training.step)
        else:
            folder.create(self.run.recipe, or_unsaved=self.run.restart)
        folder.update_info(
            status="running",
            started=_now(),
            ended=None,
            error=None,
            argv=sys.argv[1:],
            **self.run.facts,
            seed=self.plan.seed,
            world_size=self.ranks.world,
            device=str(self.ranks.device),
            versions={
                "hwdkit": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        )
        self.scalars = Scalars(folder.path, step=self.training.step, rows=folder.read_metrics())

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Copy the log into the folder; what ends the run before its time is written to run.json."""
        folder = self.output
        if folder is None:
            yield
            return
        with console.log_file(folder.log):
            try:
                yield
            except BaseException as error:
                status = error.kind if isinstance(error, HwdkitError) else "failed"
                with suppress(HwdkitError, ValueError):  # a disk that is full now must not hide why it ended
                    message = str(error) or type(error).__name__
                    folder.update_info(status=status, ended=_now(), error=message)
                    folder.write_csv()
                raise
            finally:
                if self.scalars:
                    self.scalars.close()

    def train(
        self, stream: Callable[[int], Generator[Sequence[Batch], None, None]], teach: Teach | None
    ) -> Trained:
        """Let `fit` work, then keep the trained network."""
        first_step = self.training.step
        if self.ranks.is_main:
            self.run.on_start()
        with (
            closing(stream(first_step)) as batches,  # ends the loader processes, also when a step raises
            self.listening(self.ranks.world > 1),
            console.progress(
                self.run.name, self.plan.iterations, done=first_step, show=self.ranks.is_main
            ) as advance,
        ):
            hooks = Hooks(
                log=lambda row: self._log(row, advance),
                evaluate=self._validate,
                save=self._save,
                stop=self.stop,
            )
            done = fit(self.training, batches, teach, plan=self.plan, hooks=hooks, ranks=self.ranks)
        if not done:
            raise self.stop.error(self.run.resumed_by if self.run.folder else None)
        return self._finish(first_step)

    def _log(self, row: Metrics, advance: Callable[[int], None]) -> None:
        if self.ranks.is_main:
            self._record(row)
            log.info(step_line(row, self.plan.iterations))
            advance(int(row["step"]))

    def _record(self, row: Metrics) -> None:
        self.rows.append(row)
        if self.output:
            self.output.append_metrics(row)
        if self.scalars:
            self.scalars.add(row)

    def _validate(self, step: int) -> None:
        if self.evaluate is None:
            return
        student, ema = self.training.objective.student, self.training.ema
        with ema.applied_to(student) if ema else nullcontext():
            self.latest = {"step": step, **self.evaluate(student)}
        improved = not self.best or _score(self.latest) > _score(self.best)
        if improved:
            self.best = self.latest
        if not self.ranks.is_main:
            return
        self._record(self.latest)
        log.info(validation_line(self.latest, improved))
        if self.output and improved:
            self._save_network(self.output.best)
        if self.output and self.run.keep_evaluated:
            self._save_network(self.output.evaluated(step))

    def _save(self) -> None:
        if self.output:
            self.output.save_state({**self.training.state_dict(), "best": self.best, "latest": self.latest})
            self.output.write_csv()  # a run may be killed: the table is never far behind
            self.output.update_info(seconds=self._seconds())
        wait_for_all()

    def _save_network(self, path: Path) -> None:
        ema = self.training.ema
        state = ema.average if ema else self.training.objective.student.state_dict()
        save_model(path, state, dict(self.run.describe(self.training.step, self.latest)))

    def _seconds(self) -> float:
        """Since training began, over all its sessions; of a killed one up to its last save."""
        return round(time.perf_counter() - self.began, 2)

    def _finish(self, first_step: int) -> Trained:
        folder = self.run.folder
        if self.output:
            self._save_network(self.output.path / self.run.network_file)
            self.output.write_csv()
            self.run.on_end()
        trained = Trained(
            name=self.run.name,
            run_dir=folder.path if folder else None,
            checkpoint=folder.path / self.run.network_file if folder else None,
            best={**self.best, "checkpoint": str(folder.best)} if folder and self.best else self.best,
            last=self.latest,
            seconds=self._seconds(),
            images_per_s=_images_per_second(self.rows, first_step),
        )
        if self.output:
            self.output.update_info(status="finished", ended=_now(), result=trained.to_dict())
        return trained


def _score(metrics: Metrics) -> float:
    """mIoU for ranking; a split without a labelled pixel ranks below any number."""
    return -1.0 if math.isnan(metrics["miou"]) else float(metrics["miou"])


def _images_per_second(rows: Sequence[Metrics], first_step: int) -> float:
    """The mean speed over rows of losses, each of which covers the steps since the one before."""
    images, seconds, before = 0.0, 0.0, first_step
    for row in rows:
        if "step_ms" in row:
            duration = row["step_ms"] / 1000 * (row["step"] - before)
            images, seconds, before = images + row["images_per_s"] * duration, seconds + duration, row["step"]
    return round(images / seconds, 2) if seconds else 0.0


def _now() -> str:
    """The time as run.json writes it: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
