"""The few bundles that everything passes around. No behaviour lives here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:  # the names of bundles are no reason to load torch
    from torch import Tensor

IGNORE = 255
"""Label value of pixels that no loss and no metric counts."""

Role = Literal["teacher", "student", "baseline", "compare"]
"""What a network is among others: `baseline` learnt alone, `compare` is any other student."""


DivergenceKind = Literal["mse", "kl"]
DivergenceOn = Literal["activation", "logits"]
"""What TD, NTD and HWD's weights measure at a position, and of which maps."""

Order = Literal["iou", "gap", "name", "share", "td-ntd", "weight", "class"]
"""Of the classes in a report."""


class NamedPath(NamedTuple):
    """A trained network before it is loaded: `path` is a checkpoint or a run directory."""

    name: str
    role: Role
    path: Path


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
