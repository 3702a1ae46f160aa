"""From recipe to objects. A recipe dies here: nothing below this file has ever seen one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hwdkit import __version__
from hwdkit.checkpoints.files import load_model, read_state_dict
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.index import DatasetIndex, load_index
from hwdkit.data.stream import train_stream
from hwdkit.distributed import Ranks, sync_batchnorm_on_cpu
from hwdkit.engine.evaluate import Protocol
from hwdkit.engine.loop import Plan, Training
from hwdkit.engine.objectives import Objective, Teach, frozen_teacher
from hwdkit.engine.optim import EMA, optimizer, poly_schedule
from hwdkit.engine.rundir import newest_finished
from hwdkit.errors import CheckpointError, EnvironmentFailure, RecipeError
from hwdkit.losses import LOSSES
from hwdkit.models.backbone import default_contract
from hwdkit.models.contract import InputContract
from hwdkit.models.segmenter import NetworkSpec, Segmenter, convert_sync_batchnorm
from hwdkit.models.segmenter import build as build_segmenter
from hwdkit.recipe.schema import Evaluate, Network, Recipe
from hwdkit.types import Batch

ROLE_FILES = {"student": "student.safetensors", "teacher": "teacher.safetensors"}
FORMAT = 1


def dataset_index(recipe: Recipe, data_root: Path) -> DatasetIndex:
    """The prepared dataset that a recipe names, below the data root."""
    return load_index(data_root / recipe.data.dataset)


def network(section: Network, classes: int) -> Segmenter:
    """A network as a recipe describes it, with ImageNet weights if it asks for them."""
    if section.input is not None:
        contract = InputContract(**section.input.model_dump(), align_corners=section.align_corners)
    else:
        contract = replace(default_contract(section.backbone), align_corners=section.align_corners)
    spec = NetworkSpec(
        backbone=section.backbone,
        backbone_options=dict(section.backbone_options),
        output_stride=section.output_stride,
        head=section.head,
        head_channels=section.head_channels,
        aux=section.aux,
        classes=classes,
        input=contract,
    )
    pretrained = section.pretrained
    weights = read_state_dict(Path(pretrained)) if isinstance(pretrained, str) else pretrained
    return build_segmenter(spec, pretrained=weights)


@dataclass(frozen=True)
class Loaded:
    """A network from a checkpoint, and what the checkpoint says about itself."""

    model: Segmenter
    path: Path
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    metadata: dict[str, Any]


def load_network(path: Path) -> Loaded:
    """Rebuild a network from a self-describing checkpoint, or from a run directory that holds one.

    Raises:
        CheckpointError: missing, damaged, not hwdkit's, or its weights do not fit its description.
    """
    if path.is_dir():
        found = [path / name for name in ROLE_FILES.values() if (path / name).is_file()]
        if not found:
            raise CheckpointError(
                "no student.safetensors or teacher.safetensors here",
                where=str(path),
                hint=f"a run writes it when it ends; continue it: --resume {path}",
            )
        path = found[0]
    state, metadata = load_model(path)
    try:
        spec = NetworkSpec.from_dict(metadata["network"])
        classes = tuple(metadata["classes"])
        palette = tuple((int(r), int(g), int(b)) for r, g, b in metadata["palette"])
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"its description cannot be understood: {error}", where=str(path)) from error
    model = build_segmenter(spec)
    load_weights(model, state, where=str(path))
    return Loaded(model, path, classes, palette, metadata)


def load_weights(model: nn.Module, state: dict[str, torch.Tensor], *, where: str) -> None:
    """Load strictly: every name and shape must match.

    Raises:
        CheckpointError: listing what does not.
    """
    own = model.state_dict()
    problems = [f"missing {name}" for name in own if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in own]
    problems += [
        f"{name} is {tuple(state[name].shape)}, the network needs {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        more = f"\n  and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise CheckpointError(
            "the weights do not fit the network:\n  " + "\n  ".join(problems[:8]) + more, where=where
        )
    model.load_state_dict(state)


def trained_teacher(recipe: Recipe, index: DatasetIndex) -> Loaded:
    """The teacher that a distillation recipe points at.

    Raises:
        CheckpointError: not there, or trained for other classes.
    """
    assert recipe.teacher is not None
    if recipe.teacher.checkpoint is not None:
        path = Path(recipe.teacher.checkpoint)
    elif recipe.teacher.recipe is not None:
        path = newest_finished(recipe.teacher.recipe, ROLE_FILES["teacher"])
    else:
        raise RecipeError(
            "teacher: names a network to train, not a trained one",
            hint="set teacher.checkpoint, or teacher.recipe, or pass --teacher PATH",
        )
    loaded = load_network(path)
    require_classes(loaded, index)
    return loaded


def require_classes(loaded: Loaded, index: DatasetIndex) -> None:
    """Refuse a checkpoint made for other classes than the dataset's.

    Raises:
        CheckpointError: naming both.
    """
    if loaded.classes == index.classes:
        return
    ours, theirs = len(index.classes), len(loaded.classes)
    differ = next(
        (f": {a!r} against {b!r}" for a, b in zip(loaded.classes, index.classes, strict=False) if a != b), ""
    )
    raise CheckpointError(
        f"checkpoint has {theirs} classes, dataset {index.name} has {ours}{differ if ours == theirs else ''}",
        where=str(loaded.path),
        hint=f"it was trained on {loaded.metadata.get('dataset', 'another dataset')}",
    )


def objective(recipe: Recipe, student: Segmenter) -> Objective:
    """The student with every loss whose weight is not zero.

    Raises:
        RecipeError: a loss refuses its options.
    """
    losses: dict[str, nn.Module] = {}
    for name, entry in recipe.losses.items():
        if entry.weight == 0:
            continue
        options = entry.constructor_options()
        if entry.loss == "ce":
            options["align_corners"] = student.contract.align_corners
        try:
            losses[name] = LOSSES[entry.loss](**options)
        except ValueError as error:
            raise RecipeError(str(error), where=f"losses.{name}") from error
    if not losses:
        raise RecipeError("every loss has weight 0: there is nothing to train", where="losses")
    return Objective(student, losses, {name: recipe.losses[name].weight for name in losses})


def training(recipe: Recipe, student: Segmenter, ranks: Ranks) -> Training:
    """The student, its losses and its optimizer on this rank's device."""
    if recipe.train.amp == "fp16" and ranks.device.type != "cuda":
        raise EnvironmentFailure("train.amp: fp16 needs a GPU", hint="use --set train.amp=bf16 or off")
    if ranks.world > 1:
        shared = convert_sync_batchnorm if ranks.device.type == "cuda" else sync_batchnorm_on_cpu
        student = shared(student)  # type: ignore[assignment]
    goal = objective(recipe, student).to(ranks.device)
    if recipe.train.channels_last:
        goal = goal.to(memory_format=torch.channels_last)
    ema = EMA(goal.student, recipe.train.ema) if recipe.train.ema else None
    settings = recipe.optimizer
    return Training(
        objective=goal,
        optimizer=optimizer(
            goal.parameters(),
            name=settings.name,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
            betas=settings.betas,
        ),
        scaler=torch.amp.GradScaler(ranks.device.type, enabled=recipe.train.amp == "fp16"),
        ema=ema,
    )


