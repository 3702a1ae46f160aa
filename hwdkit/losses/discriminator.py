"""The discriminator of adversarial distillation: a score map in, a map of scores out. Its losses: holistic.

It is SAGAN's (Zhang et al., ICML 2019) as the authors of SKD, IFVD and CWD use it. No layer has a train and
an eval mode: statistics are always the batch's, and spectral norms always advance.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwdkit.distributed import differentiable_sum_over_ranks, world_size
from hwdkit.losses.options import require_choice

Preprocess = Literal["batch_norm", "tanh", "scale"]

SMALLEST_SIDE = 64
"""Four halvings leave 4, which is the last convolution's kernel."""


class SpectralConv2d(nn.Conv2d):
    """A convolution whose weight is divided by its largest singular value (Miyato et al., ICLR 2018).

    One power iteration a call, in eval mode as well; torch's own spectral_norm stands still there. sigma =
    u^T W v is differentiated with respect to W, while u and v count as constants.
    """

    u: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1)
        self.register_buffer("u", _unit(torch.randn(out_channels)))

    def forward(self, x: Tensor) -> Tensor:
        convolved: Tensor = self._conv_forward(x, self.weight / self.sigma(), self.bias)
        return convolved

    def sigma(self) -> Tensor:
        """The largest singular value, as one more power iteration estimates it; from below."""
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            v = _unit(matrix.T @ self.u)
            u = _unit(matrix @ v)
            # A copy: several passes wait for their backward at a time, each with the u that it saw.
            self.u.copy_(u)
        sigma: Tensor = u @ (matrix @ v)
        return sigma


def _unit(vector: Tensor) -> Tensor:
    unit: Tensor = vector / (torch.linalg.vector_norm(vector) + 1e-12)
    return unit


class SelfAttention(nn.Module):
    """Every position looks at all others (SAGAN, Sec. 3): gamma * sum_j softmax_j(q_i . k_j) v_j + x_i.

    gamma begins at 0, where the layer does nothing.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        # No fused attention: a gradient penalty differentiates this twice. No scaling: SAGAN has none.
        attention = (query.transpose(1, 2) @ key).softmax(-1)
        seen: Tensor = (value @ attention.transpose(1, 2)).view_as(x)
        return self.gamma * seen + x


class BatchStandardise(nn.Module):
    """Batch norm without memory: always the statistics of this batch, over the images of all ranks.

    Not nn.BatchNorm2d, which converters to synchronised batch norm replace; the one for GPUs cannot be
    differentiated twice.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        count = x.numel() // x.shape[1] * world_size()  # every rank holds as many images
        mean = differentiable_sum_over_ranks(x.sum((0, 2, 3))) / count
        centred = x - mean[:, None, None]
        var = differentiable_sum_over_ranks(centred.square().sum((0, 2, 3))) / count
        scale = torch.rsqrt(var + self.eps) * self.weight
        return centred * scale[:, None, None] + self.bias[:, None, None]


class Discriminator(nn.Module):
    """Scores how much a map of logits looks like the teacher's; higher is more.

    Four spectrally normalised 4x4 convolutions of stride 2 with LeakyReLU 0.1, self-attention after the third
    and the fourth, and a plain 4x4 convolution to one channel. Unconditional: it does not see the image,
    although the papers write D(Q|I); of the released codes only SKD's conference branch shows it.

    Maps below 64 on a side are stretched to 64 there first (bilinear, corners aligned), because the last
    convolution has nothing to stand on otherwise. The released code fails on them: this is hwdkit's choice.

    Args:
        classes: C, channels of the logits.
        width: channels after the first convolution; the others have 2, 4 and 8 times as many.
        preprocess: what happens to the logits first. batch_norm: see `BatchStandardise`, with an affine map;
            tanh; scale: 2 * (x / 255 - 1/2), as if they were pixels.
    """

    def __init__(self, classes: int, *, width: int = 64, preprocess: Preprocess = "batch_norm") -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes must be at least 1, not {classes}")
        if width < 2:
            raise ValueError(f"width must be at least 2, not {width}")
        require_choice(Preprocess, preprocess=preprocess)
        self.preprocess: Preprocess = preprocess
        self.norm = BatchStandardise(classes) if preprocess == "batch_norm" else nn.Identity()
        self.conv1 = SpectralConv2d(classes, width)
        self.conv2 = SpectralConv2d(width, 2 * width)
        self.conv3 = SpectralConv2d(2 * width, 4 * width)
        self.attention3 = SelfAttention(4 * width)
        self.conv4 = SpectralConv2d(4 * width, 8 * width)
        self.attention4 = SelfAttention(8 * width)
        self.last = nn.Conv2d(8 * width, 1, 4)

    def forward(self, logits: Tensor) -> Tensor:
        """Return (N, 1, h', w') scores in the precision of the weights; average them where they are used.

        Args:
            logits: (N, C, h, w), not up-sampled. 64x64 gives one score an image, 64x128 five.
        """
        x = self._preprocessed(self._large_enough(logits.to(self.last.weight.dtype)))
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.leaky_relu(conv(x), 0.1)
        x = self.attention3(x)
        x = self.attention4(F.leaky_relu(self.conv4(x), 0.1))
        scores: Tensor = self.last(x)
        return scores

    def _large_enough(self, x: Tensor) -> Tensor:
        size = max(x.shape[2], SMALLEST_SIDE), max(x.shape[3], SMALLEST_SIDE)
        if size == x.shape[2:]:
            return x
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    def _preprocessed(self, x: Tensor) -> Tensor:
        if self.preprocess == "batch_norm":
            normalised: Tensor = self.norm(x)
            return normalised
        return x.tanh() if self.preprocess == "tanh" else 2 * (x / 255 - 0.5)
