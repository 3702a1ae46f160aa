"""A whole distillation step beside the plain way: ResNet-101 teaches ResNet-18, 512x512, 150 classes.

The plain way runs the teacher as it was trained, auxiliary head included, in the usual memory layout; its
losses are those of plain.py and its optimizer is torch's SGD as it comes. Ours folds the teacher's batch
norm, leaves its auxiliary head out, and keeps channels last; in bf16 both networks compute under autocast.
Dropout is off in all of them, so that their losses can be compared.

    python benchmarks/distil_step.py
    python benchmarks/distil_step.py --quick --json
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import plain
import torch
from goals import Row, memory_row, show, time_row
from hwd_loss import AUX_WEIGHT, HWD_WEIGHT
from measurement import Work, begin, interleaved, parser, random_batch
from step import step
from torch import Tensor, nn

from hwdkit.distributed import Ranks
from hwdkit.engine import build
from hwdkit.engine.loop import Training
from hwdkit.engine.objectives import Teach
from hwdkit.measure.memory import peak_bytes
from hwdkit.models.segmenter import Segmenter
from hwdkit.recipe import load
from hwdkit.recipe.schema import Recipe
from hwdkit.types import Batch

CLASSES = 150
OURS = {"ours, fp32": "off", "ours, bf16": "bf16"}
GOALS = {"ours, fp32": (1.15, 2.0), "ours, bf16": (2.3, None)}
"""Times as fast, times less memory."""


def main() -> None:
    arguments = parse()
    device = begin(arguments)
    student, teacher = networks(arguments.recipe)
    crop = (arguments.crop, arguments.crop)
    batch = random_batch(arguments.images, crop, CLASSES, device)
    ways: dict[str, Work] = {"plain": plain_step(student, teacher, batch)}
    losses = {"plain": plain_losses(student, teacher, batch)}
    for name, amp in OURS.items():
        # The small networks of --quick are refused with channels last: torch crashes in them on a CPU.
        run, teach = product(student, teacher, Ranks(0, 1, device), amp, channels_last=not arguments.quick)
        losses[name] = our_losses(run, teach, batch, amp)
        ways[name] = step(run, batch, teach, amp)
    times = interleaved(ways, rounds=arguments.rounds, device=device)
    peaks = {name: peak_bytes(work, device) for name, work in ways.items()}
    what = f"step, {arguments.images} x {arguments.crop} x {arguments.crop}"
    rows: list[Row] = []
    for name in OURS:
        faster, smaller = GOALS[name] if not arguments.quick else (None, None)
        label = f"{what}, {name.split()[-1]}"
        bound = (
            "convolutions at the speed of matrix products: ~1.2 times"
            if name.endswith("32")
            else "~2.7 times"
        )
        rows.append(time_row(label, times, ours=name, least=faster, floor=f"{bound} (study)"))
        rows.append(memory_row(label, peaks[name], peaks["plain"], least=smaller))
    show(rows, arguments, loss=losses, same_mathematics=apart(losses))


def networks(name: str, classes: int = CLASSES) -> tuple[Segmenter, Segmenter]:
    """The untrained student and teacher of a recipe, without dropout, on the CPU."""
    recipe = described(name)
    assert recipe.student is not None
    assert recipe.teacher is not None
    assert recipe.teacher.recipe is not None
    theirs = load(recipe.teacher.recipe).teacher
    assert theirs is not None
    pair = []
    for section in (recipe.student, theirs):
        model = build.network(section.model_copy(update={"pretrained": False}), classes)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        pair.append(model)
    return pair[0], pair[1]


def described(name: str, amp: str = "off", *, channels_last: bool = True) -> Recipe:
    return load(name, overrides=[f"train.amp={amp}", f"train.channels_last={str(channels_last).lower()}"])


def product(
    student: Segmenter, teacher: Segmenter, ranks: Ranks, amp: str = "off", *, channels_last: bool = True
) -> tuple[Training, Teach]:
    """The student, its losses and optimizer, and the teacher, as `hwdkit distill` makes them."""
    recipe = described("ade20k-r18-hwd", amp, channels_last=channels_last)
    run = build.training(recipe, copy.deepcopy(student), ranks, teacher)
    return run, build.teach(recipe.train, teacher, run.objective, ranks)


def our_losses(run: Training, teach: Teach, batch: Batch, amp: str) -> float:
    """The total loss of the networks as they begin; batch norm's statistics move, no step changes."""
    kind = build.amp_type(amp)
    run.objective.train()
    hints = teach(batch.image)
    with torch.no_grad(), torch.autocast(batch.image.device.type, dtype=kind, enabled=kind is not None):
        terms = run.objective(batch, hints)
    return float(torch.stack(list(terms.values())).sum())


def plain_total(student: Segmenter, teacher: Segmenter) -> Callable[[Batch], Tensor]:
    """CE + 0.4 CE of the auxiliary head + 3 HWD."""

    def total(batch: Batch) -> Tensor:
        with torch.no_grad():
            hints = teacher(batch.image, aux=True)
        output = student(batch.image)
        loss = plain.upsampled_ce(output.logits, batch.label)
        loss = loss + AUX_WEIGHT * plain.upsampled_ce(output.aux, batch.label)
        return loss + HWD_WEIGHT * plain.hwd(output.logits, hints.logits, batch.label)

    return total


def plain_losses(student: Segmenter, teacher: Segmenter, batch: Batch) -> float:
    student, teacher = (copy.deepcopy(model).to(batch.image.device) for model in (student, teacher))
    with torch.no_grad():
        return float(plain_total(student.train(), teacher.eval())(batch))


def plain_step(student: Segmenter, teacher: Segmenter, batch: Batch) -> Work:
    device = batch.image.device
    student = copy.deepcopy(student).to(device).train()
    teacher = copy.deepcopy(teacher).to(device).eval()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    total = plain_total(student, teacher)

    def work() -> None:
        total(batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    return work


def apart(losses: dict[str, float]) -> dict[str, float]:
    """Relative difference from the plain way's loss; in float32 it must be rounding."""
    found = {name: abs(losses[name] / losses["plain"] - 1) for name in OURS}
    assert found["ours, fp32"] < 1e-4, f"the two ways compute different things: {losses}"
    return found


def parse() -> argparse.Namespace:
    options = parser(__doc__, rounds=3, quick="crops of 64, a ResNet-10 teacher")
    options.add_argument("--recipe", default="ade20k-r18-hwd", help="whose student and teacher")
    options.add_argument("--images", type=int, default=2)
    options.add_argument("--crop", type=int, default=512)
    arguments = options.parse_args()
    if arguments.quick:
        arguments.recipe, arguments.crop, arguments.rounds = "scenes-r10-hwd", 64, 1
    return arguments


if __name__ == "__main__":
    main()
