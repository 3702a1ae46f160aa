"""The one building block that every head shares: convolution, batch norm, ReLU."""

from __future__ import annotations

from torch import nn


def conv_bn_relu(in_channels: int, out_channels: int, kernel: int, *, dilation: int = 1) -> nn.Sequential:
    """Build a bias-free, size-preserving convolution with batch norm and ReLU.

    The weights keep PyTorch's default initialisation, as in the released HWD and CIRKD heads (their Kaiming
    fan-out initialisation is the backbone's only).
    """
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
