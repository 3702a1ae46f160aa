"""From a recipe to a finished run: the dataset, the networks and the losses are made here, and trained."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from hwdkit.checkpoints.files import file_digest
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.index import FILE_NAME, DatasetIndex, load_index
from hwdkit.data.stream import eval_pairs, require_divisible
from hwdkit.datasets.scenes import SCENES
from hwdkit.datasets.table import DATASETS
from hwdkit.distributed import Ranks, on_main_rank, started
from hwdkit.engine import build, switches
from hwdkit.engine import train as session
from hwdkit.engine.evaluate import evaluate
from hwdkit.engine.loop import Training
from hwdkit.engine.networks import Loaded, description, load_network, load_weights, require_classes
from hwdkit.engine.objectives import Teach
from hwdkit.engine.run import Metrics, Run, Trained, finished
from hwdkit.engine.rundir import RunDir, default_path
from hwdkit.models.network import Network
from hwdkit.prepare.prepare import prepare
from hwdkit.recipe.load import digest, dump
from hwdkit.recipe.schema import Recipe
from hwdkit.terminal.console import progress_of_jobs
from hwdkit.terminal.memory import explained_memory
from hwdkit.terminal.signals import StopRequest

log = logging.getLogger("hwdkit")

DATA = Path("data")
COMMANDS = {"student": "distill", "teacher": "train-teacher"}
"""What a recipe trains -> the command that trains it."""


def train(
    recipe: Recipe,
    *,
    data_root: Path = DATA,
    out: Path | None = None,
    resume: bool = False,
    restart: bool = False,
    init_from: Path | None = None,
    cpu: bool = False,
    max_seconds: float | None = None,
) -> Trained:
    """Train the network that a recipe trains (`Recipe.trains`) to the end.

    Args:
        recipe: what is trained, from what, and how.
        data_root: folder of the prepared datasets.
        out: run directory; None makes one under ./runs.
        resume: continue the run in `out`; a finished one is left as it is.
        restart: a run in `out` that ended before its first checkpoint may be begun again.
        init_from: checkpoint whose weights the trained network starts from.
        cpu: do not use a GPU.
        max_seconds: stop cleanly after this long.

    Raises:
        HwdkitError: a mistake, a failure or a stop; it carries the exit code.
    """
    stop = StopRequest(max_seconds)
    with switches.for_training(recipe.train.deterministic), started(cpu=cpu) as ranks, explained_memory():
        folder = RunDir(_same_on_all_ranks(out or default_path(recipe.name), ranks))
        if resume and (trained := finished(folder)):
            log.info("%s is finished: nothing to do", folder.path)
            return trained
        # What costs nothing to check comes first; preparing a dataset can take minutes.
        require_divisible(recipe.train.batch_size, world=ranks.world, accumulate=recipe.train.accumulate)
        if not resume:
            on_main_rank(lambda: folder.require_unused(or_unsaved=restart))
        teacher = load_network(build.teacher_checkpoint(recipe)) if build.needs_teacher(recipe) else None
        index = prepared_index(recipe.data.dataset, data_root)
        if teacher:
            require_classes(teacher, index)
            # The very file: running the kept recipe again repeats this run.
            recipe = recipe.student_taught(by=str(teacher.path.resolve()))

        training, teach = _built(recipe, len(index.classes), teacher, ranks=ranks, init_from=init_from)
        more = "" if data_root == DATA else f" --data-root {data_root}"
        return session.train(
            training,
            lambda step: build.stream(recipe, index, start_step=step, ranks=ranks),
            teach,
            plan=build.plan(recipe),
            run=Run(
                name=recipe.name,
                describe=lambda step, metrics: description(
                    training.objective.student,
                    index,
                    role=recipe.trains,
                    recipe=recipe.name,
                    recipe_sha256=digest(recipe),
                    step=step,
                    metrics=metrics,
                ),
                folder=folder,
                network_file=f"{recipe.trains}.safetensors",
                recipe=dump(recipe),
                facts=_facts(recipe, index, teacher),
                resume=resume,
                restart=restart,
                keep_evaluated=recipe.train.keep_evaluated,
                resumed_by=f"hwdkit {COMMANDS[recipe.trains]} --resume {folder.path}{more}",
                on_start=lambda: _announce(recipe, index, folder, ranks),
                on_end=lambda: _draw_curves(folder),
            ),
            evaluate=lambda student: _evaluation(student, recipe, index, ranks),
            ranks=ranks,
            stop=stop,
        )


def prepared_index(dataset: str, data_root: Path) -> DatasetIndex:
    """The dataset's index; an unprepared one below the data root is checked and indexed first."""

    def index_it() -> None:
        missing = not (data_root / dataset / FILE_NAME).is_file()
        if missing and dataset in DATASETS and dataset != SCENES.name:
            with progress_of_jobs() as progress:
                prepare(dataset, root=data_root, progress=progress)  # or says where to get it

    on_main_rank(index_it)
    return load_index(data_root / dataset)


