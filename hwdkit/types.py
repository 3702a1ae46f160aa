"""The few tensor bundles that everything passes around. No behaviour lives here."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:  # the names of bundles are no reason to load torch
    from torch import Tensor

IGNORE = 255
"""Label value of pixels that no loss and no metric counts."""


class Batch(NamedTuple):
    """Images and labels as they leave the data pipeline; normalisation is each model's own business.

    Attributes:
        image: (N, 3, H, W) uint8, RGB.
        label: (N, H, W) int64, class index or 255 = ignore.
    """

    image: Tensor
    label: Tensor


class SegOutput(NamedTuple):
    """What a segmentation network says about a batch.

    Attributes:
        logits: (N, C, h, w), at the network's output stride, NOT up-sampled.
        aux: (N, C, h', w') logits of the auxiliary head, or None.
        taps: the asked-for intermediate maps by name ("stage1".."stage4", "embedding").
    """

    logits: Tensor
    aux: Tensor | None
    taps: dict[str, Tensor]


class DistillLoss(Protocol):
    """A distillation loss: compares a student's output with a frozen teacher's."""

    taps: tuple[str, ...]

    def __call__(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
        """Return a scalar; label is (N, H, W) int64 at full resolution, 255 = ignore."""
        ...
