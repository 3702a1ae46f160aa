"""Masked generative distillation (MGD, Yang et al., ECCV 2022), and the masking that Af-DCD shares with it.

The equations are those of the authors' segmentation code. Its third part, channel-wise distillation of the
score maps, is an entry of its own in a recipe.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hwdkit.losses.features import FeatureLoss, projector
from hwdkit.losses.options import require_below_one
from hwdkit.types import SegOutput


def kept_positions(draw: Tensor, *, mask_ratio: float) -> Tensor:
    """The mask of MGD: m_i = 0 where u_i > 1 - lambda, else 1.

    Args:
        draw: u, (N, 1, h, w), uniform in [0, 1): one draw per image and position, for all channels.
        mask_ratio: lambda in [0, 1), the expected share of positions that are zeroed.

    Returns:
        (N, 1, h, w) of 0 and 1, in the type of `draw`.
    """
    return (draw <= 1 - mask_ratio).to(draw.dtype)


def random_mask(feature: Tensor, *, mask_ratio: float) -> Tensor:
    """`kept_positions` of a fresh draw for a map (N, C, h, w), from torch's global generator.

    The draw is float32 whatever the map is, so that one seed means one mask.
    """
    images, _, h, w = feature.shape
    draw = torch.rand(images, 1, h, w, device=feature.device, dtype=torch.float32)
    return kept_positions(draw, mask_ratio=mask_ratio).to(feature.dtype)


def squared_error_per_image(generated: Tensor, teacher: Tensor) -> Tensor:
    """L = (1/N) sum_n sum_c sum_i (y_nci - F^T_nci)**2: a sum over channels and positions, not their mean.

    Args:
        generated: y, (N, C, h, w). Gradients flow here only.
        teacher: F^T, (N, C, h, w).

    Returns:
        A scalar. It grows with C * h * w, which is why its weights are around 1e-6.
    """
    return (generated - teacher.detach()).square().sum() / generated.shape[0]


class MaskedGeneration(nn.Module):
    """The teacher's map from what a mask leaves of the student's.

        y = W_2 * ReLU(W_1 * (m . align(F^S)))

    with 3x3 convolutions W_1 and W_2 (padding 1, bias, C_T channels) and a 1x1 convolution with bias as
    `align`, where the channels differ. Trained along with the student and left behind afterwards.

    Args:
        student_channels: C_S.
        teacher_channels: C_T.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.align = projector("auto", student_channels, teacher_channels, bias=True)
        self.generation = nn.Sequential(
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
        )

    def forward(self, feature: Tensor, mask: Tensor) -> Tensor:
        """y, (N, C_T, h, w), from F^S (N, C_S, h, w) and m (N, 1, h, w) or (1, 1, h, w)."""
        generated: Tensor = self.generation(self.align(feature) * mask)
        return generated


class MGD(FeatureLoss):
    """Masked generative distillation: `squared_error_per_image` of `MaskedGeneration`, a new mask every call.

    The authors tap the last stage (512 -> 2048 channels) and add 3 * CWD at temperature 4; HWD's tables tap
    the embedding (128 -> 256) and add nothing. Both weigh the loss with 2e-5, although the sum of the second
    runs over eight times fewer channels.

    Args:
        student_channels, teacher_channels, tap, teacher_tap: see `FeatureLoss`.
        mask_ratio: in [0, 1), the expected share of positions that are zeroed, all channels together.
    """

    paper = "Yang et al. Masked Generative Distillation. ECCV 2022."

    def __init__(
        self,
        *,
        student_channels: int,
        teacher_channels: int,
        tap: str = "embedding",
        teacher_tap: str | None = None,
        mask_ratio: float = 0.75,
    ) -> None:
        super().__init__(tap=tap, teacher_tap=teacher_tap, channels=(student_channels, teacher_channels))
        require_below_one(mask_ratio=mask_ratio)
        self.mask_ratio = mask_ratio
        self.generate = MaskedGeneration(student_channels, teacher_channels)

    def masked_loss(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """The loss with a given mask, (N, 1, h, w), 1 = kept."""
        return squared_error_per_image(self.generate(student, mask), teacher)

    def forward(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
        f_s, f_t = self.maps(student, teacher)
        with torch.autocast(f_s.device.type, enabled=False):
            return self.masked_loss(f_s, f_t, random_mask(f_s, mask_ratio=self.mask_ratio))
