"""The interface of every network: `Segmenter` is hwdkit's own, `Adapted` wraps a user's module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwdkit.models.contract import InputContract
from hwdkit.types import SegOutput


class Network(nn.Module):
    """Uint8 RGB images in, `SegOutput` out.

    Attributes:
        classes: C, channels of the logits.
        align_corners: convention of every bilinear resize of the logits.
        tap_channels: name -> channels of the intermediate maps that `forward` can hand out.
        name: how messages call it.
        contract: how it normalises uint8 RGB images; None: images are taken as they come.
        about: what the checkpoint that it was loaded from says of it: `classes`, `palette`, `dataset`, ...;
            empty for a new network.
    """

    classes: int
    align_corners: bool
    tap_channels: Mapping[str, int]
    name: str
    contract: InputContract | None
    about: Mapping[str, Any] = MappingProxyType({})

    def forward(self, image: Tensor, taps: Sequence[str] = (), *, aux: bool | None = None) -> SegOutput:
        """Segment a batch.

        Args:
            image: (N, 3, H, W) RGB, uint8, or floating point with values 0..255.
            taps: which intermediate maps to hand out, keys of `tap_channels`.
            aux: whether to run the auxiliary head, if there is one. None: in training mode only.
        """
        raise NotImplementedError

    @property
    def has_aux(self) -> bool:
        """Whether there is an auxiliary head."""
        raise NotImplementedError

    def blank(self, device: torch.device | None = None) -> Tensor:
        """A black image of 64x64 pixels, (1, 3, 64, 64), such as this network takes."""
        dtype = torch.float32 if self.contract is None else torch.uint8
        return torch.zeros(1, 3, 64, 64, dtype=dtype, device=device)

    def upsample(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Resize (N, C, h, w) logits bilinearly to `size` = (H, W), with this network's align_corners."""
        return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=self.align_corners)

    def check_taps(self, names: Sequence[str]) -> None:
        """Raise a ValueError that lists the valid taps unless all of `names` are."""
        unknown = [name for name in names if name not in self.tap_channels]
        if unknown:
            valid = ", ".join(self.tap_channels) or "none"
            raise ValueError(f"unknown tap {', '.join(unknown)}; {self.name} has {valid}")
