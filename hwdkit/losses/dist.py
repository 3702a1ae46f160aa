"""DIST (Huang et al., NeurIPS 2022): the student keeps the teacher's relations, not its probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from hwdkit.losses.base import Loss
from hwdkit.losses.correlation import PIXELS, pearson
from hwdkit.losses.options import require_not_negative
from hwdkit.losses.precision import at_least_float32
from hwdkit.types import SegOutput


def inter_class_relation(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - the correlation of the two class vectors of a pixel, mean over pixels: L_inter.

    Args:
        student: (N, C, h, w) scores or probabilities. Gradients flow here only.
        teacher: (N, C, h, w).

    Returns:
        A scalar within [0, 2].
    """
    return 1 - pearson(student, teacher.detach(), (1,), over_ranks=False).mean()


def intra_class_relation(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - the correlation of the two maps of a class, mean over classes: L_intra.

    A map of a class is all pixels of the batch, of the global one where several processes train; the
    authors' code correlates each process's own.

    Args:
        student: (N, C, h, w) scores or probabilities, of the same shape on every rank.
        teacher: (N, C, h, w).

    Returns:
        A scalar within [0, 2], the same on every rank.
    """
    return 1 - pearson(student, teacher.detach(), PIXELS, over_ranks=True).mean()


class DIST(Loss):
    """beta * L_inter + gamma * L_intra on score maps, and `aux_weight` times the same on the auxiliary ones.

    Args:
        beta, gamma: weights of the inter-class and the intra-class relation, 0 or more.
        softmax: whether the relations are those of probabilities (the authors' code) or of logits (the
            tables of HWD; better on ADE20K, worse on Cityscapes).
        aux_weight: share of the auxiliary heads, 0 or more; 0.4 in the authors' code, 0 in HWD's. Without
            an auxiliary head on either side there is no such term.
    """

    paper = "Huang et al. Knowledge Distillation from A Stronger Teacher. NeurIPS 2022."

    def __init__(
        self, *, beta: float = 1.0, gamma: float = 1.0, softmax: bool = True, aux_weight: float = 0.0
    ) -> None:
        super().__init__()
        require_not_negative(beta=beta, gamma=gamma, aux_weight=aux_weight)
        self.beta, self.gamma, self.softmax, self.aux_weight = beta, gamma, softmax, aux_weight
        self.reads_aux = self.reads_teacher_aux = aux_weight > 0

    def forward(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
        with torch.autocast(student.logits.device.type, enabled=False):
            loss = self._relations(student.logits, teacher.logits)
            if self.aux_weight and student.aux is not None and teacher.aux is not None:
                loss = loss + self.aux_weight * self._relations(student.aux, teacher.aux)
            return loss

    def _relations(self, student: Tensor, teacher: Tensor) -> Tensor:
        y_s, y_t = at_least_float32(student), at_least_float32(teacher).detach()
        if self.softmax:
            y_s, y_t = y_s.softmax(1), y_t.softmax(1)
        return self.beta * inter_class_relation(y_s, y_t) + self.gamma * intra_class_relation(y_s, y_t)
