"""HWD's channel weights over a split: which channels of a student the loss pushes, and how evenly.

HWD (Sun et al., ICME 2023), Eqs. 5-7, by the loss itself. Drawing them is `plots/weights.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hwdkit.engine.opened import NamedNetwork
from hwdkit.losses.hwd import HWD
from hwdkit.models.segmenter import Segmenter


@dataclass(frozen=True)
class ChannelWeights:
    """One student's weights, each (C,) float64 over the images; a mean of 1 is what CWD gives every channel.

    `mean` and `std` (of the images, biased; 0 for one image); `first`: the share of the images in which the
    channel weighs most.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    first: tuple[float, ...]


@torch.no_grad()
def channel_weights(
    students: Sequence[NamedNetwork],
    teacher: Segmenter,
    pairs: Iterable[tuple[int, Tensor, Tensor]],
    loss: HWD,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, ChannelWeights]:
    """Weigh every channel of several students in every image, in one pass.

    A teacher's maps of another size are resized to the student's, as in training.

    Args:
        students, teacher: in eval mode.
        pairs: (index, image (3, H, W) uint8, label (H, W) int64), at least one.
        loss: with the options that the weights shall have.
        advance: called with the number of images done.
    """
    classes = teacher.spec.classes
    device = next(teacher.parameters()).device
    sums = {student.name: torch.zeros(3, classes, dtype=torch.float64, device=device) for student in students}
    for done, (_, image, label) in enumerate(pairs, start=1):
        teacher_logits = teacher(image[None]).logits.float()
        for student in students:
            logits = student.model(image[None]).logits.float()
            size, target = logits.shape[-2:], teacher_logits
            if target.shape[-2:] != size:
                target = student.model.upsample(target, size)
            weight = loss.channel_weights(logits, target, label[None])[0].double()
            sums[student.name][0] += weight
            sums[student.name][1] += weight.square()
            sums[student.name][2, weight.argmax()] += 1
        advance(done)
    result = {}
    for name, total in sums.items():
        mean, square, first = (total / done).cpu()
        std = (square - mean.square()).clamp(min=0).sqrt()
        result[name] = ChannelWeights(tuple(mean.tolist()), tuple(std.tolist()), tuple(first.tolist()))
    return result
