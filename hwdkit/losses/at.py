"""Attention transfer (Zagoruyko and Komodakis, ICLR 2017): where features are large, not what they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hwdkit.losses.features import FeatureLoss
from hwdkit.losses.options import require_positive
from hwdkit.types import SegOutput


def attention_map(feature: Tensor, *, power: float = 2.0) -> Tensor:
    """Q = vec(F^p) / ||vec(F^p)||_2 of every image, F^p the mean over channels of |F|^p (section 3.1).

    Args:
        feature: (N, C, h, w).
        power: p > 0; the larger, the more the strongest channels decide.

    Returns:
        (N, h*w), rows of norm 1; 0 for an image whose features are all 0.
    """
    # Q does not know the feature's scale; with a maximum of 1 no power of it overflows or vanishes.
    largest = feature.detach().abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    magnitude = (feature / largest).abs()
    # Powers below 1 are infinitely steep at 0, where ReLU puts many features.
    active = magnitude > 0
    powered = torch.where(active, torch.where(active, magnitude, 1.0) ** power, 0.0)
    return F.normalize(powered.mean(1).flatten(1), dim=1)


def attention_distance(student: Tensor, teacher: Tensor, *, power: float = 2.0) -> Tensor:
    """Squared difference of the attention maps, mean over images and positions.

    Eq. 2 prints the norm of the difference; the mean square is that of the authors' code, CIRKD and
    mmrazor (weight 10 000 in CIRKD).

    Args:
        student: (N, C_S, h, w). Gradients flow here only.
        teacher: (N, C_T, h, w).
        power: p of `attention_map`.

    Returns:
        A scalar within [0, 2 / (h*w)].
    """
    return F.mse_loss(attention_map(student, power=power), attention_map(teacher.detach(), power=power))


class AT(FeatureLoss):
    """Mean squared difference of attention maps; the numbers of channels may differ, nothing is projected.

    Args:
        tap, teacher_tap: see `FeatureLoss`.
        power: p > 0 of `attention_map`.
    """

    paper = (
        "Zagoruyko, Komodakis. Paying More Attention to Attention: Improving the Performance of "
        "Convolutional Neural Networks via Attention Transfer. ICLR 2017."
    )

    def __init__(self, *, tap: str = "embedding", teacher_tap: str | None = None, power: float = 2.0) -> None:
        super().__init__(tap=tap, teacher_tap=teacher_tap)
        require_positive(power=power)
        self.power = power

    def forward(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
        f_s, f_t = self.maps(student, teacher)
        with torch.autocast(f_s.device.type, enabled=False):
            return attention_distance(f_s, f_t, power=self.power)