def _built(
    recipe: Recipe, classes: int, teacher: Loaded | None, *, ranks: Ranks, init_from: Path | None
) -> tuple[Training, Teach | None]:
    """What is trained and who teaches it, on this rank's device."""
    torch.manual_seed(recipe.seed)
    network = build.network(recipe.network, classes)
    if init_from:
        loaded = load_network(init_from)
        load_weights(network, loaded.model.state_dict(), where=str(loaded.path))
    training = build.training(recipe, network, ranks, teacher.model if teacher else None)
    return training, build.teach(recipe.train, teacher.model, training.objective, ranks) if teacher else None


def _facts(recipe: Recipe, index: DatasetIndex, teacher: Loaded | None) -> dict[str, Any]:
    """What run.json says of a run from its beginning on."""
    return {
        "command": COMMANDS[recipe.trains],
        "recipe": recipe.name,
        "recipe_sha256": digest(recipe),
        "dataset": index.name,
        "dataset_fingerprint": index.fingerprint,
        "dataset_partial": index.partial,
        "teacher": str(teacher.path) if teacher else None,
        "teacher_sha256": file_digest(teacher.path) if teacher else None,
    }


def _draw_curves(folder: RunDir) -> None:
    from hwdkit.report.plots.curves import curves  # matplotlib, for a finished run only

    folder.write_curves(curves(folder.read_metrics()))


def _evaluation(student: Network, recipe: Recipe, index: DatasetIndex, ranks: Ranks) -> Metrics:
    """The student on the validation split; on every rank the numbers of all."""
    dataset = SegmentationDataset(index, recipe.data.val_split)
    pairs = eval_pairs(dataset, rank=ranks.rank, world=ranks.world, workers=recipe.data.workers)
    with switches.for_validation(compiled=recipe.train.compile):
        return evaluate(student, pairs, recipe.evaluate, ranks=ranks).scores()


def _announce(recipe: Recipe, index: DatasetIndex, folder: RunDir, ranks: Ranks) -> None:
    """Log what is trained, on how much, by whom, and where it is kept."""
    if index.partial:
        log.warning("dataset %s is partial: numbers are not comparable", index.name)
    images = len(index.splits[recipe.data.train_split])
    batch, iterations = recipe.train.batch_size, recipe.train.iterations
    work = f"training the {recipe.trains}"
    if recipe.student and recipe.teacher and recipe.teacher.checkpoint is not None:
        work = f"distilling from {recipe.teacher.checkpoint}"
    where = f"on {ranks.device}"
    if ranks.world > 1:
        where = f"{ranks.world} processes of {batch // ranks.world} {where}"
    log.info(
        f"{recipe.name}: {work} on {recipe.data.dataset}, {iterations} iterations of {batch} images "
        f"({iterations * batch / images:.1f} epochs of {images}), {where}"
    )
    log.info("run directory: %s", folder.path)


def _same_on_all_ranks(path: Path, ranks: Ranks) -> Path:
    """The main rank's path: its name may have been drawn."""
    box = [str(path)]
    if ranks.world > 1:
        dist.broadcast_object_list(box)
    return Path(box[0])
