"""What test_distributed.py runs in one process and in two. `python gloo_jobs.py FOLDER` is one of the two.

Not a test module: each function does the same work as any number of ranks, on this rank's share of it.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import Dataset

import hwdkit
from hwdkit.distributed import (
    GlooSyncBatchNorm,
    Ranks,
    any_rank,
    mean_over_ranks,
    on_main_rank,
    started,
    sync_batchnorm_on_cpu,
)
from hwdkit.engine import build
from hwdkit.engine.evaluate import evaluate
from hwdkit.engine.loop import Hooks, Plan, fit
from hwdkit.engine.objectives import Objective, frozen_teacher
from hwdkit.engine.optim import poly_schedule
from hwdkit.errors import DivergedError, RecipeError
from hwdkit.losses import KD
from hwdkit.losses.discriminator import Discriminator
from hwdkit.losses.holistic import gradient_penalty, wasserstein_loss
from hwdkit.models.contract import InputContract
from hwdkit.models.segmenter import NetworkSpec, Segmenter
from hwdkit.models.segmenter import build as build_network
from hwdkit.recipe.load import loads_resolved
from hwdkit.recipe.protocol import Protocol
from hwdkit.types import Batch, SegOutput

CLASSES = 5
OPTIONS = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_type": "deep", "stem_width": 8}
RECIPE = """
name: tiny
data: {dataset: scenes}
teacher: {checkpoint: none.safetensors}
student: {backbone: resnet18}
optimizer: {name: sgd, lr: 0.02, weight_decay: 1e-3}
"""
RELATIONS = """
losses:
  mimic: {tap: stage4, teacher_tap: embedding}
  cwd: {tap: embedding, projector: linear_bn_relu}
  cirkd_memory: {pixel_queue: 24, region_queue: 6, pixel_negatives: 30, region_negatives: 10}
  dist: {softmax: false}
  pkd: {}
  pairwise: {}
  ifv: {}
  at: {}
  mgd: {weight: 0.01, mask_ratio: 0}
  af_dcd: {tap: embedding, feature_weight: 0.001, contrast_weight: 0.01, mask_ratio: 0, groups: 4, pool: 1}
"""
DISTIL = "losses: {hwd: {weight: 3.0, area_correction: paper}, cwd: {weight: 2.0}}\n"


def network(seed: int, **changes: Any) -> Segmenter:
    """A tiny network without dropout, which would differ between ranks."""
    values: dict[str, Any] = {"backbone": "resnet18", "backbone_options": OPTIONS, "head_channels": 8}
    torch.manual_seed(seed)
    model = build_network(NetworkSpec(**{**values, "classes": CLASSES, "input": InputContract(), **changes}))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def global_batch(step: int) -> Batch:
    """Four images with very different numbers of ignored pixels; one has none that count."""
    dice = torch.Generator().manual_seed(step)
    image = torch.randint(0, 256, (4, 3, 32, 32), generator=dice, dtype=torch.uint8)
    label = torch.randint(0, CLASSES, (4, 32, 32), generator=dice)
    for i, rows in enumerate((0, 20, 32, 5)):
        label[i, :rows] = 255
    return Batch(image, label)


def share(batch: Batch, ranks: Ranks) -> Batch:
    """This rank's images, as the training stream cuts them."""
    size = len(batch.image) // ranks.world
    place = slice(ranks.rank * size, (ranks.rank + 1) * size)
    return Batch(batch.image[place], batch.label[place])


def shares(ranks: Ranks, accumulate: int = 1) -> Iterator[Sequence[Batch]]:
    step = 0
    while True:
        yield [share(global_batch(step + micro), ranks) for micro in range(accumulate)]
        step += accumulate


def trained(
    ranks: Ranks,
    *,
    text: str = DISTIL,
    accumulate: int = 1,
    steps: int = 4,
    stop: Callable[[], bool] = lambda: False,
    change: Callable[[Objective], None] = lambda _: None,
) -> dict[str, Any]:
    """Train a few steps; what a checkpoint and the log would hold."""
    recipe = loads_resolved(RECIPE + text)
    teacher = network(2, aux=False, head_channels=12)
    torch.manual_seed(recipe.seed)
    run = build.training(recipe, network(1), ranks, teacher)
    change(run.objective)
    rows: list[dict[str, float]] = []
    plan = Plan(
        iterations=steps,
        schedule=poly_schedule(lr=0.02, power=0.9, iterations=steps),
        seed=0,
        log_every=1,
        evaluate_every=1000,
        save_every=1000,
    )
    hooks = Hooks(log=rows.append, evaluate=lambda _: None, save=lambda: None, stop=stop)
    taps = run.objective.teacher_taps
    teach = frozen_teacher(teacher, taps=taps, amp=None) if build.needs_teacher(recipe) else None
    fit(run, shares(ranks, accumulate), teach, plan=plan, hooks=hooks, ranks=ranks)
    state = run.objective.state_dict().items()
    weights = {name: value.clone() for name, value in state if isinstance(value, Tensor)}
    average = run.ema.average if run.ema else {}
    return {"weights": weights, "average": average, "rows": rows, "step": run.step}


