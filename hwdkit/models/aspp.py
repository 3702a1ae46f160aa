"""The DeepLabV3 head of mmseg: atrous spatial pyramid pooling that one 3x3 convolution joins.

deeplabv3.py has the form of HWD, CIRKD, torchvision and smp, which project to the width first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwdkit.models.blocks import conv_bn_relu
from hwdkit.models.deeplabv3 import atrous_rates


class ASPPHead(nn.Module):
    """DeepLabV3 (Chen et al., arXiv:1706.05587) as mmseg's ASPPHead builds it.

    The pooled branch comes first in the concatenation, so that mmseg's weights need no permutation. mmseg
    drops whole channels before the classifier where `nn.Dropout` drops single values: a matter of training.

    Args:
        channels: width of every branch and of the embedding. Default: mmseg's 128 (ResNet-18) and 512.
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
        width = self.channels = channels or (512 if deepest >= 1024 else 128)
        self.align_corners = align_corners
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn_relu(deepest, width, 1))
        self.branches = nn.ModuleList(
            [
                conv_bn_relu(deepest, width, 1),
                *(conv_bn_relu(deepest, width, 3, dilation=r) for r in atrous_rates(output_stride)),
            ]
        )
        self.block = conv_bn_relu(5 * width, width, 3)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, stages: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return (N, classes, h, w) logits and the (N, channels, h, w) embedding that they are linear in."""
        feature = stages[-1]
        pooled = F.interpolate(
            self.pool(feature), feature.shape[2:], mode="bilinear", align_corners=self.align_corners
        )
        pyramid = torch.cat([pooled, *(branch(feature) for branch in self.branches)], dim=1)
        embedding = self.dropout(self.block(pyramid))
        return self.classifier(embedding), embedding
