"""Pearson correlation of two maps, within a pixel or across all pixels of the global batch: DIST and PKD.

Where a mean, a deviation or a correlation runs over the batch, it runs over the batches of all ranks, so
that several processes equal one. No factor for their number appears: DistributedDataParallel averages the
ranks' gradients, so what is minimised is the mean of the ranks' losses. A rank's own loss depends on the
pixels of every rank through the sums here, and the backward of `differentiable_sum_over_ranks` adds up what
all of the losses say about a pixel: `world` times too much where the loss is the same number everywhere,
which the averaging divides by `world` again.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hwdkit.distributed import differentiable_sum_over_ranks, world_size

PIXELS = (0, 2, 3)
"""The dimensions of an (N, C, h, w) map that are not channels."""


def root(square: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0, as that of a norm, and not infinite.

    Args:
        square: any shape, non-negative.
    """
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)


def centred(x: Tensor, dims: tuple[int, ...], *, over_ranks: bool) -> Tensor:
    """Deviations from the mean over `dims` (and over the same dims of every rank's tensor).

    Sums of these, never E[x^2] - E[x]^2: that cancels where the mean is large.

    Args:
        x: (N, C, h, w), of the same shape on every rank.
        dims: what the mean runs over.
        over_ranks: whether it runs over the ranks too.

    Returns:
        (N, C, h, w).
    """
    total = x.sum(dims, keepdim=True)
    count = math.prod(x.shape[dim] for dim in dims)
    if over_ranks:
        total, count = differentiable_sum_over_ranks(total), count * world_size()
    return x - total / count


def pearson(
    student: Tensor, teacher: Tensor, dims: tuple[int, ...], *, over_ranks: bool, eps: float = 1e-8
) -> Tensor:
    """Pearson's correlation coefficient: the cosine of the centred vectors.

    Args:
        student: (N, C, h, w).
        teacher: the same shape.
        dims: the dimensions that make up a vector.
        over_ranks: whether a vector goes on in the tensors of the other ranks.
        eps: added to the product of the norms, as in DIST's code: what is constant correlates with nothing.

    Returns:
        Within [-1, 1], of the shape that is left without `dims`.
    """
    s, t = (centred(x, dims, over_ranks=over_ranks) for x in (student, teacher))
    moments = torch.stack([(a * b).sum(dims) for a, b in ((s, t), (s, s), (t, t))])
    if over_ranks:
        moments = differentiable_sum_over_ranks(moments)
    norm_s, norm_t = root(moments[1]), root(moments[2])
    return moments[0] / (norm_s * norm_t + eps)


def standardise_channels(x: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Give every channel mean 0 and standard deviation 1 over all pixels of the global batch.

    Args:
        x: (N, C, h, w), of the same shape on every rank.
        eps: added to the (biased) standard deviation: a constant channel becomes 0.

    Returns:
        (N, C, h, w).
    """
    deviation = centred(x, PIXELS, over_ranks=True)
    squares = differentiable_sum_over_ranks(deviation.square().sum(PIXELS, keepdim=True))
    count = x.numel() // x.shape[1] * world_size()
    return deviation / (root(squares / count) + eps)
