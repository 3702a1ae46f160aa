"""The DeepLabV3 head: atrous spatial pyramid pooling and a classifier, with the widths of HWD and CIRKD."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwdkit.models.blocks import conv_bn_relu


def atrous_rates(output_stride: int) -> tuple[int, int, int]:
    """Return the pyramid's dilations: (12, 24, 36) at output stride 8, halved when the stride doubles.

    Chen et al. (arXiv:1706.05587) use (6, 12, 18) at stride 16 and double them at 8; (3, 6, 9) at 32
    continues the rule, so that a rate always spans the same number of image pixels.
    """
    return (96 // output_stride, 192 // output_stride, 288 // output_stride)


class DeepLabV3Head(nn.Module):
    """DeepLabV3 (Chen et al., arXiv:1706.05587) as HWD and CIRKD build it.

    Args:
        channels: width of every branch and of the embedding. Default: the papers' 128 (512 or 320 input
            channels) and 256 (2048); in between, 256 from 1024 channels on.
        output_stride: sets the atrous rates.
        align_corners: of the pooled branch's resize.
    """

    pools_globally = True

    def __init__(
        self,
        in_channels: Sequence[int],
        classes: int,
        *,
        channels: int | None = None,
        output_stride: int = 8,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        deepest = in_channels[-1]
        width = self.channels = channels or (256 if deepest >= 1024 else 128)
        self.align_corners = align_corners
        self.branches = nn.ModuleList(
            [
                conv_bn_relu(deepest, width, 1),
                *(conv_bn_relu(deepest, width, 3, dilation=r) for r in atrous_rates(output_stride)),
            ]
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn_relu(deepest, width, 1))
        self.project = conv_bn_relu(5 * width, width, 1)
        self.project_dropout = nn.Dropout(0.5)
        self.block = conv_bn_relu(width, width, 3)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, stages: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return (N, classes, h, w) logits and the (N, channels, h, w) embedding that they are linear in."""
        feature = stages[-1]
        pooled = F.interpolate(
            self.pool(feature), feature.shape[2:], mode="bilinear", align_corners=self.align_corners
        )
        pyramid = torch.cat([*(branch(feature) for branch in self.branches), pooled], dim=1)
        projected = self.project_dropout(self.project(pyramid))
        embedding = self.dropout(self.block(projected))
        return self.classifier(embedding), embedding
