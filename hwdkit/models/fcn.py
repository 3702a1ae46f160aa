"""The fully convolutional head: one 3x3 block and a classifier. Serves as `fcn` and as auxiliary head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hwdkit.models.blocks import conv_bn_relu


class FCNHead(nn.Module):
    """Classify every pixel from its 3x3 neighbourhood (Long et al., CVPR 2015, in PSPNet's auxiliary form).

    Args:
        channels: width of the hidden layer; default in_channels // 4, as HWD and CIRKD train it.
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
        deepest = in_channels[-1]
        self.channels = channels or max(1, deepest // 4)
        self.block = conv_bn_relu(deepest, self.channels, 3)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(self.channels, classes, 1)

    def forward(self, stages: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return (N, classes, h, w) logits and the (N, channels, h, w) embedding that they are linear in."""
        embedding = self.dropout(self.block(stages[-1]))
        return self.classifier(embedding), embedding
