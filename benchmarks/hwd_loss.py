"""HWD forward and backward, and all of a student's losses together, beside the plain way.

python benchmarks/hwd_loss.py
python benchmarks/hwd_loss.py --quick --json
"""

from __future__ import annotations

import argparse

import plain
import torch
from goals import PROMISED, Row, memory_row, most_row, show, time_row
from measurement import Work, begin, interleaved, operations, parser, random_batch
from torch import Tensor

from hwdkit.kernels import channel_kl
from hwdkit.losses.cross_entropy import CrossEntropy
from hwdkit.losses.hwd import HWD
from hwdkit.measure.memory import peak_bytes
from hwdkit.types import SegOutput

AUX_WEIGHT, HWD_WEIGHT = 0.4, 3.0


def main() -> None:
    arguments = parse()
    device = begin(arguments)
    rows, errors = [], {}
    for classes in arguments.classes:
        shape = (arguments.images, classes, arguments.side, arguments.side)
        maps = [torch.randn(shape, device=device).mul_(4) for _ in range(3)]
        side = 8 * arguments.side
        label = random_batch(arguments.images, (side, side), classes, device).label
        alone, more = of_hwd(maps, label, arguments)
        rows += alone
        errors[f"HWD, C {classes}"] = more
        together, error = of_all(maps, label, arguments)
        rows += together
        errors[f"together, C {classes}"] = error
    show(rows, arguments, against_plain=errors)


def of_hwd(
    maps: list[Tensor], label: Tensor, arguments: argparse.Namespace
) -> tuple[list[Row], dict[str, float]]:
    """Time, peak memory in tensors of the logits' size, and operations of HWD alone."""
    student, teacher = maps[0].clone().requires_grad_(), maps[1]
    loss = HWD(area_correction="paper")

    def ours() -> Tensor:
        value: Tensor = loss(SegOutput(student, None, {}), SegOutput(teacher, None, {}), label)
        return value

    def official() -> Tensor:
        return plain.hwd(student, teacher, label)

    error = agreement(ours, official, [student])
    promised = student.shape[1] == PROMISED
    works = [backwards(value, [student]) for value in (ours, official)]
    times = interleaved(
        {"ours": works[0], "plain": works[1]}, rounds=5 * arguments.rounds, device=label.device
    )
    what = "HWD " + str(tuple(student.shape))
    peaks = [peak_bytes(work, label.device) / student.nbytes for work in works]
    forward = [peak_bytes(value, label.device) / student.nbytes for value in (ours, official)]
    most = 1.5 if promised else None
    traffic = "3 tensors: read two maps, write one"
    rows = [
        time_row(what, times, least=3 if promised else None, floor=traffic),
        most_row(
            what, "peak with backward, tensors of the logits", *peaks, most=most, floor="1: the gradient"
        ),
        most_row(what, "peak of forward alone, likewise", *forward, most=most, floor="1: the gradient"),
        most_row(what, "operations", *counted(works), most=60, floor="3 fused kernels"),
    ]
    return rows, error


def counted(works: list[Work]) -> list[int]:
    """Operations with the batch handled at once, as on a GPU; a CPU goes through it image by image."""
    usual, channel_kl.CPU_BYTES = channel_kl.CPU_BYTES, channel_kl.GPU_BYTES
    try:
        return [operations(work).count for work in works]
    finally:
        channel_kl.CPU_BYTES = usual


def of_all(
    maps: list[Tensor], label: Tensor, arguments: argparse.Namespace
) -> tuple[list[Row], dict[str, float]]:
    """CE + 0.4 CE of the auxiliary head + 3 HWD."""
    student, aux = (maps[i].clone().requires_grad_() for i in (0, 2))
    task, distilled = CrossEntropy(aux_weight=AUX_WEIGHT), HWD(area_correction="paper")

    def ours() -> Tensor:
        pair = SegOutput(student, aux, {}), SegOutput(maps[1], None, {})
        value: Tensor = task(*pair, label) + HWD_WEIGHT * distilled(*pair, label)
        return value

    def official() -> Tensor:
        both = plain.upsampled_ce(student, label) + AUX_WEIGHT * plain.upsampled_ce(aux, label)
        return both + HWD_WEIGHT * plain.hwd(student, maps[1], label)

    error = agreement(ours, official, [student, aux])
    promised = student.shape[1] == PROMISED
    works = [backwards(value, [student, aux]) for value in (ours, official)]
    times = interleaved({"ours": works[0], "plain": works[1]}, rounds=arguments.rounds, device=label.device)
    what = f"CE + aux CE + HWD {tuple(student.shape)}"
    peaks = [peak_bytes(work, label.device) for work in works]
    rows = [
        time_row(what, times, least=4 if promised else None, floor="exponentials: 11 times in C++ (study)"),
        memory_row(what, *peaks, least=30 if promised else None, floor="the two gradients"),
    ]
    return rows, error


def backwards(value: Work, leaves: list[Tensor]) -> Work:
    """Forward and backward; gradients are given back at the end, so that a peak includes them."""

    def work() -> None:
        value().backward()
        for leaf in leaves:
            leaf.grad = None

    return work


def agreement(ours: Work, official: Work, leaves: list[Tensor]) -> dict[str, float]:
    """The relative difference of the loss, and of the gradient relative to its largest value."""
    values, gradients = [], []
    for way in (ours, official):
        value = way()
        gradients.append(torch.autograd.grad(value, leaves))
        values.append(value.item())
    apart = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*gradients, strict=True))
    found = {"loss": abs(values[0] / values[1] - 1), "gradient": apart}
    assert max(found.values()) < 1e-4, f"the two ways compute different things: {found}"
    return found


def parse() -> argparse.Namespace:
    options = parser(__doc__, rounds=5, quick="maps of 8 x 8, 5 classes")
    options.add_argument("--classes", type=int, nargs="+", default=[19, 150])
    options.add_argument("--images", type=int, default=8)
    options.add_argument("--side", type=int, default=64, help="of the maps; crops have 8 times as much")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.classes, arguments.images, arguments.side, arguments.rounds = [5], 2, 8, 2
    return arguments


if __name__ == "__main__":
    main()
