"""The SegFormer head: every stage projected to one width, resized, and mixed by 1x1 convolutions alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwdkit.models.blocks import conv_bn_relu


class SegFormerHead(nn.Module):
    """The all-MLP decoder (Xie et al., NeurIPS 2021, Eq. 4).

    No kernel is larger than 1x1: the receptive field is the backbone's. Its logits have the stride of the
    shallowest map, 4 for the usual backbones, whatever the output stride.

    Args:
        channels: width of every projection and of the embedding. Default: the paper's 256, which is that of
            its B0 and B1; B2 to B5 have 768.
        align_corners: of the resize to the shallowest map; the authors' code has it false.
    """

    pools_globally = False

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
        width = self.channels = channels or 256
        self.align_corners = align_corners
        self.projections = nn.ModuleList(nn.Conv2d(each, width, 1) for each in in_channels)
        self.fuse = conv_bn_relu(len(in_channels) * width, width, 1)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, stages: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return (N, classes, h, w) logits and the (N, channels, h, w) embedding that they are linear in.

        h and w are those of the shallowest of `stages`.
        """
        size = stages[0].shape[2:]
        projected = [
            F.interpolate(project(stage), size, mode="bilinear", align_corners=self.align_corners)
            for project, stage in zip(self.projections, stages, strict=True)
        ]
        # Deepest first, as the authors concatenate: their weights fit without shuffling.
        embedding = self.dropout(self.fuse(torch.cat(projected[::-1], dim=1)))
        return self.classifier(embedding), embedding
