"""From logits to a confusion matrix at the size of a Cityscapes image, beside the plain ways.

`plain` is what the papers' code does (histograms; pixel accuracy from logits cut to integers); `lean` is what
one would write today (interpolate, argmax, bincount). The logits are those of regions with smooth noise, made
so that about as many cells lie on a border as with trained networks; their share is part of the result.

    python benchmarks/evaluate.py
    python benchmarks/evaluate.py --quick --json
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import plain
import torch
import torch.nn.functional as F
from goals import Row, memory_row, show, time_row
from measurement import begin, interleaved, parser, ratios
from torch import Tensor

from hwdkit import scenes
from hwdkit.kernels.bilinear_argmax import upsampled_argmax
from hwdkit.measure.memory import peak_bytes
from hwdkit.metrics import ConfusionMatrix, confusion
from hwdkit.types import IGNORE

GOALS = {19: 10.0, 150: 20.0}
"""Times as fast as the papers' code, by number of classes."""
TIE = 1e-6
"""Scores that are nearer than this, relative to the largest, are equal up to float32's rounding."""


def main() -> None:
    arguments = parse()
    device = begin(arguments)
    rows: list[Row] = []
    more: dict[str, Any] = {}
    for classes in arguments.classes:
        logits, label = regions(classes, arguments, device)
        found, more[f"C {classes}"] = measured(logits, label, arguments)
        rows += found
    show(rows, arguments, **more)


def regions(classes: int, arguments: argparse.Namespace, device: torch.device) -> tuple[Tensor, Tensor]:
    """Logits (C, h, w) around the regions of drawn scenes, and the label (H, W) uint8 that they belong to."""
    height, width = (side // 8 for side in arguments.image)
    # More classes than scenes have: what belongs together gets another name in every part of the image.
    small = torch.from_numpy(scenes.render(0, 0, size=(height, width))[1]).long()
    small[small == IGNORE] = 0
    part = (torch.arange(height) * 4 // height)[:, None] * 8 + torch.arange(width) * 8 // width
    small = (small + 7 * part) % classes
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(classes, height, width, generator=generator)
    noise = F.avg_pool2d(noise[None], 5, 1, 2)[0] * 5  # as smooth as logits are, standard deviation 1
    near = F.avg_pool2d(F.one_hot(small, classes).float().permute(2, 0, 1)[None], 3, 1, 1)[0]
    logits = (noise + arguments.margin * near).to(device)
    label = small.to(torch.uint8).repeat_interleave(8, 0).repeat_interleave(8, 1)
    label[: len(label) // 16] = IGNORE
    return logits, label.contiguous().to(device)


def measured(
    logits: Tensor, label: Tensor, arguments: argparse.Namespace
) -> tuple[list[Row], dict[str, Any]]:
    classes = len(logits)
    what = f"logits → confusion, C {classes}, {label.shape[0]} x {label.shape[1]}"

    def official() -> plain.Areas:
        return plain.areas(logits, label)

    def mine() -> Tensor:
        return ours(logits, label)

    def lean() -> Tensor:
        return plain.confusion(logits, label)

    works = {"ours": mine, "plain": official, "lean": lean}
    times = interleaved(works, rounds=arguments.rounds, device=label.device)
    goal = GOALS.get(classes) if not arguments.quick else None
    apart, gap = differing(logits, label)
    rows = [
        time_row(what, times, least=goal, floor="read the logits, write a class map"),
        memory_row(what, *(peak_bytes(work, label.device) for work in (mine, official))),
        Row(what, "pixels that differ", apart, goal="0, ties aside", met=gap < TIE),
    ]
    more = {
        "pixels": label.numel(),
        "cells_on_borders": mixed_share(logits),
        "times_lean": round(statistics.median(ratios(times, "lean", "ours")), 2),
        "widest_gap_where_they_differ": gap,
    }
    return rows, more


def ours(logits: Tensor, label: Tensor) -> Tensor:
    """The confusion matrix as `hwdkit evaluate` counts it, image by image."""
    matrix = ConfusionMatrix(len(logits), logits.device)
    size = (label.shape[0], label.shape[1])
    matrix.update(label, upsampled_argmax(logits, size, align_corners=True))
    return matrix.matrix


def differing(logits: Tensor, label: Tensor) -> tuple[int, float]:
    """Pixels whose class is not that of the stretched logits, ignored ones included; checks counts, too.

    Returns:
        How many there are, and how far apart the two classes' scores are at most there, in the plain way's
        own numbers and relative to the largest score: a tie up to rounding has no right answer.
    """
    size = (label.shape[0], label.shape[1])
    scores = F.interpolate(logits[None], size, mode="bilinear", align_corners=True)[0]
    best = scores.max(0)
    found = upsampled_argmax(logits, size, align_corners=True).long()
    apart = int((found != best.indices).sum())
    gap = float((best.values - scores.gather(0, found[None])[0]).max() / scores.abs().max())
    expected = plain.confusion(logits, label)
    assert (confusion(label, found, len(logits)) - expected).abs().sum() <= 2 * apart
    intersection, union, _ = plain.areas(logits, label)
    counts = expected.double()
    assert (counts.diagonal() - intersection).abs().max() <= 1
    assert (counts.sum(0) + counts.sum(1) - counts.diagonal() - union).abs().max() <= 1
    return apart, gap


def mixed_share(logits: Tensor) -> float:
    """The share of cells between four logits whose best classes are not all the same."""
    best = logits.argmax(0)
    height, width = best.shape[0] - 1, best.shape[1] - 1
    first, *others = (best[y : y + height, x : x + width] for y in (0, 1) for x in (0, 1))
    same = (first == others[0]) & (first == others[1]) & (first == others[2])
    return round(float((~same).float().mean()), 4)


def parse() -> argparse.Namespace:
    options = parser(__doc__, rounds=5, quick="128 x 256 pixels, 5 classes, 2 rounds")
    options.add_argument("--classes", type=int, nargs="+", default=[19, 150])
    options.add_argument("--image", type=int, nargs=2, default=[1024, 2048], metavar=("H", "W"))
    options.add_argument("--margin", type=float, default=8.0, help="of the right class over the noise's std")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.classes, arguments.image, arguments.rounds = [5], [128, 256], 2
    return arguments


if __name__ == "__main__":
    main()