def teach(recipe: Recipe, loaded: Loaded, taps: tuple[str, ...], ranks: Ranks) -> Teach:
    """The teacher as a function on this rank's device."""
    model = loaded.model.to(ranks.device)
    if recipe.train.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return frozen_teacher(model, taps=taps, amp=amp_type(recipe.train.amp))


def amp_type(name: str) -> torch.dtype | None:
    """The autocast type of a recipe's `train.amp`."""
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def plan(recipe: Recipe) -> Plan:
    """How long, how fast and how often, for `fit`."""
    train, settings = recipe.train, recipe.optimizer
    return Plan(
        iterations=train.iterations,
        schedule=poly_schedule(
            lr=settings.lr, power=settings.power, iterations=train.iterations, warmup=settings.warmup
        ),
        seed=recipe.seed,
        log_every=train.log_every,
        evaluate_every=train.evaluate_every,
        save_every=train.save_every,
        amp=amp_type(train.amp),
        clip_grad_norm=train.clip_grad_norm,
    )


def stream(
    recipe: Recipe, index: DatasetIndex, *, start_step: int, ranks: Ranks
) -> Iterator[Sequence[Batch]]:
    """This rank's share of every training batch from `start_step` on."""
    data = recipe.data
    return train_stream(
        SegmentationDataset(index, data.train_split),
        crop=data.crop,
        scales=data.scales,
        flip=data.flip,
        batch_size=recipe.train.batch_size,
        seed=recipe.seed,
        start_step=start_step,
        rank=ranks.rank,
        world=ranks.world,
        accumulate=recipe.train.accumulate,
        workers=data.workers,
    )


def protocol(section: Evaluate) -> Protocol:
    """The evaluation protocol that a recipe names."""
    return Protocol(
        mode=section.mode,
        window=section.window,
        stride=section.stride,
        scales=section.scales,
        flip=section.flip,
        absent=section.absent,
    )


def description(
    recipe: Recipe,
    model: Segmenter,
    index: DatasetIndex,
    *,
    role: str,
    recipe_sha256: str,
    step: int,
    metrics: dict[str, Any],
) -> dict[str, Any]:
    """What a checkpoint says about itself, so that evaluating it needs no recipe."""
    return {
        "format": FORMAT,
        "hwdkit": __version__,
        "role": role,
        "network": model.spec.to_dict(),
        "classes": list(index.classes),
        "palette": [list(colour) for colour in index.palette],
        "dataset": index.name,
        "dataset_fingerprint": index.fingerprint,
        "recipe": recipe.name,
        "recipe_sha256": recipe_sha256,
        "step": step,
        "metrics": metrics,
    }
