"""Triton's kernels for HWD and cross-entropy beside torch's operations: is `train.kernels: triton` faster?

On a GPU. On a CPU, where only --quick makes sense, Triton's interpreter runs them: it shows that they agree.

    python benchmarks/triton_kernels.py --device cuda
    python benchmarks/triton_kernels.py --quick --json
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Literal

import torch
from goals import Row, memory_row, show, time_row
from hwd_loss import agreement, backwards
from measurement import Work, begin, interleaved, parser, random_batch
from torch import Tensor

from hwdkit.kernels import choice
from hwdkit.losses.cross_entropy import upsampled_cross_entropy
from hwdkit.losses.hwd import HWD
from hwdkit.measure.memory import peak_bytes
from hwdkit.types import SegOutput


def main() -> None:
    arguments = parse()
    device = begin(arguments)
    rows: list[Row] = []
    errors: dict[str, dict[str, float]] = {}
    before = choice.DEVICES
    try:
        if device.type == "cpu":
            os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is first imported
            choice.DEVICES = ("cpu",)
        for classes in arguments.classes:
            for what, value, student in losses(classes, arguments, device):
                more, errors[what] = compared(what, value, student, arguments)
                rows += more
    finally:
        choice.choose("torch")
        choice.DEVICES = before
    show(rows, arguments, triton_against_torch=errors)


def losses(
    classes: int, arguments: argparse.Namespace, device: torch.device
) -> list[tuple[str, Callable[[], Tensor], Tensor]]:
    """(name, loss, what it is differentiated in) of HWD and of cross-entropy on the same maps."""
    shape = (arguments.images, classes, arguments.side, arguments.side)
    side = 8 * arguments.side
    student = torch.randn(shape, device=device).mul_(4).requires_grad_()
    teacher = torch.randn(shape, device=device).mul_(4)
    label = random_batch(arguments.images, (side, side), classes, device).label
    loss = HWD(area_correction="paper")
    pair = SegOutput(student, None, {}), SegOutput(teacher, None, {})
    task = f"CE on {arguments.images} x {classes} x {side} x {side}"
    return [
        (f"HWD {shape}", lambda: loss(*pair, label), student),
        (task, lambda: upsampled_cross_entropy(student, label), student),
    ]


def compared(
    what: str, value: Callable[[], Tensor], student: Tensor, arguments: argparse.Namespace
) -> tuple[list[Row], dict[str, float]]:
    """Time and peak memory, forward and backward; `plain` is torch's operations."""
    ways = {name: chosen(name, value) for name in ("triton", "torch")}
    error = agreement(ways["triton"], ways["torch"], [student])
    works = {name: backwards(way, [student]) for name, way in ways.items()}
    times = interleaved(works, rounds=arguments.rounds, device=student.device, warmup=2)
    peaks = [peak_bytes(works[name], student.device) for name in ("triton", "torch")]
    named = f"{what}, Triton beside torch's operations"
    faster = 1 if student.device.type == "cuda" else None
    return [
        time_row(named, times, ours="triton", plain="torch", least=faster),
        memory_row(named, *peaks),
    ], error


def chosen(kernels: Literal["torch", "triton"], value: Work) -> Work:
    def work() -> Tensor:
        choice.choose(kernels)
        result: Tensor = value()
        return result

    return work


def parse() -> argparse.Namespace:
    options = parser(__doc__, rounds=20, quick="maps of 4 x 4, 5 classes")
    options.add_argument("--classes", type=int, nargs="+", default=[19, 150])
    options.add_argument("--images", type=int, default=8)
    options.add_argument("--side", type=int, default=64, help="of the maps; crops have 8 times as much")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.classes, arguments.images, arguments.side, arguments.rounds = [5], 1, 4, 1
    return arguments


if __name__ == "__main__":
    main()
