"""From recipe to objects: networks, losses, optimizer and batches. Nothing below knows recipes."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from hwdkit.checkpoints.files import read_state_dict
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.index import DatasetIndex
from hwdkit.data.stream import train_stream
from hwdkit.distributed import Ranks, copy_from_main_rank, sync_batchnorm_on_cpu
from hwdkit.engine import requirements
from hwdkit.engine.loop import Plan, Training
from hwdkit.engine.objectives import Objective, Teach, frozen_teacher, ramp
from hwdkit.engine.optim import EMA, optimizer, poly_schedule
from hwdkit.engine.rundir import newest_finished
from hwdkit.errors import CheckpointError, RecipeError
from hwdkit.kernels import choice
from hwdkit.losses import LOSSES, Loss
from hwdkit.losses.features import LOGITS
from hwdkit.models.backbone import default_contract
from hwdkit.models.contract import InputContract
from hwdkit.models.folding import fold_batch_norm
from hwdkit.models.network import Network
from hwdkit.models.segmenter import NetworkSpec, Segmenter, convert_sync_batchnorm
from hwdkit.models.segmenter import build as build_segmenter
from hwdkit.recipe import schema
from hwdkit.recipe.losses import LossOptions
from hwdkit.recipe.schema import Recipe, Train
from hwdkit.recipe.settings import Settings
from hwdkit.types import Batch


def network(section: schema.Network, classes: int) -> Segmenter:
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
    return build_segmenter(spec, pretrained=pretrained_weights(section))


def pretrained_weights(section: schema.Network) -> bool | dict[str, Tensor]:
    """What a recipe's `pretrained` asks for: timm's own weights or not, or the content of a file.

    Raises:
        CheckpointError: the file is missing or no state dict.
    """
    if isinstance(section.pretrained, bool):
        return section.pretrained
    try:
        return read_state_dict(Path(section.pretrained))
    except CheckpointError as error:
        hint = f"`pretrained` of {section.backbone} names it: timm's ImageNet weights, .safetensors or .pth"
        raise CheckpointError(error.message, where=error.where, hint=hint) from error


def needs_teacher(recipe: Recipe) -> bool:
    """Whether any loss of the student compares it with a teacher."""
    return any(loss.loss != "ce" and loss.weight for loss in recipe.losses.values())


def teacher_checkpoint(recipe: Recipe) -> Path:
    """The path of the teacher that a distillation recipe names.

    Raises:
        CheckpointError: there is none.
        RecipeError: the recipe describes a teacher to train, not a trained one.
    """
    assert recipe.teacher is not None
    if recipe.teacher.checkpoint is not None:
        return Path(recipe.teacher.checkpoint)
    if recipe.teacher.recipe is not None:
        return newest_finished(recipe.teacher.recipe, "teacher.safetensors")
    raise RecipeError(
        "teacher: names a network to train, not a trained one",
        hint="set teacher.checkpoint, or teacher.recipe, or pass --teacher PATH",
    )


def objective(recipe: Recipe, student: Network, teacher: Network | None = None) -> Objective:
    """The student with every loss whose weight is not zero.

    Args:
        recipe: names the losses.
        student: the network to train.
        teacher: whose maps they compare it with; None without a teacher.

    Raises:
        RecipeError: a loss refuses its options, or reads a map that a network does not have.
    """
    entries = {name: entry for name, entry in recipe.losses.items() if entry.weight}
    if not entries:
        raise RecipeError("every loss has weight 0: there is nothing to train", where="losses")
    losses: dict[str, Loss] = {}
    for name, entry in entries.items():
        try:
            losses[name] = _loss(entry, student, teacher, micro_batches=recipe.train.accumulate)
        except ValueError as error:
            raise RecipeError(str(error), where=f"losses.{name}") from error
    ramps = {
        name: ramp(**entry.schedule.model_dump())
        for name, entry in entries.items()
        if entry.schedule.warmup or entry.schedule.decay
    }
    return Objective(student, losses, {name: entry.weight for name, entry in entries.items()}, ramps)


def _loss(entry: LossOptions, student: Network, teacher: Network | None, *, micro_batches: int) -> Loss:
    """One loss, with the facts about networks and training that its constructor has parameters for."""
    options = entry.constructor_options()
    tap = options.get("tap", LOGITS)
    facts: dict[str, object] = {
        "align_corners": student.align_corners,
        "micro_batches": micro_batches,
        "classes": student.classes,
        "student_channels": _channels(student, tap),
    }
    if teacher is not None:
        facts["teacher_channels"] = _channels(teacher, options.get("teacher_tap") or tap)
    parameters = inspect.signature(LOSSES[entry.loss]).parameters
    loss = LOSSES[entry.loss](**options, **{key: value for key, value in facts.items() if key in parameters})
    if loss.reads_teacher_aux:
        for role, network in (("student", student), ("teacher", teacher)):
            if network is not None and not network.has_aux:
                raise ValueError(f"aux_weight compares auxiliary heads; the {role} has none")
    return loss


def _channels(network: Network, tap: object) -> int:
    if tap == LOGITS:
        return network.classes
    network.check_taps([str(tap)])
    return network.tap_channels[str(tap)]


def training(recipe: Recipe, student: Network, ranks: Ranks, teacher: Network | None = None) -> Training:
    """The student, its losses and its optimizer on this rank's device."""
    require_possible(recipe.train, ranks.device)
    return optimised(objective(recipe, student, teacher), recipe, ranks)


