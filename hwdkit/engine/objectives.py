"""What a training step minimises: the student's task loss plus any distillation losses, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from hwdkit.errors import RecipeError
from hwdkit.losses.base import Loss, resized
from hwdkit.models.network import Network
from hwdkit.types import Batch, SegOutput

Teach = Callable[[Tensor], SegOutput]
"""A frozen teacher as a function: uint8 images -> its output, no gradient, no registered parameters."""

Ramp = Callable[[float], float]
"""progress of training in [0, 1) -> factor of a weight."""


class Objective(nn.Module):
    """The student and its losses: one module, so that one DDP wrapper and one optimizer see everything.

    Args:
        student: the network being trained.
        losses: name -> loss (see `hwdkit.losses`); those with parameters are trained along.
        weights: name -> factor of that term; those not named have 1.
        ramps: name -> how the factor changes over training; those not named keep theirs.

    Raises:
        RecipeError: a loss has a name that a module cannot have.
    """

    def __init__(
        self,
        student: Network,
        losses: Mapping[str, Loss],
        weights: Mapping[str, float] | None = None,
        ramps: Mapping[str, Ramp] | None = None,
    ) -> None:
        super().__init__()
        taken = [name for name in losses if "." in name or hasattr(nn.ModuleDict(), name)]
        if taken:
            raise RecipeError(f"a loss cannot be named {', '.join(taken)}: torch uses it", where="losses")
        self.student = student
        self.losses: Mapping[str, Loss] = nn.ModuleDict(losses)  # type: ignore[assignment]
        self.weights = dict.fromkeys(losses, 1.0) | dict(weights or {})
        self.ramps = dict(ramps or {})
        pairs = {pair for loss in losses.values() for pair in loss.tap_pairs}
        self.taps = tuple(sorted({tap for tap, _ in pairs}))
        self.teacher_taps = tuple(sorted({tap for _, tap in pairs}))
        self.reads_teacher_aux = any(loss.reads_teacher_aux for loss in losses.values())

    def forward(self, batch: Batch, hints: SegOutput | None, progress: float = 0.0) -> dict[str, Tensor]:
        """The weighted terms of the total loss.

        Args:
            batch: images and labels on the student's device.
            hints: the teacher's output for the same images; None without a teacher.
            progress: share of the training that is done, for weights that change.

        Returns:
            name -> scalar, already weighted; the loop sums and logs them.
        """
        output = self.student(batch.image, self.taps)
        views = self._aligned(hints, output) if hints is not None else dict.fromkeys(self.losses)
        return {
            name: self.weight(name, progress) * loss(output, views[name], batch.label)
            for name, loss in self.losses.items()
        }

    def weight(self, name: str, progress: float) -> float:
        """The factor of a term at this point of the training."""
        ramp = self.ramps.get(name)
        return self.weights[name] * (ramp(progress) if ramp else 1.0)

    def update_critics(self, progress: float) -> dict[str, Tensor]:
        """Let every loss that owns a critic train it on the outputs of the step just taken.

        Args:
            progress: share of the training that is done.

        Returns:
            name -> the critic's own loss, detached.
        """
        return {
            name: loss.update_critic(progress)
            for name, loss in self.losses.items()
            if loss.critic is not None
        }

    def _aligned(self, hints: SegOutput, output: SegOutput) -> dict[str, SegOutput]:
        """What each loss sees of the teacher: maps of the student's sizes, under the student's names."""
        logits = self._resized(hints.logits, output.logits)
        both = hints.aux is not None and output.aux is not None
        aux = self._resized(hints.aux, output.aux) if both else None  # type: ignore[arg-type]
        maps = {
            (tap, other): self._resized(hints.taps[other], output.taps[tap])
            for loss in self.losses.values()
            for tap, other in loss.tap_pairs
        }
        return {
            name: SegOutput(logits, aux, {tap: maps[tap, other] for tap, other in loss.tap_pairs})
            for name, loss in self.losses.items()
        }

    def _resized(self, teacher: Tensor, student: Tensor) -> Tensor:
        """A map of the teacher at the size of the student's, stretched as the student's own are."""
        return resized(teacher, student, align_corners=self.student.align_corners)


def ramp(*, warmup: float, decay: float) -> Ramp:
    """A factor that rises linearly from 0 over the first `warmup` of the training and falls to 0 over the
    last `decay` of it; shares of the whole, together at most 1.
    """

    def at(progress: float) -> float:
        rising = progress / warmup if progress < warmup else 1.0
        falling = (1 - progress) / decay if 1 - progress < decay else 1.0
        return min(rising, falling)

    return at


def frozen_teacher(
    teacher: Network, *, taps: tuple[str, ...], amp: torch.dtype | None, aux: bool = False
) -> Teach:
    """Close over a frozen network, so that it is in no checkpoint, no DDP bucket and no optimizer group.

    Args:
        teacher: put into eval mode for good.
        taps: intermediate maps that the losses need.
        amp: autocast type, or None.
        aux: whether a loss compares auxiliary logits.

    Returns:
        image (N, 3, H, W) uint8 -> SegOutput.
    """
    teacher = teacher.eval().requires_grad_(False)

    def teach(image: Tensor) -> SegOutput:
        # no_grad, not inference_mode: inference tensors cannot be saved for the student's backward.
        with torch.no_grad(), torch.autocast(image.device.type, dtype=amp, enabled=amp is not None):
            output: SegOutput = teacher(image, taps, aux=aux)
        return output

    return teach
