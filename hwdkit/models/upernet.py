"""The UPerNet head: pyramid pooling on the deepest map, and a feature pyramid over all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwdkit.models.blocks import conv_bn_relu

BINS = (1, 2, 3, 6)


class UPerNetHead(nn.Module):
    """Unified perceptual parsing (Xiao et al., ECCV 2018) as Swin's and ConvNeXt's authors use it.

    Pools the deepest map, adds it to the others from deep to shallow, and fuses all of them at the size of
    the shallowest: its logits have that stride, 4 for the usual backbones, whatever the output stride.

    Args:
        channels: width of the pyramid and of the embedding. Default: the papers' 512 from 768 channels of
            the deepest map on, else 128, the width of the small students in HWD and CIRKD.
        align_corners: of every resize; the authors' code has it false.
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
        *shallower, deepest = in_channels
        width = self.channels = channels or (512 if deepest >= 768 else 128)
        self.align_corners = align_corners
        self.bins = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), *conv_bn_relu(deepest, width, 1)) for size in BINS
        )
        self.bottleneck = conv_bn_relu(deepest + len(BINS) * width, width, 3)
        self.laterals = nn.ModuleList(conv_bn_relu(each, width, 1) for each in shallower)
        self.smooth = nn.ModuleList(conv_bn_relu(width, width, 3) for _ in shallower)
        self.fuse = conv_bn_relu(len(in_channels) * width, width, 3)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, stages: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return (N, classes, h, w) logits and the (N, channels, h, w) embedding that they are linear in.

        h and w are those of the shallowest of `stages`.
        """
        *shallower, deepest = stages
        pooled = (self._resized(pool(deepest), deepest) for pool in self.bins)
        pyramid = [self.bottleneck(torch.cat([deepest, *pooled], dim=1))]
        for lateral, stage in zip(reversed(self.laterals), reversed(shallower), strict=True):
            added: Tensor = lateral(stage)
            pyramid.insert(0, added + self._resized(pyramid[0], added))
        smoothed = [*(conv(level) for conv, level in zip(self.smooth, pyramid, strict=False)), pyramid[-1]]
        fused = self.fuse(torch.cat([self._resized(level, stages[0]) for level in smoothed], dim=1))
        embedding = self.dropout(fused)
        return self.classifier(embedding), embedding

    def _resized(self, feature: Tensor, like: Tensor) -> Tensor:
        if feature.shape[2:] == like.shape[2:]:
            return feature
        return F.interpolate(feature, like.shape[2:], mode="bilinear", align_corners=self.align_corners)
