"""The task loss: cross-entropy on logits up-sampled to the label's size, with the auxiliary head's share."""

from __future__ import annotations

from torch import Tensor

from hwdkit.distributed import mean_over_ranks
from hwdkit.kernels.upsampled_ce import upsampled_ce_sum
from hwdkit.losses.base import Loss
from hwdkit.losses.options import require_not_negative
from hwdkit.types import IGNORE, SegOutput


def upsampled_cross_entropy(logits: Tensor, label: Tensor, *, align_corners: bool = True) -> Tensor:
    """Cross-entropy of bilinearly up-sampled logits, averaged over the pixels that count.

    HWD (Sun et al., ICME 2023) Eq. 1; the up-sampling is that of the HWD and CIRKD training code.
    With several ranks the mean is over the pixels of all of them, so that two processes equal one.

    Args:
        logits: (N, C, h, w).
        label: (N, H, W) int64, 255 = ignore.
        align_corners: how the network's maps are meant to be stretched.

    Returns:
        A scalar in nats; 0 with zero gradients when every pixel is ignored.
    """
    total = upsampled_ce_sum(logits, label, align_corners=align_corners, ignore=IGNORE)
    return total / mean_over_ranks((label != IGNORE).sum().to(total.dtype)).clamp(min=1)


class CrossEntropy(Loss):
    """CE(logits) + aux_weight * CE(aux logits); the latter only if the network has an auxiliary head."""

    reads_teacher = False

    def __init__(self, *, aux_weight: float = 0.4, align_corners: bool = True) -> None:
        super().__init__()
        require_not_negative(aux_weight=aux_weight)
        self.aux_weight, self.reads_aux = aux_weight, aux_weight > 0
        self.align_corners = align_corners

    def forward(self, student: SegOutput, teacher: SegOutput | None, label: Tensor) -> Tensor:
        loss = upsampled_cross_entropy(student.logits, label, align_corners=self.align_corners)
        if student.aux is not None and self.aux_weight:
            aux = upsampled_cross_entropy(student.aux, label, align_corners=self.align_corners)
            loss = loss + self.aux_weight * aux
        return loss