def distilled(ranks: Ranks) -> dict[str, Any]:
    return trained(ranks, text=DISTIL + "train: {ema: 0.9, clip_grad_norm: 5.0}")


def related(ranks: Ranks) -> dict[str, Any]:
    """Losses with projectors, with queues, and with statistics of the whole batch."""
    return trained(ranks, text=RELATIONS)


def contested(ranks: Ranks) -> dict[str, Any]:
    """A critic with an optimizer of its own, beside a projector.

    Not Adam: its first steps have the size of its learning rate even where a gradient is rounding noise.
    """
    critic = "{weight: 0.5, critic_optimizer: sgd, critic_lr: 0.1}"
    return trained(ranks, text=f"losses: {{holistic: {critic}, mimic: {{}}}}", accumulate=2, steps=2)


def penalised(ranks: Ranks) -> dict[str, Tensor]:
    """Gradients of a critic with a gradient penalty, which differentiates through its shared batch norm."""
    dice = torch.Generator().manual_seed(6)
    student, teacher = torch.randn(2, 4, 3, 64, 64, generator=dice, dtype=torch.float64)
    a = torch.rand(4, generator=dice, dtype=torch.float64)
    size = 4 // ranks.world
    own = slice(ranks.rank * size, (ranks.rank + 1) * size)
    torch.manual_seed(0)
    critic = Discriminator(3, width=8).double()
    teacher = 3 * teacher + 1
    loss = wasserstein_loss(critic(student[own]), critic(teacher[own]))
    loss = loss + 10 * gradient_penalty(critic, student[own], teacher[own], a[own])
    loss.backward()
    return {name: mean_over_ranks(p.grad) for name, p in critic.named_parameters() if p.grad is not None}


def accumulated(ranks: Ranks) -> dict[str, Any]:
    return trained(ranks, accumulate=2, steps=3)


def without_auxiliary_loss(ranks: Ranks) -> dict[str, Any]:
    return trained(ranks, text="losses: {ce: {aux_weight: 0}}", steps=2)


def stopped_elsewhere(ranks: Ranks) -> int:
    """The step at which all leave when the last rank alone has had a signal."""
    last = ranks.rank == ranks.world - 1
    return int(trained(ranks, text="", steps=12, stop=lambda: last)["step"])


def diverged_elsewhere(ranks: Ranks) -> str:
    """The complaint of every rank when the loss of the last one alone is not a number."""

    def spoil(objective: Objective) -> None:
        if ranks.rank == ranks.world - 1:
            objective.weights["ce"] = float("nan")

    try:
        trained(ranks, text="", steps=2, change=spoil)
    except DivergedError as error:
        return error.message
    return ""


def batch_norm(ranks: Ranks, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """One layer, two training steps, far from zero mean. One process: torch's own layer."""
    torch.manual_seed(0)
    image = (torch.randn(4, 3, 5, 6) * torch.tensor([1.0, 5.0, 0.1])[:, None, None] + 100).to(dtype)
    wanted = torch.randn(4, 3, 5, 6)
    layer: nn.BatchNorm2d = nn.BatchNorm2d(3) if ranks.world == 1 else GlooSyncBatchNorm(3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, -1.0]))
        layer.bias.copy_(torch.tensor([0.5, 0.0, 3.0]))
    size = 4 // ranks.world
    place = slice(ranks.rank * size, (ranks.rank + 1) * size)
    own = image[place].clone().requires_grad_()
    layer(own)
    output = layer(own)
    (output.float() * wanted[place]).sum().backward()
    assert own.grad is not None
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    return {
        "output": output.detach(),
        "input_gradient": own.grad,
        "weight_gradient": layer.weight.grad,
        "bias_gradient": layer.bias.grad,
        **{f"state.{name}": tensor for name, tensor in layer.state_dict().items()},
    }


def batch_norm_bf16(ranks: Ranks) -> dict[str, Tensor]:
    return batch_norm(ranks, torch.bfloat16)


def mobilenet(ranks: Ranks) -> Tensor:
    """Training-mode logits of a network whose batch norms carry their activations."""
    model = network(3, backbone="mobilenetv2_035", backbone_options={}, head="fcn", aux=False)
    if ranks.world > 1:
        model = sync_batchnorm_on_cpu(model)  # type: ignore[assignment]
    logits: Tensor = model.train()(share(global_batch(0), ranks).image).logits
    return logits.detach()


