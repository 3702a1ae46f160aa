"""Plain knowledge distillation: per-pixel KL over classes, in the three reductions that papers publish."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hwdkit.distributed import world_size
from hwdkit.losses.base import Loss
from hwdkit.losses.options import require_choice, require_positive
from hwdkit.losses.precision import at_least_float32
from hwdkit.types import SegOutput

Reduction = Literal["pixel", "element", "batch_sum"]


def pixel_kd(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    reduction: Reduction = "pixel",
    micro_batches: int = 1,
) -> Tensor:
    """Divergence between the class distributions of every pixel (Hinton et al. 2015; "PI" in SKD).

    The reductions differ by orders of magnitude, so a published weight means something only with its own:
    `pixel` is tau^2 times the KL, mean over pixels (CIRKD, HWD; weight 1); `element` is the KL divided by
    the number of classes too, without tau^2 (IFVD, CWD code; weight 10); `batch_sum` is the soft
    cross-entropy summed over the batch and averaged over positions (SKD; weight 10).

    Args:
        student: (N, C, h, w) logits. Gradients flow here only.
        teacher: (N, C, h, w) logits at the same resolution.
        temperature: tau > 0.
        reduction: one of the three above.
        micro_batches: into how many a step is cut; `batch_sum` is the sum over all of them, and all ranks.

    Returns:
        A scalar in nats.
    """
    log_p = (at_least_float32(student) / temperature).log_softmax(1)
    log_q = (at_least_float32(teacher).detach() / temperature).log_softmax(1)
    pixels = student.shape[0] * student.shape[2] * student.shape[3]
    if reduction == "batch_sum":
        # The mean over ranks and micro-batches that follows must amount to the sum over the global batch.
        parts = world_size() * micro_batches
        return -(log_q.exp() * log_p).sum() / (pixels / student.shape[0]) * parts
    kl = (log_q.exp() * (log_q - log_p)).sum() / pixels
    return kl * temperature**2 if reduction == "pixel" else kl / student.shape[1]


class KD(Loss):
    """Per-pixel knowledge distillation on logits."""

    paper = "Hinton, Vinyals, Dean. Distilling the Knowledge in a Neural Network. 2015."

    def __init__(
        self, *, temperature: float = 1.0, reduction: Reduction = "pixel", micro_batches: int = 1
    ) -> None:
        super().__init__()
        require_positive(temperature=temperature)
        require_choice(Reduction, reduction=reduction)
        self.temperature = temperature
        self.reduction: Reduction = reduction
        self.micro_batches = micro_batches

    def forward(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
        with torch.autocast(student.logits.device.type, enabled=False):
            return pixel_kd(
                student.logits,
                teacher.logits,
                temperature=self.temperature,
                reduction=self.reduction,
                micro_batches=self.micro_batches,
            )