def optimised(objective: Objective, recipe: Recipe | Settings, ranks: Ranks) -> Training:
    """An objective and its optimizer on this rank's device."""
    if ranks.world > 1:
        # The losses' projectors too: their statistics must not drift apart between ranks.
        shared = convert_sync_batchnorm if ranks.device.type == "cuda" else sync_batchnorm_on_cpu
        objective = shared(objective)  # type: ignore[assignment]
    objective = objective.to(ranks.device)
    copy_from_main_rank(objective)  # before the average of its weights begins
    _freeze_unused(objective)
    if recipe.train.channels_last:
        requirements.require_sound_channels_last(objective, ranks.device)
        objective = objective.to(memory_format=torch.channels_last)
    if recipe.train.compile:
        objective.student.compile()
    choice.choose(recipe.train.kernels)
    ema = EMA(objective.student, recipe.train.ema) if recipe.train.ema else None
    settings = recipe.optimizer
    return Training(
        objective=objective,
        optimizer=optimizer(
            objective.named_parameters(),
            name=settings.name,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
            betas=settings.betas,
            head_lr=settings.head_lr,
            decay_norms=settings.decay_norms,
        ),
        scaler=torch.amp.GradScaler(ranks.device.type, enabled=recipe.train.amp == "fp16"),
        ema=ema,
    )


def require_possible(section: Train, device: torch.device) -> None:
    """Refuse what a device cannot do; see `requirements.require_possible`."""
    requirements.require_possible(
        device,
        amp=section.amp,
        deterministic=section.deterministic,
        compiled=section.compile,
        kernels=section.kernels,
    )


def _freeze_unused(objective: Objective) -> None:
    """Freeze what no loss reaches: an auxiliary head without a weight, branches that a backbone does not use.

    DistributedDataParallel would wait for their gradients. They never get any, so nothing else changes.
    """
    student = objective.student
    losses = objective.losses.values()
    reads_aux = any(loss.reads_aux for loss in losses)
    reads_logits = any(loss.reads_logits for loss in losses)
    device = next(student.parameters()).device
    mode = student.training
    output = student.eval()(student.blank(device), objective.taps, aux=reads_aux)
    student.train(mode)
    maps = [output.logits if reads_logits else None, output.aux, *output.taps.values()]
    reached = torch.stack([tensor.sum() for tensor in maps if tensor is not None]).sum()
    parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
    for parameter, gradient in zip(
        parameters, torch.autograd.grad(reached, parameters, allow_unused=True), strict=True
    ):
        parameter.requires_grad_(gradient is not None)


def teach(section: Train, teacher: Network, objective: Objective, ranks: Ranks) -> Teach:
    """The teacher as a function on this rank's device, giving what the objective reads of it."""
    if isinstance(teacher, Segmenter):
        teacher = fold_batch_norm(teacher.eval())
    teacher = teacher.to(ranks.device)
    if section.channels_last:
        teacher = teacher.to(memory_format=torch.channels_last)
    if section.compile:
        teacher.compile()
    return frozen_teacher(
        teacher, taps=objective.teacher_taps, amp=amp_type(section.amp), aux=objective.reads_teacher_aux
    )


def amp_type(name: str) -> torch.dtype | None:
    """The autocast type of a recipe's `train.amp`."""
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def plan(recipe: Recipe | Settings) -> Plan:
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
) -> Generator[Sequence[Batch], None, None]:
    """This rank's share of every training batch from `start_step` on."""
    data = recipe.data
    return train_stream(
        SegmentationDataset(index, data.train_split),
        crop=data.crop,
        scales=data.scales,
        flip=data.flip,
        photometric=data.photometric,
        batch_size=recipe.train.batch_size,
        seed=recipe.seed,
        start_step=start_step,
        rank=ranks.rank,
        world=ranks.world,
        accumulate=recipe.train.accumulate,
        workers=data.workers,
        pin=ranks.device.type == "cuda",
    )
