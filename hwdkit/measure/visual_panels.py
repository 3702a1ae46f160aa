"""Qualitative panels: what several networks see in one image, how right they are, and which images to show.

HWD (Sun et al., ICME 2023), Fig. 4. Drawing them is `plots/panels.py`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwdkit.engine.evaluate import predict
from hwdkit.engine.opened import NamedNetwork
from hwdkit.measure.overlay import Pixels, shrink
from hwdkit.metrics import ConfusionMatrix
from hwdkit.models.segmenter import Segmenter
from hwdkit.recipe.protocol import Protocol
from hwdkit.types import IGNORE

Score = Literal["miou", "pixel_accuracy"]


class Scores(NamedTuple):
    """How right a class map is, in 0..1, over one image; NaN without labelled pixels."""

    miou: float
    pixel_accuracy: float


class Ranked(NamedTuple):
    """An image and the number that it was chosen for."""

    image: int
    value: float


@dataclass(frozen=True)
class PanelRow:
    """One image with everything that is shown of it.

    Attributes:
        index, name: which image.
        height, width: of the image in the file, in pixels.
        image: (h, w, 3) uint8 RGB, shrunk.
        label: (h, w) uint8, shrunk; 255 = unlabelled.
        maps: network -> (h, w) class map, shrunk.
        scores: network -> its scores over the whole image, at full size.
        shares: (C,) part of the pixels that a class has in the label and all maps together, at full size.
        unlabelled: whether any pixel is.
    """

    index: int
    name: str
    height: int
    width: int
    image: Pixels
    label: Pixels
    maps: dict[str, NDArray[np.integer]]
    scores: dict[str, Scores]
    shares: NDArray[np.float64]
    unlabelled: bool


@torch.no_grad()
def panel_row(
    networks: Sequence[NamedNetwork], pair: tuple[Tensor, Tensor], *, index: int, name: str, longest: int
) -> PanelRow:
    """Show an image (3, H, W) uint8 with its label (H, W) int64, on their device, to networks in eval mode.

    No side of what is shown is longer than `longest` pixels.
    """
    image, label = pair
    classes = networks[0].model.spec.classes
    maps = {network.name: predict(network.model, image, Protocol()) for network in networks}
    counts = torch.stack([_counts(class_map, classes) for class_map in (label, *maps.values())]).sum(0)
    return PanelRow(
        index=index,
        name=name,
        height=label.shape[0],
        width=label.shape[1],
        image=shrink(image.permute(1, 2, 0).cpu().numpy(), longest),
        label=shrink(_uint8(label), longest),
        maps={name: shrink(_uint8(class_map), longest) for name, class_map in maps.items()},
        scores={name: scores(label, class_map, classes) for name, class_map in maps.items()},
        shares=(counts / counts.sum().clamp(min=1)).cpu().numpy(),
        unlabelled=bool((label == IGNORE).any()),
    )


def scores(label: Tensor, class_map: Tensor, classes: int) -> Scores:
    """Score one image: mIoU is the mean over the classes that occur in its label or its class map."""
    matrix = ConfusionMatrix(classes, label.device)
    matrix.update(label, class_map)
    return Scores(matrix.miou("present"), matrix.pixel_accuracy())


def differing(label: Tensor, student: Tensor, teacher: Tensor) -> float:
    """Share of the labelled pixels in which two class maps differ; NaN without labelled pixels."""
    labelled = label != IGNORE
    return float(((student != teacher) & labelled).sum() / labelled.sum())


@torch.no_grad()
def highest(
    pairs: Iterable[tuple[int, Tensor, Tensor]],
    value: Callable[[Tensor, Tensor], float],
    most: int,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Ranked]:
    """Find the images with the highest values, in one pass that keeps numbers only.

    Args:
        pairs: (index, image (3, H, W) uint8, label (H, W)).
        value: of (image, label); images with NaN are left out.
        most: how many.

    Returns:
        The highest first; of equal ones that of the lower index.
    """

    def values() -> Iterator[tuple[float, int]]:
        for done, (index, image, label) in enumerate(pairs, 1):
            number = value(image, label)
            advance(done)
            if not math.isnan(number):
                yield number, -index

    return [Ranked(-negative, number) for number, negative in heapq.nlargest(most, values())]


def disagreement_with(student: Segmenter, teacher: Segmenter) -> Callable[[Tensor, Tensor], float]:
    """A value for `highest`: how much of the image two networks see differently."""
    whole = Protocol()
    return lambda image, label: differing(
        label, predict(student, image, whole), predict(teacher, image, whole)
    )


def gain_over(baseline: Segmenter, student: Segmenter, score: Score) -> Callable[[Tensor, Tensor], float]:
    """A value for `highest`: how much better the student's class map is than the baseline's."""

    def gain(image: Tensor, label: Tensor) -> float:
        after, before = (
            getattr(scores(label, predict(model, image, Protocol()), model.spec.classes), score)
            for model in (student, baseline)
        )
        return float(after - before)

    return gain


def _counts(class_map: Tensor, classes: int) -> Tensor:
    inside = class_map.flatten().long()
    return torch.bincount(inside[(inside >= 0) & (inside < classes)], minlength=classes).double()


def _uint8(class_map: Tensor) -> Pixels:
    return class_map.to(torch.uint8).cpu().numpy()
