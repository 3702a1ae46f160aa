"""hwdkit in Python: what `import hwdkit` offers, on top of everything else. docs/python.md shows all."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from torch import nn
from torch.utils.data import Dataset

from hwdkit.checkpoints.files import load_model
from hwdkit.commands.train import run as recipes
from hwdkit.data.iterables import Reader, pairs, training_batches
from hwdkit.distributed import Ranks, started
from hwdkit.engine import build
from hwdkit.engine.evaluate import Evaluation
from hwdkit.engine.evaluate import evaluate as evaluate_network
from hwdkit.engine.networks import load_network, load_weights, network_in, self_description
from hwdkit.engine.objectives import Objective, frozen_teacher
from hwdkit.engine.run import Run, Trained, finished
from hwdkit.engine.rundir import RunDir
from hwdkit.engine.train import train as train_run
from hwdkit.errors import RecipeError
from hwdkit.losses import Loss
from hwdkit.models.adapted import adapt
from hwdkit.models.network import Network
from hwdkit.models.segmenter import Segmenter
from hwdkit.recipe import settings as written
from hwdkit.recipe.load import in_line
from hwdkit.recipe.load import load as load_recipe
from hwdkit.recipe.protocol import Protocol

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
        student: trained in place; of `adapt` or `load`.
        teacher: put into eval mode and frozen for good; None when no loss reads one.
        data: a Dataset of (image, label), shuffled and batched here, or an iterable of batches, such as a
            DataLoader. Images are uint8 RGB (3, H, W), labels (H, W) class numbers, 255 = ignore.
        losses: name -> loss, with its factor: `{"ce": CrossEntropy(), "hwd": 3.0 * HWD(mu=1.0)}`.
        iterations: optimizer steps.
        lr: of the first step; it decays as (1 - step / iterations) ** 0.9.
        batch_size: of a Dataset.
        validate: data for the mIoU every `evaluate_every` steps and at the end.
        classes: their names, for reports.
        out: an ordinary run directory; must be new or empty. None: nothing is written.
        resume: continue the run in `out`, exactly: same arguments, same data.
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
        DivergedError, Interrupted: as on the command line.
    """
    given = written.settings(
        seed=seed,
        optimizer={"lr": lr, **(optimizer or {})},
        train={"iterations": iterations, "batch_size": batch_size, **(train or {})},
    )
    _require_networks(student, teacher, losses)
    if resume and out is None:
        raise RecipeError("resume=True needs out=: the run directory to continue")
    folder = RunDir(Path(out)) if out is not None else None
    text = written.dump(given, {name: (type(loss).__name__, loss.factor) for name, loss in losses.items()})
    if folder and resume:
        if trained := finished(folder):
            log.info("%s is finished: nothing to do", folder.path)
            return trained
        written.require_same(folder.recipe, text)
    elif folder:
        folder.require_unused()
    reader = Reader(student.classes, normalises=_normalises(student, teacher))
    with started(cpu=cpu) as ranks, _plain_log():
        torch.manual_seed(seed)
        objective = Objective(student, losses)
        build.require_possible(given.train, ranks.device)
        training = build.optimised(objective, given, ranks)

        def stream(step: int) -> Any:
            return training_batches(
                data,
                reader,
                batch_size=given.train.batch_size,
                seed=seed,
                start_step=step,
                rank=ranks.rank,
                world=ranks.world,
                accumulate=given.train.accumulate,
                workers=workers,
            )

        teach = None
        if teacher is not None:
            teach = frozen_teacher(
                teacher.to(ranks.device),
                taps=objective.teacher_taps,
                amp=build.amp_type(given.train.amp),
                aux=objective.reads_teacher_aux,
            )
        return train_run(
            training,
            stream,
            teach,
            plan=build.plan(given),
            run=Run(
                name=folder.path.name if folder else type(student).__name__,
                describe=_describe(student, classes, name=folder.path.name if folder else ""),
                folder=folder,
                recipe=text,
                facts={"command": "fit", "teacher_sha256": _digest(teacher) if teacher is not None else None},
                resume=resume,
                keep_evaluated=given.train.keep_evaluated,
                resumed_by="the same call of hwdkit.fit with resume=True",
                on_start=lambda: log.info("run directory: %s", folder.path) if folder else None,
            ),
            evaluate=_validation(validate, reader, ranks) if validate is not None else None,
            ranks=ranks,
        )


