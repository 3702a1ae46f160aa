"""LOCAL: how much each position differs from its neighbours (Xie et al. 2018; a baseline of CWD's Table 1).

No code was ever published. Padding, epsilon and reduction are this package's own, and no weight is known.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hwdkit.losses.features import FeatureLoss
from hwdkit.losses.options import require_choice
from hwdkit.types import SegOutput

Distance = Literal["mse", "l1"]

NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))


def local_dissimilarity(x: Tensor) -> Tensor:
    """Sum over the eight neighbours j of a position i of ||x_j - x_i||_2, the norm over channels.

    A neighbour beyond the border is the nearest position within it (replicate padding).

    Args:
        x: (N, C, h, w).

    Returns:
        (N, h, w), at least 8e-6: 1e-12 under each root keeps its gradient finite where neighbours agree.
    """
    h, w = x.shape[2:]
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    shifted = (padded[:, :, 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w] for dy, dx in NEIGHBOURS)
    return torch.stack([((x_j - x).square().sum(1) + 1e-12).sqrt() for x_j in shifted]).sum(0)


def local_distance(student: Tensor, teacher: Tensor, *, distance: Distance = "mse") -> Tensor:
    """Squared or absolute difference of `local_dissimilarity`, mean over images and positions.

    Args:
        student: (N, C_S, h, w). Gradients flow here only.
        teacher: (N, C_T, h, w).
        distance: mse or l1; CWD's Table 1 allows both.

    Returns:
        A non-negative scalar.
    """
    difference = F.mse_loss if distance == "mse" else F.l1_loss
    return difference(local_dissimilarity(student), local_dissimilarity(teacher.detach()))


class Local(FeatureLoss):
    """Difference of local dissimilarities; the numbers of channels may differ, nothing is projected.

    Args:
        tap, teacher_tap: see `FeatureLoss`.
        distance: mean squared (mse) or mean absolute (l1) difference.
    """

    paper = "Xie et al. Improving Fast Segmentation With Teacher-Student Learning. BMVC 2018."

    def __init__(
        self, *, tap: str = "logits", teacher_tap: str | None = None, distance: Distance = "mse"
    ) -> None:
        super().__init__(tap=tap, teacher_tap=teacher_tap)
        require_choice(Distance, distance=distance)
        self.distance: Distance = distance

    def forward(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
        x_s, x_t = self.maps(student, teacher)
        with torch.autocast(x_s.device.type, enabled=False):
            return local_distance(x_s, x_t, distance=self.distance)
