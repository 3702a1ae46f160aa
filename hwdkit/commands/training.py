"""What train-teacher and distill share: one run from a recipe to a finished run directory."""

from __future__ import annotations

import json
import logging
import platform
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist

from hwdkit import __version__
from hwdkit.checkpoints.files import file_digest, save_model
from hwdkit.commands import console
from hwdkit.commands.signals import StopRequest
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.stream import eval_pairs
from hwdkit.distributed import Ranks, started, wait_for_all
from hwdkit.engine import build
from hwdkit.engine.evaluate import Evaluation, evaluate
from hwdkit.engine.loop import Hooks, fit
from hwdkit.engine.rundir import RunDir, default_path
from hwdkit.errors import CheckpointError, DataError, HwdkitError, OutOfMemory, RecipeError
from hwdkit.recipe.load import digest, dump, load
from hwdkit.recipe.schema import Recipe

log = logging.getLogger("hwdkit")
Role = Literal["student", "teacher"]

RESUMABLE_CHANGES = {"data.workers", "train.log_every", "train.evaluate_every", "train.save_every"}
"""Keys that a resumed run may change: they move no weight."""


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
    """

    data_root: Path = Path("data")
    out: Path | None = None
    resume: bool = False
    cpu: bool = False
    max_seconds: float | None = None
    init_from: Path | None = None


def train(recipe: Recipe, role: Role, settings: Settings) -> dict[str, Any]:
    """Train the recipe's teacher or student to the end.

    Returns:
        run_dir, checkpoint, best, last, seconds, images_per_s: JSON-able.

    Raises:
        HwdkitError: with the exit code that the mistake or the stop deserves.
    """
    with started(cpu=settings.cpu) as ranks:
        path = _agree_on_path(settings.out or default_path(recipe.name), ranks)
        run = Run(recipe, role, RunDir(path), settings, ranks)
        try:
            return run.execute()
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(
                str(error).splitlines()[0],
                hint="lower train.batch_size or data.crop, raise train.accumulate, or set train.amp: bf16",
            ) from error


def resumed_recipe(run_dir: Path, overrides: list[str]) -> Recipe:
    """The recipe of a run to continue, with overrides that cannot change its weights.

    Raises:
        CheckpointError: there is no run.
        RecipeError: an override would make it another run.
    """
    path = run_dir / "recipe.yaml"
    if not path.is_file():
        raise CheckpointError("no run to resume: recipe.yaml is missing", where=str(run_dir))
    changed = {override.split("=", 1)[0] for override in overrides} - RESUMABLE_CHANGES
    if changed:
        raise RecipeError(
            f"a resumed run cannot change {', '.join(sorted(changed))}",
            where=str(run_dir),
            hint=f"only {', '.join(sorted(RESUMABLE_CHANGES))} may change; start a new run for the rest",
        )
    return load(str(path), overrides=overrides)


class Run:
    """One run in one process: builds everything, then lets `fit` work."""

    def __init__(self, recipe: Recipe, role: Role, folder: RunDir, settings: Settings, ranks: Ranks) -> None:
        section = recipe.student if role == "student" else recipe.teacher
        if section is None or section.backbone is None:
            other = "train-teacher" if role == "student" else "distill"
            raise RecipeError(f"recipe {recipe.name} has no {role} to train", hint=f"use: hwdkit {other}")
        self.role, self.folder, self.settings, self.ranks = role, folder, settings, ranks
        self.section = section
        self.index = build.dataset_index(recipe, settings.data_root)
        self.teacher: build.Loaded | None = None
        if role == "student" and any(loss.loss != "ce" and loss.weight for loss in recipe.losses.values()):
            self.teacher = build.trained_teacher(recipe, self.index)
            # The resolved recipe names the very file, so that running it again repeats this run.
            pinned = recipe.teacher.model_copy(update={"checkpoint": str(self.teacher.path.resolve())})  # type: ignore[union-attr]
            recipe = recipe.model_copy(update={"teacher": pinned})
        self.recipe = recipe
        self.protocol = build.protocol(recipe.evaluate)
        self.best: dict[str, Any] = {}
        self.latest: dict[str, Any] = {}
        self.stop = StopRequest(settings.max_seconds)

    def execute(self) -> dict[str, Any]:
        _set_determinism(self.recipe.train.deterministic)
        torch.manual_seed(self.recipe.seed)
        model = build.network(self.section, len(self.index.classes))
        if self.settings.init_from:
            loaded = build.load_network(self.settings.init_from)
            build.load_weights(model, loaded.model.state_dict(), where=str(loaded.path))
        self.training = build.training(self.recipe, model, self.ranks)
        self._open_folder()
        if not self.ranks.is_main:
            return self._fit()
        with console.log_file(self.folder.log):
            try:
                return self._fit()
            except BaseException as error:
                status = error.kind if isinstance(error, HwdkitError) else "failed"
                self.folder.update_info(status=status, ended=_now(), error=str(error) or type(error).__name__)
                raise

    def _open_folder(self) -> None:
        if self.settings.resume:
            state = self.folder.reopen()
            info = self.folder.read_info()
            _require_same(info, "dataset_fingerprint", self.index.fingerprint, DataError)
            if self.teacher:
                _require_same(info, "teacher_sha256", file_digest(self.teacher.path), CheckpointError)
            self.best, self.latest = state.pop("best"), state.pop("latest")
            self.training.load_state_dict(state)
        wait_for_all()
        if not self.ranks.is_main:
            return
        if self.settings.resume:
            self.folder.forget_metrics_after(self.training.step)
        else:
            self.folder.create(dump(self.recipe))
        self.folder.update_info(**self._facts())

    def _facts(self) -> dict[str, Any]:
        return {
            "status": "running",
            "command": "distill" if self.role == "student" else "train-teacher",
            "argv": sys.argv[1:],
            "started": _now(),
            "recipe": self.recipe.name,
            "recipe_sha256": digest(self.recipe),
            "dataset": self.index.name,
            "dataset_fingerprint": self.index.fingerprint,
            "dataset_partial": self.index.partial,
            "teacher": str(self.teacher.path) if self.teacher else None,
            "teacher_sha256": file_digest(self.teacher.path) if self.teacher else None,
            "seed": self.recipe.seed,
            "world_size": self.ranks.world,
            "device": str(self.ranks.device),
            "versions": {
                "hwdkit": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }

    def _fit(self) -> dict[str, Any]:
        recipe, plan = self.recipe, build.plan(self.recipe)
        teach = (
            build.teach(recipe, self.teacher, self.training.objective.taps, self.ranks)
            if self.teacher
            else None
        )
        self._announce()
        stream = build.stream(recipe, self.index, start_step=self.training.step, ranks=self.ranks)
        began, first_step = time.perf_counter(), self.training.step
        with (
            self.stop.listening(),
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
        seconds = time.perf_counter() - began
        if not finished:
            command = "distill" if self.role == "student" else "train-teacher"
            raise self.stop.error(f"hwdkit {command} --resume {self.folder.path}")
        return self._finish(seconds, steps=plan.iterations - first_step)

    def _announce(self) -> None:
        if not self.ranks.is_main:
            return
        recipe, world = self.recipe, self.ranks.world
        images = len(self.index.splits[recipe.data.train_split])
        epochs = recipe.train.iterations * recipe.train.batch_size / images
        if self.index.partial:
            log.warning("dataset %s is partial: numbers are not comparable", self.index.name)
        log.info(
            "%s: %s on %s, %d iterations of %d images (%.1f epochs of %d), %d process%s on %s",
            recipe.name,
            f"distilling from {self.teacher.path}" if self.teacher else f"training the {self.role}",
            self.index.name,
            recipe.train.iterations,
            recipe.train.batch_size,
            epochs,
            images,
            world,
            "" if world == 1 else f"es of {recipe.train.batch_size // world}",
            self.ranks.device,
        )
        log.info("run directory: %s", self.folder.path)

    def _log(self, row: dict[str, float], advance: Any) -> None:
        if not self.ranks.is_main:
            return
        self.folder.append_metrics(row)
        step, total = int(row["step"]), self.recipe.train.iterations
        terms = "  ".join(f"{key[5:]} {value:.4f}" for key, value in row.items() if key.startswith("loss_"))
        left = (total - step) * row["step_ms"] / 1000
        log.info(
            "step %d/%d  loss %.4f (%s)  lr %.2e  %.0f ms/step  %.0f s left",
            *(step, total, row["loss"], terms, row["lr"], row["step_ms"], left),
        )
        advance(step)

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
        improved = not self.best or result.miou > self.best["miou"]
        if improved:
            self.best = self.latest
        if not self.ranks.is_main:
            return
        self.folder.append_metrics(self.latest)
        log.info(
            "step %d  val mIoU %.2f %%  pixel accuracy %.2f %%%s",
            *(step, 100 * result.miou, 100 * result.pixel_accuracy, "  (best so far)" if improved else ""),
        )
        if improved:
            self._save_network(self.folder.best)

    def _evaluation(self, student: Any) -> Evaluation:
        dataset = SegmentationDataset(self.index, self.recipe.data.val_split)
        pairs = eval_pairs(
            dataset, rank=self.ranks.rank, world=self.ranks.world, workers=self.recipe.data.workers
        )
        return evaluate(student, pairs, self.protocol, ranks=self.ranks)

    def _save(self) -> None:
        if self.ranks.is_main:
            self.folder.save_state({**self.training.state_dict(), "best": self.best, "latest": self.latest})
        wait_for_all()

    def _save_network(self, path: Path) -> None:
        student = self.training.objective.student
        metadata = build.description(
            self.recipe,
            student,
            self.index,
            role=self.role,
            recipe_sha256=digest(self.recipe),
            step=self.training.step,
            metrics=self.latest,
        )
        state = self.training.ema.average if self.training.ema else student.state_dict()
        save_model(path, state, metadata)

    def _finish(self, seconds: float, *, steps: int) -> dict[str, Any]:
        result: dict[str, Any] = {"run_dir": str(self.folder.path)}
        if not self.ranks.is_main:
            return result
        path = self.folder.path / build.ROLE_FILES[self.role]
        self._save_network(path)
        self.folder.write_csv()
        result |= {
            "recipe": self.recipe.name,
            "checkpoint": str(path),
            "best": {**self.best, "checkpoint": str(self.folder.best)},
            "last": self.latest,
            "seconds": round(seconds, 2),
            "images_per_s": round(steps * self.recipe.train.batch_size / seconds, 2) if steps else 0.0,
        }
        self.folder.update_info(status="finished", ended=_now(), result=json.loads(json.dumps(result)))
        return result


def _agree_on_path(path: Path, ranks: Ranks) -> Path:
    if ranks.world == 1:
        return path
    box = [str(path)]
    dist.broadcast_object_list(box)
    return Path(box[0])


def _require_same(info: dict[str, Any], key: str, value: str, error: type[HwdkitError]) -> None:
    if info.get(key) != value:
        raise error(
            f"{key} has changed since the run began",
            hint="an exact continuation is impossible; start a new run, or --init-from its checkpoint",
        )


def _set_determinism(mode: str) -> None:
    torch.use_deterministic_algorithms(mode != "off", warn_only=mode == "warn")
    torch.backends.cudnn.benchmark = mode == "off"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def render(result: dict[str, Any]) -> str:
    """The end of a run in a few lines: what came out, and what to type next."""
    last, best = result["last"], result["best"]
    compared = "--teacher" if result["checkpoint"].endswith(build.ROLE_FILES["teacher"]) else "--checkpoint"
    following = (
        f"hwdkit distill --recipe NAME --teacher {result['run_dir']}"
        if compared == "--teacher"
        else f"hwdkit evaluate --checkpoint {result['run_dir']}"
    )
    return "\n".join(
        (
            f"val mIoU   {100 * last['miou']:.2f} % at step {last['step']} (last), "
            f"{100 * best['miou']:.2f} % at step {best['step']} (best on val)",
            f"time       {result['seconds']:.1f} s, {result['images_per_s']:.1f} images/s",
            f"network    {result['checkpoint']}",
            f"next       {following}",
        )
    )
