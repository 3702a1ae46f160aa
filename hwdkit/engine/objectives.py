"""What a training step minimises: the student's task loss plus any distillation losses, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwdkit.models.segmenter import Segmenter
from hwdkit.types import Batch, SegOutput

Teach = Callable[[Tensor], SegOutput]
"""A frozen teacher as a function: uint8 images -> its output, no gradient, no parameters to be found."""


class Objective(nn.Module):
    """The student and its losses: one module, so that one DDP wrapper and one optimizer see everything.

    Args:
        student: the network being trained.
        losses: name -> loss (see `hwdkit.losses`); those with parameters are trained along.
        weights: name -> factor of that term.
    """

    def __init__(
        self, student: Segmenter, losses: Mapping[str, nn.Module], weights: Mapping[str, float]
    ) -> None:
        super().__init__()
        self.student = student
        self.losses = nn.ModuleDict(losses)
        self.weights = dict(weights)
        self.taps = tuple(sorted({tap for loss in losses.values() for tap in loss.taps}))  # type: ignore[union-attr]

    def forward(self, batch: Batch, hints: SegOutput | None) -> dict[str, Tensor]:
        """The weighted terms of the total loss.

        Args:
            batch: images and labels on the student's device.
            hints: the teacher's output for the same images; None when nobody teaches.

        Returns:
            name -> scalar, already weighted; the loop sums and logs them.
        """
        output = self.student(batch.image, self.taps)
        if hints is not None and hints.logits.shape[-2:] != output.logits.shape[-2:]:
            hints = hints._replace(logits=self._resized(hints.logits, output.logits))
        return {
            name: self.weights[name] * loss(output, hints, batch.label) for name, loss in self.losses.items()
        }

    def _resized(self, teacher: Tensor, student: Tensor) -> Tensor:
        """The teacher's logits at the student's output stride, stretched as the student's own are."""
        return F.interpolate(
            teacher.float(),
            student.shape[-2:],
            mode="bilinear",
            align_corners=self.student.contract.align_corners,
        )


def frozen_teacher(teacher: Segmenter, *, taps: tuple[str, ...], amp: torch.dtype | None) -> Teach:
    """Close over a frozen network, so that it is in no checkpoint, no DDP bucket and no optimizer group.

    Args:
        teacher: put into eval mode for good.
        taps: intermediate maps that the losses need.
        amp: autocast type, or None.

    Returns:
        image (N, 3, H, W) uint8 -> SegOutput.
    """
    teacher = teacher.eval().requires_grad_(False)

    def teach(image: Tensor) -> SegOutput:
        # no_grad, not inference_mode: inference tensors cannot be saved for the student's backward.
        with torch.no_grad(), torch.autocast(image.device.type, dtype=amp, enabled=amp is not None):
            output: SegOutput = teacher(image, taps)
        return output

    return teach