def evaluate(
    network: Network, data: Data, *, protocol: Protocol | None = None, cpu: bool = False
) -> Evaluation:
    """Count a network's class maps against the labels, at the images' own size.

    Args:
        network: of `adapt` or `load`; its training mode is kept.
        data: as in `fit`; images may differ in size when they come one at a time.
        protocol: windows, scales, flips, and the rule for absent classes; None: whole images once.
        cpu: do not use a GPU.

    Returns:
        `miou`, `macc`, `pixel_accuracy` and `iou` per class, in 0..1; NaN for a class that does not occur.

    Raises:
        DataError: an image or a label is not what it must be.
    """
    _require_network("network", network)
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
    with _plain_log():
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
    file = Path(path)
    file = (network_in(file) or file) if file.is_dir() else file
    state, _ = load_model(file)
    load_weights(into, state, where=str(file))
    return into.eval()


def _require_networks(student: Network, teacher: Network | None, losses: Mapping[str, Loss]) -> None:
    """Refuse networks and losses that cannot go together, before anything is trained."""
    _require_network("student", student)
    if teacher is not None:
        _require_network("teacher", teacher)
        if teacher.classes != student.classes:
            raise RecipeError(f"student has {student.classes} classes, teacher {teacher.classes}")
    if not losses:
        raise RecipeError("losses: there is nothing to train")
    for name, loss in losses.items():
        if not isinstance(loss, Loss):
            raise RecipeError(
                f"losses: {name!r} is a {type(loss).__name__}, not a Loss",
                hint="derive it from hwdkit.losses.Loss: see docs/python.md",
            )
        if loss.reads_teacher and teacher is None:
            raise RecipeError(f"losses: {name!r} compares the student with a teacher, and there is none")
        try:
            student.check_taps(loss.taps)
            if teacher is not None:
                teacher.check_taps(loss.teacher_taps)
        except ValueError as error:
            raise RecipeError(
                f"losses: {name!r}: {error}", hint="name it in adapt(..., taps={...})"
            ) from error
        if loss.reads_teacher_aux and not (student.has_aux and teacher is not None and teacher.has_aux):
            raise RecipeError(f"losses: {name!r} compares auxiliary logits, which one of the networks lacks")


def _require_network(name: str, network: object) -> None:
    if not isinstance(network, Network):
        kind = "a module" if isinstance(network, nn.Module) else f"a {type(network).__name__}"
        raise RecipeError(
            f"{name} is {kind}, not a network of hwdkit", hint="use hwdkit.adapt(module, classes=N)"
        )


def _normalises(*networks: Network | None) -> bool:
    """Whether the networks want uint8 RGB; all must want the same.

    Raises:
        RecipeError: one normalises its images itself, another does not.
    """
    wanted = {network.contract is not None for network in networks if network is not None}
    if len(wanted) > 1:
        raise RecipeError(
            "student and teacher are shown the same images: give contract=None to both or to none"
        )
    return wanted.pop()


def _describe(student: Network, classes: Sequence[str] | None, *, name: str) -> Callable[..., dict[str, Any]]:
    """What a checkpoint says about itself."""
    names = tuple(classes) if classes is not None else tuple(f"class {i}" for i in range(student.classes))
    if len(names) != student.classes:
        raise RecipeError(f"classes names {len(names)}, but the student has {student.classes}")

    palette = [[(37 * i) % 256, (91 * i) % 256, (151 * i) % 256] for i in range(student.classes)]

    def describe(step: int, metrics: Mapping[str, Any]) -> dict[str, Any]:
        about = {"classes": list(names), "palette": palette, "dataset": name or "none", "role": "student"}
        return {**self_description(student), **about, "recipe": name, "step": step, "metrics": dict(metrics)}

    return describe


def _validation(data: Data, reader: Reader, ranks: Ranks) -> Callable[[Network], dict[str, Any]]:
    def validate(student: Network) -> dict[str, Any]:
        result = _evaluation(student, data, reader, ranks, Protocol())
        return {"miou": result.miou, "macc": result.macc, "pixel_accuracy": result.pixel_accuracy}

    return validate


def _evaluation(network: Network, data: Data, reader: Reader, ranks: Ranks, protocol: Protocol) -> Evaluation:
    shared = (pair for pair in pairs(data, reader) if pair[0] % ranks.world == ranks.rank)
    return evaluate_network(network, shared, protocol, ranks=ranks)


def _digest(network: nn.Module) -> str:
    """SHA-256 of a network's weights: a resumed run must have the same teacher."""
    sha = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


@contextmanager
def _plain_log() -> Iterator[None]:
    """Show the log on stderr as the command line does, unless the caller's program handles it already."""
    from hwdkit.terminal import console

    if not (log.handlers or logging.getLogger().handlers):
        console.set_up_logging()
    yield
