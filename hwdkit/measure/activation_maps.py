"""Channel activation maps: where in an image a network's channel of a class is active.

CWD (Shu et al., ICCV 2021), Fig. 6 and Eq. 2. Drawing them is `plots/activations.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hwdkit.engine.opened import NamedNetwork
from hwdkit.losses.channel_wise import log_activation
from hwdkit.losses.labels import class_ids, members, small_label


@dataclass(frozen=True)
class ActivationMap:
    """One channel of one network on one image.

    Attributes:
        density: (h, w) float32: the softmax over the positions, times their number. 1 is what a flat map has
            everywhere, whatever its size: maps of different networks compare.
        on_class: share of the activation that lies on positions labelled as the class; None where there is
            none.
        align_corners: how the network's maps are stretched over the image.
    """

    density: Tensor
    on_class: float | None
    align_corners: bool

    @property
    def peak(self) -> float:
        """The highest density."""
        return float(self.density.max())

    def at_size(self, size: tuple[int, int]) -> Tensor:
        """The density over an image of (H, W), bilinearly: (H, W)."""
        maps = self.density[None, None]
        return F.interpolate(maps, size, mode="bilinear", align_corners=self.align_corners)[0, 0]


@torch.no_grad()
def activation_maps(
    networks: Sequence[NamedNetwork],
    image: Tensor,
    label: Tensor,
    classes: Sequence[int],
    *,
    temperature: float,
) -> dict[str, list[ActivationMap]]:
    """The maps of some classes' channels, one forward pass a network: network -> a map a class, on the CPU.

    Args:
        networks: in eval mode.
        image: (3, H, W) uint8.
        label: (H, W) int64, 255 = ignore; down-sampled to the maps by nearest, as in training.
        temperature: tau.
    """
    result = {}
    for network in networks:
        logits = network.model(image[None]).logits
        height, width = logits.shape[-2:]
        activation = log_activation(logits, temperature=temperature)[0].exp().float()  # (C, h*w)
        ids = class_ids(small_label(label[None], (height, width)), len(activation))
        positions = members(ids, len(activation))[0]
        result[network.name] = [
            ActivationMap(
                density=(activation[c] * activation.shape[1]).reshape(height, width).cpu(),
                on_class=float(activation[c][positions[c]].sum()) if bool(positions[c].any()) else None,
                align_corners=network.model.contract.align_corners,
            )
            for c in classes
        ]
    return result
