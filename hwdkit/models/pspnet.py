"""The PSPNet head: pyramid pooling and a classifier, with the widths of HWD and CIRKD."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwdkit.models.blocks import conv_bn_relu

BINS = (1, 2, 3, 6)


class PSPHead(nn.Module):
    """Pyramid scene parsing (Zhao et al., CVPR 2017) as HWD and CIRKD build it.

    It is not the PSPNet of the SKD, IFVD and CWD releases, which concatenates in another order, uses leaky
    ReLU and dilates other blocks.

    Args:
        channels: width of the embedding. Default: the papers' 128 (512 or 320 input channels) and 512 (2048);
            in between, 512 from 1024 channels on.
        output_stride: accepted as every head does; the bins divide any map.
        align_corners: of the bins' resize.
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
        self.channels = channels or (512 if deepest >= 1024 else 128)
        self.align_corners = align_corners
        each = max(1, deepest // len(BINS))
        self.bins = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), *conv_bn_relu(deepest, each, 1)) for size in BINS
        )
        self.block = conv_bn_relu(deepest + len(BINS) * each, self.channels, 3)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(self.channels, classes, 1)

    def forward(self, stages: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return (N, classes, h, w) logits and the (N, channels, h, w) embedding that they are linear in."""
        feature = stages[-1]
        size = feature.shape[2:]
        pooled = (
            F.interpolate(pool(feature), size, mode="bilinear", align_corners=self.align_corners)
            for pool in self.bins
        )
        embedding = self.dropout(self.block(torch.cat([feature, *pooled], dim=1)))
        return self.classifier(embedding), embedding
