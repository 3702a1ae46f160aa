"""One training run in one process: builds everything, lets `fit` work, keeps the run directory."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hwdkit.checkpoints.files import file_digest, save_model
from hwdkit.commands.training import narration
from hwdkit.commands.training.groundwork import (
    Role,
    now,
    prepared_index,
    require_same,
    resolved,
    run_facts,
    set_determinism,
)
from hwdkit.commands.training.next_commands import after_training
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.stream import eval_pairs, require_divisible
from hwdkit.distributed import Ranks, on_main_rank, wait_for_all
from hwdkit.engine import build
from hwdkit.engine.evaluate import Evaluation, evaluate
from hwdkit.engine.loop import Hooks, fit
from hwdkit.engine.networks import (
    ROLE_FILES,
    description,
    load_network,
    load_weights,
    require_classes,
)
from hwdkit.engine.rundir import RunDir
from hwdkit.engine.scalars import Scalars
from hwdkit.errors import CheckpointError, DataError, HwdkitError, RecipeError
from hwdkit.recipe.load import digest, dump
from hwdkit.recipe.schema import Network, Recipe
from hwdkit.terminal import console
from hwdkit.terminal.memory import explained_memory
from hwdkit.terminal.signals import StopRequest

log = logging.getLogger("hwdkit")


@dataclass(frozen=True)
class Settings:
    """What the command line adds to a recipe.

    Attributes:
        data_root: folder of the prepared datasets.
        out: run directory; None makes one under ./runs.
        resume: continue the run that lies in `out`.
        cpu: do not use a GPU.
        max_seconds: stop cleanly after this long.
        init_from: checkpoint whose weights the trained network starts from.
        restart: a run in `out` that ended before its first checkpoint may be begun again.
    """

    data_root: Path = Path("data")
    out: Path | None = None
    resume: bool = False
    cpu: bool = False
    max_seconds: float | None = None
    init_from: Path | None = None
    restart: bool = False


def trained_section(recipe: Recipe, role: Role) -> Network:
    """The network of a recipe that a command trains.

    Raises:
        RecipeError: the recipe has none in this role.
    """
    section = recipe.student if role == "student" else recipe.teacher
    if section is None or section.backbone is None:
        other = "train-teacher" if role == "student" else "distill"
        raise RecipeError(f"recipe {recipe.name} has no {role} to train", hint=f"use: hwdkit {other}")
    return section


class Run:
    """One run in one process: builds everything, then lets `fit` work."""

    def __init__(self, recipe: Recipe, role: Role, folder: RunDir, settings: Settings, ranks: Ranks) -> None:
        self.section, self.role, self.folder = trained_section(recipe, role), role, folder
        self.settings, self.ranks = settings, ranks
        # What costs nothing to check comes first; preparing a dataset can take minutes.
        require_divisible(recipe.train.batch_size, world=ranks.world, accumulate=recipe.train.accumulate)
        if not settings.resume:
            on_main_rank(lambda: folder.require_unused(or_unsaved=settings.restart))
        taught = role == "student" and build.needs_teacher(recipe)
        teacher = load_network(build.teacher_checkpoint(recipe)) if taught else None
        self.index = prepared_index(recipe.data.dataset, settings.data_root)
        if teacher:
            require_classes(teacher, self.index)
        self.teacher = teacher
        self.recipe = resolved(recipe, role, teacher)
        self.protocol = build.protocol(recipe.evaluate)
        self.best: dict[str, Any] = {}
        self.latest: dict[str, Any] = {}
        self.stop = StopRequest(settings.max_seconds)
        self.busy_seconds = 0.0  # in steps: without evaluating and saving
        self.told_step = 0

    def execute(self) -> dict[str, Any]:
        try:
            # From here on a signal means: one more step, save, leave. With several ranks from the first step
            # on: one that waits for another, which has failed, must be ended.
            with self.stop.listening() if self.ranks.world == 1 else nullcontext():
                return self._execute()
        finally:
            self.folder.release()

    def _execute(self) -> dict[str, Any]:
        set_determinism(self.recipe.train.deterministic)
        torch.manual_seed(self.recipe.seed)
        model = build.network(self.section, len(self.index.classes))
        if self.settings.init_from:
            loaded = load_network(self.settings.init_from)
            load_weights(model, loaded.model.state_dict(), where=str(loaded.path))
        teacher = self.teacher.model if self.teacher else None
        self.training = build.training(self.recipe, model, self.ranks, teacher)
        self._open_folder()
        if not self.ranks.is_main:
            with explained_memory():
                return self._fit()
        with console.log_file(self.folder.log):
            try:
                with explained_memory():
                    return self._fit()
            except BaseException as error:
                status = error.kind if isinstance(error, HwdkitError) else "failed"
                with suppress(HwdkitError, ValueError):  # a disk that is full now must not hide why it ended
                    said = str(error) or type(error).__name__
                    self.folder.update_info(status=status, ended=now(), error=said)
                    self.folder.write_csv()
                raise
            finally:
                self.scalars.close()

    def _open_folder(self) -> None:
        on_main_rank(self.folder.hold)
        if self.settings.resume:
            state = self.folder.reopen()
            info = self.folder.read_info()
            require_same(info, "dataset_fingerprint", self.index.fingerprint, DataError)
            if self.teacher:
                require_same(info, "teacher_sha256", file_digest(self.teacher.path), CheckpointError)
            self.best, self.latest = state.pop("best"), state.pop("latest")
            try:
                self.training.load_state_dict(state)
            except (RuntimeError, ValueError, KeyError) as error:
                raise CheckpointError(
                    f"does not fit the run's own recipe: {str(error).splitlines()[0]}",
                    where=str(self.folder.last),
                ) from error
        on_main_rank(self._claim_folder)

    def _claim_folder(self) -> None:
        if self.settings.resume:
            self.folder.forget_metrics_after(self.training.step)
        else:
            self.folder.create(dump(self.recipe), or_unsaved=self.settings.restart)
        facts = run_facts(self.recipe, self.role, self.index, self.ranks, self.teacher)
        self.folder.update_info(**facts)
        self.scalars = Scalars(self.folder.path, step=self.training.step, rows=self.folder.read_metrics())

    def _fit(self) -> dict[str, Any]:
        recipe, plan = self.recipe, build.plan(self.recipe)
        goal = self.training.objective
        teach = build.teach(recipe, self.teacher, goal, self.ranks) if self.teacher else None
        if self.ranks.is_main:
            if self.index.partial:
                log.warning("dataset %s is partial: numbers are not comparable", self.index.name)
            images = len(self.index.splits[recipe.data.train_split])
            log.info(narration.beginning(recipe, self.role, images, self.ranks))
            log.info("run directory: %s", self.folder.path)
        stream = build.stream(recipe, self.index, start_step=self.training.step, ranks=self.ranks)
        first_step = self.training.step
        self.began = time.perf_counter() - float(self.folder.read_info().get("seconds", 0.0))
        self.told_step = first_step
        with (
            closing(stream),  # ends the loader processes, also when a step raises
            self.stop.listening() if self.ranks.world > 1 else nullcontext(),
            console.progress(
                recipe.name, plan.iterations, done=first_step, show=self.ranks.is_main
            ) as advance,
        ):
            hooks = Hooks(
                log=lambda row: self._log(row, advance),
                evaluate=self._evaluate,
                save=self._save,
                stop=self.stop,
            )
            finished = fit(self.training, stream, teach, plan=plan, hooks=hooks, ranks=self.ranks)
        if not finished:
            command = "distill" if self.role == "student" else "train-teacher"
            root = self.settings.data_root
            more = "" if root == Settings.data_root else f" --data-root {root}"
            raise self.stop.error(f"hwdkit {command} --resume {self.folder.path}{more}")
        return self._finish(steps=plan.iterations - first_step)

    def _log(self, row: dict[str, float], advance: Callable[[int], None]) -> None:
        if self.ranks.is_main:
            self._record(row)
            self.busy_seconds += row["step_ms"] / 1000 * (row["step"] - self.told_step)
            self.told_step = int(row["step"])
            log.info(narration.step(row, self.recipe.train.iterations))
            advance(int(row["step"]))

    def _record(self, row: dict[str, Any]) -> None:
        self.folder.append_metrics(row)
        self.scalars.add(row)

    def _evaluate(self, step: int) -> None:
        student = self.training.objective.student
        if self.training.ema:
            with self.training.ema.applied_to(student):
                result = self._evaluation(student)
        else:
            result = self._evaluation(student)
        self.latest = {
            "step": step,
            "miou": result.miou,
            "macc": result.macc,
            "pixel_accuracy": result.pixel_accuracy,
        }
        improved = not self.best or _score(self.latest) > _score(self.best)
        if improved:
            self.best = self.latest
        if not self.ranks.is_main:
            return
        self._record(self.latest)
        log.info(narration.validation(self.latest, improved))
        if improved:
            self._save_network(self.folder.best)
        if self.recipe.train.keep_evaluated:
            self._save_network(self.folder.evaluated(step))

    def _evaluation(self, student: Any) -> Evaluation:
        dataset = SegmentationDataset(self.index, self.recipe.data.val_split)
        pairs = eval_pairs(
            dataset, rank=self.ranks.rank, world=self.ranks.world, workers=self.recipe.data.workers
        )
        # Images of many sizes: searching the fastest kernel for each, or compiling, would cost more than it
        # gains. And the figures are those of `hwdkit evaluate`, which does neither.
        compiles = self.recipe.train.compile
        stance = torch.compiler.set_stance("force_eager") if compiles else nullcontext()
        searches, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
        try:
            with stance:
                return evaluate(student, pairs, self.protocol, ranks=self.ranks)
        finally:
            torch.backends.cudnn.benchmark = searches

    def _save(self) -> None:
        if self.ranks.is_main:
            self.folder.save_state({**self.training.state_dict(), "best": self.best, "latest": self.latest})
            self.folder.write_csv()  # a run may be killed: the table is never far behind
            self.folder.update_info(seconds=self._seconds())
        wait_for_all()

    def _save_network(self, path: Path) -> None:
        student = self.training.objective.student
        metadata = description(
            student,
            self.index,
            role=self.role,
            recipe=self.recipe.name,
            recipe_sha256=digest(self.recipe),
            step=self.training.step,
            metrics=self.latest,
        )
        state = self.training.ema.average if self.training.ema else student.state_dict()
        save_model(path, state, metadata)

    def _seconds(self) -> float:
        """Since training began, over all its sessions; of a killed one up to its last save."""
        return round(time.perf_counter() - self.began, 2)

    def _finish(self, *, steps: int) -> dict[str, Any]:
        result: dict[str, Any] = {"run_dir": str(self.folder.path)}
        if not self.ranks.is_main:
            return result
        path = self.folder.path / ROLE_FILES[self.role]
        self._save_network(path)
        self.folder.write_csv()
        from hwdkit.report.plots.curves import curves  # matplotlib, for a finished run only

        self.folder.write_curves(curves(self.folder.read_metrics()))
        images = steps * self.recipe.train.batch_size
        result |= {
            "recipe": self.recipe.name,
            "checkpoint": str(path),
            "best": {**self.best, "checkpoint": str(self.folder.best)},
            "last": self.latest,
            "seconds": self._seconds(),
            "images_per_s": round(images / self.busy_seconds, 2) if steps else 0.0,
            "next": after_training(
                self.folder.path,
                trains_teacher=self.role == "teacher",
                teacher=self.teacher.path if self.teacher else None,
                data_root=self.settings.data_root,
            ),
        }
        self.folder.update_info(status="finished", ended=now(), result=json.loads(json.dumps(result)))
        return result


def _score(metrics: dict[str, Any]) -> float:
    """mIoU for ranking; a split without a labelled pixel ranks below any number."""
    return -1.0 if math.isnan(metrics["miou"]) else float(metrics["miou"])