def evaluated(ranks: Ranks) -> dict[str, Any]:
    """Five images over the ranks: not divisible, and of different sizes."""
    model = network(4, aux=False)
    pairs = []
    for i in range(ranks.rank, 5, ranks.world):
        dice = torch.Generator().manual_seed(i)
        image = torch.randint(0, 256, (3, 32 + 8 * i, 40), generator=dice, dtype=torch.uint8)
        pairs.append((i, image, torch.randint(0, CLASSES, image.shape[1:], generator=dice)))
    return evaluate(model, pairs, Protocol(flip=True), ranks=ranks).to_dict(tuple("abcde"))


def every_reduction(ranks: Ranks) -> dict[str, float]:
    """KD over the ranks, averaged as DistributedDataParallel averages gradients."""
    dice = torch.Generator().manual_seed(5)
    maps = torch.randn(2, 4, CLASSES, 6, 6, generator=dice)
    size = 4 // ranks.world
    student, teacher = (SegOutput(part[ranks.rank * size :][:size], None, {}) for part in maps)
    return {
        reduction: float(mean_over_ranks(KD(reduction=reduction)(student, teacher, torch.zeros(1))))
        for reduction in ("pixel", "element", "batch_sum")
    }


class Noise(Dataset[tuple[Tensor, Tensor]]):
    """Eight images that differ each time that they are read, as augmentation makes them."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        label = (torch.arange(32) // 8 + i).remainder(CLASSES).expand(32, 32).contiguous()
        return (label * 40 + torch.randint(0, 9, (3, 32, 32))).to(torch.uint8), label


def fitted(ranks: Ranks) -> dict[str, Any]:
    """`hwdkit.fit`: a module with a frozen batch norm, whose weights each process draws on its own."""
    torch.manual_seed(ranks.rank)
    layers = (nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, CLASSES, 1))
    module, teacher = nn.Sequential(*layers), nn.Conv2d(3, CLASSES, 3, stride=4, padding=1)
    module[1].requires_grad_(False)
    student = hwdkit.adapt(module, CLASSES)
    still = [Noise()[i] for i in range(5)]
    folder = [tempfile.mkdtemp() if ranks.is_main else ""]
    if ranks.world > 1:
        dist.broadcast_object_list(folder)

    def run(network: nn.Module) -> Any:
        return hwdkit.fit(
            network,
            hwdkit.adapt(teacher, CLASSES),
            Noise(),
            losses={"ce": hwdkit.CrossEntropy(), "hwd": hwdkit.HWD(mu=1.0)},
            iterations=3,
            batch_size=4,
            validate=still,
            cpu=True,
            train={"ema": 0.5, "accumulate": 2},
            out=Path(folder[0]) / "run",
            resume=True,  # begins it, then gives it back
        )

    trained = run(student)
    again = hwdkit.adapt(copy.deepcopy(module), CLASSES)
    with torch.no_grad():
        again.module[0].weight.zero_()
    finished = run(again)
    return {
        "given_back": finished.last == trained.last and torch.equal(again.module[0].weight, module[0].weight),
        "weights": dict(module.named_parameters()),
        "last": trained.last,
        "frozen": [name for name, value in module.named_parameters() if not value.requires_grad],
        "evaluated": hwdkit.evaluate(student, still, cpu=True),
    }


def failed_on_main(ranks: Ranks) -> list[str]:
    """What every rank hears of a mistake that only the main one can find."""

    def find() -> None:
        raise RecipeError("already used", where="run", hint="choose another")

    try:
        on_main_rank(find)
    except RecipeError as error:
        return [error.message, error.where, error.hint]
    return []


def agreed(ranks: Ranks) -> list[bool]:
    last = ranks.rank == ranks.world - 1
    return [any_rank(last, ranks.device), any_rank(False, ranks.device), any_rank(True, ranks.device)]


JOBS: tuple[Callable[[Ranks], Any], ...] = (
    distilled,
    related,
    contested,
    penalised,
    accumulated,
    without_auxiliary_loss,
    stopped_elsewhere,
    diverged_elsewhere,
    batch_norm,
    batch_norm_bf16,
    mobilenet,
    evaluated,
    every_reduction,
    fitted,
    failed_on_main,
    agreed,
)


def run_all(ranks: Ranks) -> dict[str, Any]:
    return {job.__name__: job(ranks) for job in JOBS}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with started(cpu=True) as me:
        torch.save(run_all(me), Path(sys.argv[1]) / f"{me.rank}.pt")
