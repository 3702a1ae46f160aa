"""Pair-wise affinity of positions (SKD, Liu et al., CVPR 2019; "PA"). SKD's other terms: kd and holistic."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hwdkit.losses.features import FeatureLoss
from hwdkit.losses.options import require_whole
from hwdkit.losses.similarity import cosine_gram, unit_channels
from hwdkit.types import SegOutput


def nodes(maps: Tensor, *, kernel: int, scale: float | None = None) -> Tensor:
    """Max-pool a map to the nodes of the affinity graph; windows at the edge may be smaller.

    Args:
        maps: (N, D, h, w).
        kernel: side and stride of the windows.
        scale: windows of int(scale * h) x int(scale * w), at least 1, instead of `kernel`.

    Returns:
        (N, D, ceil(h / kernel), ceil(w / kernel)).
    """
    side = (kernel, kernel)
    if scale is not None:
        side = (max(1, int(scale * maps.shape[2])), max(1, int(scale * maps.shape[3])))
    return F.max_pool2d(maps, side, side, ceil_mode=True)


def constant_norm(maps: Tensor) -> Tensor:
    """`unit_channels` as in SKD's code: 1e-8 is added to the norm, which is a constant to autograd.

    Args:
        maps: (N, D, h, w).

    Returns:
        (N, D, h, w).
    """
    norm = torch.linalg.vector_norm(maps.detach(), dim=1, keepdim=True)
    # As in unit_channels: no gradient of 1e8 where there is no direction.
    unit: Tensor = maps / (norm + 1e-8).masked_fill(norm == 0, math.inf)
    return unit


def pairwise_affinity(student: Tensor, teacher: Tensor, *, detach_norm: bool = False) -> Tensor:
    """Mean squared difference of the cosines of all pairs of nodes: l_pa of SKD.

    Args:
        student: (N, D_S, h, w) pooled features. Gradients flow here only.
        teacher: (N, D_T, h, w); cosines do not mind another number of channels.
        detach_norm: see `constant_norm`.

    Returns:
        A scalar: the mean over images and the (h*w)^2 pairs.
    """
    unit = constant_norm if detach_norm else unit_channels
    return (cosine_gram(unit(student)) - cosine_gram(unit(teacher.detach()))).square().mean()


class Pairwise(FeatureLoss):
    """PA on max-pooled features. No projector: each network's affinities are its own.

    The sources differ by more than a constant. HWD and CIRKD pool 2x2 (weight 10): 1024 nodes on a 64x64
    map. SKD's code pools by `scale=0.5` with `detach_norm=True` (weight 0.5): 4 nodes, or 9 where the
    size is odd.

    Time and memory grow with the square of the nodes: two float32 matrices an image, each 4 MiB at 1024
    nodes and 256 MiB at 8192 (a 128x256 map pooled 2x2), and about as much again for the gradient. Use a
    larger kernel on such maps.

    Args:
        tap, teacher_tap: see `FeatureLoss`.
        kernel: side of the windows that are max-pooled to one node.
        scale: window sides as a share of the map's instead, in (0, 1]; `kernel` is not read then.
        detach_norm: SKD's normalisation, see `constant_norm`.
    """

    paper = "Liu et al. Structured Knowledge Distillation for Semantic Segmentation. CVPR 2019."

    def __init__(
        self,
        *,
        tap: str = "embedding",
        teacher_tap: str | None = None,
        kernel: int = 2,
        scale: float | None = None,
        detach_norm: bool = False,
    ) -> None:
        super().__init__(tap=tap, teacher_tap=teacher_tap)
        require_whole(kernel=kernel)
        if scale is not None and not 0 < scale <= 1:
            raise ValueError(f"scale must be more than 0 and at most 1, not {scale}")
        self.kernel, self.scale, self.detach_norm = kernel, scale, detach_norm

    def forward(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
        with torch.autocast(student.logits.device.type, enabled=False):
            f_s, f_t = (
                nodes(maps, kernel=self.kernel, scale=self.scale) for maps in self.maps(student, teacher)
            )
            return pairwise_affinity(f_s, f_t, detach_norm=self.detach_norm)
