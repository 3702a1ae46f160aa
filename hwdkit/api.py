"""hwdkit in Python: what `import hwdkit` offers, described in docs/python.md."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from torch import nn
from torch.utils.data import Dataset, Subset

from hwdkit.checkpoints.files import load_model
from hwdkit.commands.train import run as recipes
from hwdkit.data.iterables import Reader, is_dataset, pairs, training_batches
from hwdkit.distributed import Ranks, copy_from_main_rank, on_main_rank, started
from hwdkit.engine import build, switches
from hwdkit.engine.custom import (
    describer,
    digest_of,
    normalises,
    options_of,
    require_compatible,
    require_network,
    trainable,
)
from hwdkit.engine.evaluate import Evaluation
from hwdkit.engine.evaluate import evaluate as evaluate_network
from hwdkit.engine.networks import load_network, load_weights, network_file
from hwdkit.engine.objectives import Objective
from hwdkit.engine.run import Run, Trained, finished
from hwdkit.engine.rundir import RunDir
from hwdkit.engine.train import train as train_run
from hwdkit.errors import DataError, RecipeError
from hwdkit.losses import Loss
from hwdkit.models.adapted import adapt
from hwdkit.models.network import Network
from hwdkit.models.segmenter import Segmenter
from hwdkit.recipe import settings as written
from hwdkit.recipe.load import in_line
from hwdkit.recipe.load import load as load_recipe
from hwdkit.recipe.protocol import Protocol
from hwdkit.terminal import console

__all__ = ["Evaluation", "Protocol", "Trained", "adapt", "distill", "evaluate", "fit", "load"]

log = logging.getLogger("hwdkit")

Data = Iterable[Any] | Dataset[Any]
"""Whatever yields (image, label): see `data/iterables.py`."""

Module = TypeVar("Module", bound=nn.Module)


def fit(
    student: Network,
    teacher: Network | None,
    data: Data,
    *,
    losses: Mapping[str, Loss],
    iterations: int,
    lr: float = 0.01,
    batch_size: int = 8,
    validate: Data | None = None,
    classes: Sequence[str] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    workers: int = 0,
    cpu: bool = False,
    optimizer: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
) -> Trained:
    """Train a student by any losses, with or without a teacher, by the loop that recipes are trained by.

    Args:
        student: from `adapt` or `load`; trained in place. Parameters without requires_grad stay as they are;
            with `train={"ema": 0.999}` it ends with the averaged weights.
        teacher: put into eval mode and frozen for good; None when no loss reads one.
        data: a Dataset of (image, label), shuffled and batched here, or an iterable of batches, such as a
            DataLoader. Images are uint8 RGB (3, H, W), labels (H, W) class numbers, 255 = ignore.
        losses: name -> loss, with its factor: `{"ce": CrossEntropy(), "hwd": 3.0 * HWD(mu=1.0)}`.
        iterations: optimizer steps.
        lr: of the first step; it decays as (1 - step / iterations) ** 0.9.
        batch_size: of a Dataset.
        validate: data for the mIoU every `evaluate_every` steps and at the end, as in `evaluate`.
        classes: their names, for reports; by default those of the checkpoint that the student was loaded
            from.
        out: an ordinary run directory; must be new or empty. None: nothing is written.
        resume: continue the run in `out` exactly, if there is one: same arguments, same data.
        seed: of data order, augmentation and dropout.
        workers: loader processes for a Dataset.
        cpu: do not use a GPU.
        optimizer: further keys of a recipe's section `optimizer`, such as `{"name": "adamw"}`.
        train: further keys of a recipe's section `train`, such as `{"amp": "bf16", "evaluate_every": 500}`.

    Returns:
        What came out: `best` and `last` metrics, the run directory, seconds.

    Raises:
        RecipeError: an argument makes no sense, or `out` holds another run.
        DataError: an image or a label is not what it must be.
        DivergedError: a loss or a weight is not finite.
        Cancelled, Interrupted: Ctrl-C or SIGTERM, after saving to `out`. Without `out`, or in a thread other
            than the main one, they are Python's own.
    """
    settings = written.settings(
        seed=seed,
        optimizer={"lr": lr, **(optimizer or {})},
        train={"iterations": iterations, "batch_size": batch_size, **(train or {})},
    )
    require_compatible(student, teacher, losses)
    reader = Reader(student.classes, normalises=normalises(student, teacher))
    if resume and out is None:
        raise RecipeError("resume=True needs out=: the run directory to continue")
    folder = RunDir(Path(out)) if out is not None else None
    name = folder.path.name if folder else student.name
    text = written.dump(settings, {name: options_of(loss) for name, loss in losses.items()})
    with switches.for_training(settings.train.deterministic), started(cpu=cpu) as ranks, trainable(student):
        _show_log()
        begun = folder is not None and resume and (folder.last.is_file() or finished(folder) is not None)
        if folder and begun:
            written.require_same(folder.recipe, text)
            if trained := finished(folder):
                log.info("%s is finished: nothing to do", folder.path)
                load(folder.path, into=student)
                return trained
        elif folder:  # the main rank takes it when all have asked
            on_main_rank(lambda: folder.require_unused(or_unsaved=resume))
        for loss in losses.values():  # all resize as the network that learns
            loss.align_corners = student.align_corners
        torch.manual_seed(seed)
        build.require_possible(settings.train, ranks.device)
        training = build.optimised(Objective(student, losses), settings, ranks)
        teach = None
        if teacher is not None:
            copy_from_main_rank(teacher.to(ranks.device))
            teach = build.teach(settings.train, teacher, training.objective, ranks)

        def stream(step: int) -> Any:
            return training_batches(
                data,
                reader,
                batch_size=settings.train.batch_size,
                seed=seed,
                start_step=step,
                rank=ranks.rank,
                world=ranks.world,
                accumulate=settings.train.accumulate,
                workers=workers,
            )

        def validation(student: Network) -> dict[str, Any]:
            assert validate is not None
            with switches.for_validation(compiled=settings.train.compile):
                return _evaluation(student, validate, reader, ranks, Protocol()).scores()

        trained = train_run(
            training,
            stream,
            teach,
            plan=build.plan(settings),
            run=Run(
                name=name,
                describe=describer(student, classes, name=name if folder else ""),
                folder=folder,
                recipe=text,
                facts={
                    "command": "fit",
                    "teacher_sha256": digest_of(teacher) if teacher is not None else None,
                },
                resume=begun,
                restart=resume,
                keep_evaluated=settings.train.keep_evaluated,
                resumed_by="the same call of hwdkit.fit with resume=True",
                on_start=lambda: log.info("run directory: %s", folder.path) if folder else None,
            ),
            evaluate=validation if validate is not None else None,
            ranks=ranks,
        )
        if training.ema:
            student.load_state_dict(training.ema.average)
        return trained


def evaluate(
    network: Network, data: Data, *, protocol: Protocol | None = None, cpu: bool = False
) -> Evaluation:
    """Count a network's class maps against the labels, at the images' own size.

    Args:
        network: from `adapt` or `load`; its training mode is kept.
        data: as in `fit`; images may differ in size when they come one at a time. Of several processes each
            takes its share of a Dataset; a DataLoader must yield the process's own.
        protocol: windows, scales, flips, and the rule for absent classes; None: whole images once.
        cpu: do not use a GPU.

    Returns:
        `miou`, `macc`, `pixel_accuracy` and `iou` per class, in 0..1; NaN for a class that does not occur.

    Raises:
        DataError: an image or a label is not what it must be.
    """
    require_network("network", network)
    reader = Reader(network.classes, normalises=network.contract is not None)
    training = network.training
    with started(cpu=cpu) as ranks:
        try:
            return _evaluation(network.to(ranks.device), data, reader, ranks, protocol or Protocol())
        finally:
            network.train(training)


def distill(
    recipe: str | Path,
    *,
    teacher: str | Path | None = None,
    iterations: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    data_root: str | Path = "data",
    out: str | Path | None = None,
    cpu: bool = False,
) -> Trained:
    """Train the student of a recipe, as `hwdkit distill` does.

    Args:
        recipe: its name or a path.
        teacher: checkpoint or run directory; wins over the recipe's.
        iterations: optimizer steps; None: as the recipe says.
        overrides: dotted key -> value, as `--set`: `{"losses.hwd.beta": 0.3}`.
        data_root: folder of the prepared datasets.
        out: run directory, new or empty; None makes one under ./runs.
        cpu: do not use a GPU.

    Raises:
        HwdkitError: as on the command line.
    """
    changes = dict(overrides or {})
    if iterations is not None:
        changes["train.iterations"] = iterations
    loaded = load_recipe(recipe, overrides=[f"{key}={in_line(value)}" for key, value in changes.items()])
    by = str(teacher) if teacher is not None else None
    _show_log()
    return recipes.train(
        loaded.student_taught(by=by), data_root=Path(data_root), out=Path(out) if out else None, cpu=cpu
    )


@overload
def load(path: str | Path) -> Segmenter: ...
@overload
def load(path: str | Path, *, into: Module) -> Module: ...
def load(path: str | Path, *, into: nn.Module | None = None) -> nn.Module:
    """A trained network in evaluation mode: `load("runs/mine")(image).logits`.

    Args:
        path: a run directory or a .safetensors file.
        into: the module, adapted or not, that a run of `fit` trained: its weights are replaced. Networks of
            hwdkit need none, their files describe them.

    Raises:
        CheckpointError: missing, damaged, or for another network.
    """
    if into is None:
        return load_network(Path(path)).model.eval()
    file = network_file(Path(path))
    state, _ = load_model(file)
    load_weights(into, state, where=str(file))
    return into.eval()


def _evaluation(network: Network, data: Data, reader: Reader, ranks: Ranks, protocol: Protocol) -> Evaluation:
    """A Dataset is shared out between processes; anything else yields each process's own share."""
    if is_dataset(data):
        data = Subset(data, range(ranks.rank, len(data), ranks.world))  # type: ignore[arg-type]
    result = evaluate_network(network, pairs(data, reader), protocol, ranks=ranks)
    if not result.images:
        raise DataError(
            "there is no image to evaluate", hint="a generator can be read only once: pass a Dataset"
        )
    return result


def _show_log() -> None:
    """Show the log on stderr as the command line does, unless the caller's program handles it already."""
    if not (log.handlers or logging.getLogger().handlers):
        console.set_up_logging()
