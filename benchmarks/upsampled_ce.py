"""Cross-entropy of logits stretched 8 times, forward and backward, beside interpolating them first.

python benchmarks/upsampled_ce.py
python benchmarks/upsampled_ce.py --quick --json
"""

from __future__ import annotations

import argparse

import plain
import torch
from goals import PROMISED, Row, memory_row, most_row, show, time_row
from hwd_loss import backwards
from measurement import begin, interleaved, parser, random_batch
from torch import Tensor

from hwdkit.losses.cross_entropy import upsampled_cross_entropy
from hwdkit.measure.memory import peak_bytes
from hwdkit.types import IGNORE


def main() -> None:
    arguments = parse()
    device = begin(arguments)
    rows = [row for classes in arguments.classes for row in measured(classes, arguments, device)]
    show(rows, arguments)


def measured(classes: int, arguments: argparse.Namespace, device: torch.device) -> list[Row]:
    side = 8 * arguments.side
    shape = (arguments.images, classes, arguments.side, arguments.side)
    logits = torch.randn(shape, device=device).mul_(3).requires_grad_()
    label = random_batch(arguments.images, (side, side), classes, device).label

    def ours() -> Tensor:
        return upsampled_cross_entropy(logits, label)

    def official() -> Tensor:
        return plain.upsampled_ce(logits, label)

    what = f"CE on {arguments.images} x {classes} x {side} x {side}"
    errors = [max(error) for error in against_float64([ours, official], logits, label)]
    promised = classes == PROMISED
    works = backwards(ours, [logits]), backwards(official, [logits])
    times = interleaved({"ours": works[0], "plain": works[1]}, rounds=arguments.rounds, device=device)
    peaks = [peak_bytes(work, device) for work in works]
    gradient = f"{logits.nbytes / 2**20:.1f}: the gradient"
    return [
        time_row(what, times, least=4 if promised else None, floor="14 times in C++ (study)"),
        memory_row(what, *peaks, least=40 if promised else None, floor=gradient),
        most_row(what, "largest error against float64", *errors, most=1e-6),
    ]


def against_float64(ways: list, logits: Tensor, label: Tensor) -> list[tuple[float, float]]:
    """Relative error of the loss, and of the gradient relative to its largest value, of every way.

    Float64 goes image by image: all of them at once would take 12 GB.
    """
    pixels = (label != IGNORE).sum()
    value, parts = 0.0, []
    for i in range(len(logits)):
        exact = logits[i : i + 1].detach().double().requires_grad_()
        part = plain.upsampled_ce(exact, label[i : i + 1]) * ((label[i] != IGNORE).sum() / pixels).double()
        value += part.item()
        parts.append(torch.autograd.grad(part, exact)[0])
    gradient = torch.cat(parts)
    found = []
    for way in ways:
        loss = way()
        (mine,) = torch.autograd.grad(loss, logits)
        apart = (mine.double() - gradient).abs().max() / gradient.abs().max()
        found.append((abs(loss.item() / value - 1), float(apart)))
    return found


def parse() -> argparse.Namespace:
    options = parser(__doc__, rounds=5, quick="maps of 8 x 8, 5 classes")
    options.add_argument("--classes", type=int, nargs="+", default=[19, 150])
    options.add_argument("--images", type=int, default=8)
    options.add_argument("--side", type=int, default=64, help="of the logits; labels have 8 times as much")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.classes, arguments.images, arguments.side, arguments.rounds = [5], 2, 8, 2
    return arguments


if __name__ == "__main__":
    main()
