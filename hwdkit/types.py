"""The few tensor bundles that everything passes around. No behaviour lives here."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # the names of bundles are no reason to load torch
    from torch import Tensor

IGNORE = 255
"""Label value of pixels that no loss and no metric counts."""


class Batch(NamedTuple):
    """Images and labels as they leave the data pipeline; normalisation is each model's own business.

    Attributes:
        image: (N, 3, H, W) uint8, RGB.
        label: (N, H, W), class index or 255 = ignore; uint8 on its way, int64 on the device.
    """

    image: Tensor
    label: Tensor


class SegOutput(NamedTuple):
    """What a segmentation network says about a batch.

    Attributes:
        logits: (N, C, h, w), of the size that the head gives them (that of the deepest or of the
            shallowest map), NOT up-sampled.
        aux: (N, C, h', w') logits of the auxiliary head, or None.
        taps: the asked-for intermediate maps by name ("stage1".."stage4", "embedding").
    """

    logits: Tensor
    aux: Tensor | None
    taps: dict[str, Tensor]
