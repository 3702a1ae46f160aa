"""PKD (Cao et al., NeurIPS 2022): features imitated up to each channel's offset and scale."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hwdkit.losses import features
from hwdkit.losses.correlation import standardise_channels
from hwdkit.losses.features import FeatureLoss, Projector
from hwdkit.types import SegOutput


def standardised_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Half the mean squared difference of standardised channels: 1 - Pearson's correlation, mean over them.

    Equal to it up to the 1e-6 that is added to each standard deviation. That is the biased one, which makes
    the identity exact; mmrazor divides by one pixel less, which makes the loss (M - 1)/M of this for M
    pixels in the batch: a difference in the fifth digit for two maps of 128 x 256.

    Args:
        student: (N, C, h, w), of the same shape on every rank. Gradients flow here only.
        teacher: (N, C, h, w).

    Returns:
        A scalar within [0, 2].
    """
    return F.mse_loss(standardise_channels(student), standardise_channels(teacher.detach())) / 2


class PKD(FeatureLoss):
    """Pearson correlation of feature maps, channel by channel over all pixels of the (global) batch.

    Args:
        student_channels, teacher_channels, tap, teacher_tap: see `FeatureLoss`.
        projector: see `hwdkit.losses.features.projector`; no bias, which standardising would undo anyway.
    """

    paper = (
        "Cao et al. PKD: General Distillation Framework for Object Detectors via Pearson Correlation "
        "Coefficient. NeurIPS 2022."
    )

    def __init__(
        self,
        *,
        student_channels: int,
        teacher_channels: int,
        tap: str = "embedding",
        teacher_tap: str | None = None,
        projector: Projector = "auto",
    ) -> None:
        super().__init__(tap=tap, teacher_tap=teacher_tap, channels=(student_channels, teacher_channels))
        self.projector = features.projector(projector, student_channels, teacher_channels)

    def forward(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
        f_s, f_t = self.maps(student, teacher)
        with torch.autocast(f_s.device.type, enabled=False):
            return standardised_distance(self.projector(f_s), f_t)
