"""MIMIC: the hint of FitNets (Romero et al., ICLR 2015), a distance between features."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hwdkit.losses import features
from hwdkit.losses.features import FeatureLoss, Projector
from hwdkit.losses.options import require_choice
from hwdkit.types import SegOutput

Distance = Literal["mse", "l1"]


def feature_distance(student: Tensor, teacher: Tensor, *, distance: Distance = "mse") -> Tensor:
    """Mean over images, channels and positions of the squared or absolute difference.

    FitNets (Eq. 3) prints half the sum; the mean is CIRKD's, whose weight is 10.

    Args:
        student: (N, C, h, w). Gradients flow here only.
        teacher: (N, C, h, w).
        distance: mse (FitNets, CIRKD) or l1 (the other choice of CWD's Table 1).

    Returns:
        A non-negative scalar.
    """
    difference = F.mse_loss if distance == "mse" else F.l1_loss
    return difference(student, teacher.detach())


class Mimic(FeatureLoss):
    """Distance between the projected student's features and the teacher's.

    Args:
        student_channels, teacher_channels, tap, teacher_tap: see `FeatureLoss`.
        distance: mean squared (mse) or mean absolute (l1) difference.
        projector: see `hwdkit.losses.features.projector`; without bias, as CIRKD's.
    """

    paper = "Romero et al. FitNets: Hints for Thin Deep Nets. ICLR 2015."

    def __init__(
        self,
        *,
        student_channels: int,
        teacher_channels: int,
        tap: str = "embedding",
        teacher_tap: str | None = None,
        distance: Distance = "mse",
        projector: Projector = "auto",
    ) -> None:
        super().__init__(tap=tap, teacher_tap=teacher_tap, channels=(student_channels, teacher_channels))
        require_choice(Distance, distance=distance)
        self.distance: Distance = distance
        self.projector = features.projector(projector, student_channels, teacher_channels)

    def forward(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
        f_s, f_t = self.maps(student, teacher)
        with torch.autocast(f_s.device.type, enabled=False):
            return feature_distance(self.projector(f_s), f_t, distance=self.distance)
