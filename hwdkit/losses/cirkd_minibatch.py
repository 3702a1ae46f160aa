"""CIRKD (Yang et al., CVPR 2022), mini-batch-based pixel-to-pixel: how pixels of a batch resemble each other.

The relation of pixels to contrastive ones, `relation_kl`, is shared with the memory-based losses; the queues
are in queues.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hwdkit.losses.features import FeatureLoss
from hwdkit.losses.options import require_positive, require_whole
from hwdkit.losses.similarity import unit_channels
from hwdkit.types import SegOutput

MATRIX_BYTES = 2**26
"""Largest similarity matrix at a time; about six of that size are alive at the peak."""


def as_rows(unit: Tensor) -> Tensor:
    """(N, D, h, w) maps as (N, M, D), one row a position, M = h*w."""
    return unit.flatten(2).transpose(1, 2)


def _relation_kl(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], temperature: float
) -> Tensor:
    def log_relation(anchors: Tensor, others: Tensor) -> Tensor:
        similarity = (anchors @ others.flatten(0, 1).T).view(-1, *others.shape[:2])
        return (similarity / temperature).log_softmax(-1)

    log_p, log_q = log_relation(*student), log_relation(*teacher)
    return (log_q.exp() * (log_q - log_p)).sum(-1)


def relation_kl(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    *,
    temperature: float,
    matrix_bytes: int = MATRIX_BYTES,
) -> Tensor:
    """KL(teacher || student) between the distributions of each anchor over groups of other positions.

    The distribution of anchor a over group g is softmax_j(a . o_gj / tau); all vectors are of length 1, so
    the products are cosines. No factor tau^2, as in the authors' code.

    8 images of 64x64 have 32768^2 similarities, 4.3 GB in float32, and autograd would keep several such
    matrices. Anchors are therefore taken some at a time, and backward computes their similarities again.

    Args:
        student: anchors (A, D_S) and others (G, Q, D_S); gradients flow to both.
        teacher: anchors (A, D_T) and others (G, Q, D_T) for the same positions; no gradients.
        temperature: tau > 0.
        matrix_bytes: how large a matrix of similarities may be; changes memory and speed, not values.

    Returns:
        (A, G), in nats.
    """
    student_anchors, student_others = student
    teacher_anchors, teacher_others = (tensor.detach() for tensor in teacher)
    row_bytes = student_others.shape[:2].numel() * student_anchors.element_size()
    rows = max(1, matrix_bytes // max(1, row_bytes))
    parts = [
        checkpoint(
            _relation_kl,
            (f_s, student_others),
            (f_t, teacher_others),
            temperature,
            use_reentrant=False,
            preserve_rng_state=False,  # nothing random inside, and saving it would wait for the GPU
        )
        for f_s, f_t in zip(
            torch.split(student_anchors, rows), torch.split(teacher_anchors, rows), strict=True
        )
    ]
    return torch.cat(parts)


def minibatch_relation(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Pixel-to-pixel relations within a batch (CIRKD, "mini-batch-based pixel-to-pixel distillation").

    S_ab = F_a^T F_b (M x M) holds the cosines of the positions of image a with those of image b. For every
    ordered pair (a, b), a = b included, the rows of S_ab / tau become distributions over the positions of b;
    the loss is the mean over rows and pairs of KL(teacher || student).

    Args:
        student: (N, D_S, h, w) features.
        teacher: (N, D_T, h, w) features; D_T may differ from D_S, since only similarities are compared.
        temperature: tau > 0.

    Returns:
        A scalar in nats.
    """
    f_s, f_t = as_rows(unit_channels(student)), as_rows(unit_channels(teacher))
    return relation_kl((f_s.flatten(0, 1), f_s), (f_t.flatten(0, 1), f_t), temperature=temperature).mean()


class CirkdMinibatch(FeatureLoss):
    """Cross-image relations within a batch: see `minibatch_relation`.

    The pairs are those of this process's own images, as in the authors' code. So this loss depends on how a
    batch is divided: two processes of 4 images compare 2 * 4^2 pairs, one process of 8 compares 8^2; the
    same holds for micro-batches.

    Args:
        tap, teacher_tap: see `FeatureLoss`.
        temperature: tau > 0 of the softmax over similarities.
        pool: side of an average pooling before, as the authors' SegFormer script has it (2); the last
            window may be cut off by the border. 1 = none. Time falls with pool^4.
    """

    paper = "Yang et al. Cross-Image Relational Knowledge Distillation for Semantic Segmentation. CVPR 2022."

    def __init__(
        self,
        *,
        tap: str = "embedding",
        teacher_tap: str | None = None,
        temperature: float = 0.1,
        pool: int = 1,
    ) -> None:
        super().__init__(tap=tap, teacher_tap=teacher_tap)
        require_positive(temperature=temperature)
        require_whole(pool=pool)
        self.temperature, self.pool = temperature, pool

    def forward(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
        f_s, f_t = self.maps(student, teacher)
        with torch.autocast(f_s.device.type, enabled=False):
            if self.pool > 1:
                f_s, f_t = (F.avg_pool2d(x, self.pool, ceil_mode=True) for x in (f_s, f_t))
            return minibatch_relation(f_s, f_t, temperature=self.temperature)
