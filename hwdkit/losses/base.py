"""What every loss is: `Loss`, whose `forward` is the method and whose attributes say what it reads."""

from __future__ import annotations

import copy
import math
from functools import cached_property
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwdkit.losses.precision import at_least_float32
from hwdkit.types import IGNORE, SegOutput


class Loss(nn.Module):
    """A term of the total loss: derive from it, set what differs from the defaults, write `forward`.

    `forward(student: SegOutput, teacher: SegOutput, label) -> scalar` is called with maps that `check` has
    let pass. Users call the loss with `SegOutput`s, as the training loop does, or with plain logits:

        loss = 3.0 * HWD(mu=1.0)
        loss(student_logits, teacher_logits, label)

    Attributes:
        paper: whom a network owes that was trained with this loss; empty = nobody.
        taps: intermediate maps that it reads of the student: see `Network.tap_channels`.
        teacher_taps: the teacher's maps that these are compared with, one by one; by default of the same
            names. `forward` finds them under the student's names, at the student's sizes.
        reads_logits: whether it reads the student's logits; their head is not trained if no loss does.
        reads_aux: whether it reads the logits of the student's auxiliary head.
        reads_teacher: whether it compares the student with a teacher at all.
        reads_teacher_aux: whether it reads the logits of the teacher's auxiliary head.
        align_corners: how maps are stretched; `hwdkit.fit` sets it to the student's convention.
        factor: what the value is multiplied with: 3.0 in `3.0 * loss`.
        critic: a network that trains along in `update_critic`, with an optimizer of the loss's own.
    """

    paper: ClassVar[str] = ""
    taps: tuple[str, ...] = ()
    reads_logits: bool = True
    reads_aux: bool = False
    reads_teacher: bool = True
    reads_teacher_aux: bool = False
    align_corners: bool = True
    factor: float = 1.0
    critic: nn.Module | None

    def __init__(self) -> None:
        super().__init__()
        self.critic = None

    @cached_property
    def teacher_taps(self) -> tuple[str, ...]:
        return self.taps

    @property
    def tap_pairs(self) -> tuple[tuple[str, str], ...]:
        """(student's tap, teacher's tap) of every intermediate map that is compared."""
        return tuple(zip(self.taps, self.teacher_taps, strict=True))

    def __call__(
        self,
        student: SegOutput | Tensor,
        teacher: SegOutput | Tensor | None = None,
        label: Tensor | None = None,
    ) -> Tensor:
        """The loss, times `factor`.

        Args:
            student: a network's output, or its logits (N, C, h, w), not up-sampled.
            teacher: likewise, without gradient; plain logits may have another size and are resized
                bilinearly. None for a loss without a teacher.
            label: (N, H, W) integers at full resolution, 255 = ignore.

        Returns:
            A scalar, at least float32.

        Raises:
            TypeError: it reads intermediate maps, and they are not there.
            ValueError: shapes do not go together, or (on the CPU) the label names a class without logits.
        """
        for maps in (student, teacher):
            if isinstance(maps, Tensor) and maps.ndim != 4:
                raise ValueError(f"logits must be (N, C, h, w), not {tuple(maps.shape)}")
        if isinstance(student, Tensor):
            label = _checked_label(label, student)
            student = SegOutput(student, None, {})
        if isinstance(teacher, Tensor):
            teacher = SegOutput(
                resized(teacher.detach(), student.logits, align_corners=self.align_corners), None, {}
            )
        if self.reads_teacher:
            if teacher is None:
                raise ValueError(f"{type(self).__name__} needs a teacher: call loss(student, teacher, label)")
            self._require_taps(student, teacher)
            self.check(student, teacher)
        value: Tensor = super().__call__(student, teacher, label)
        return value if self.factor == 1 else self.factor * value

    def check(self, student: SegOutput, teacher: SegOutput) -> None:
        """Refuse maps that cannot be compared: here, logits of different shapes.

        Raises:
            ValueError: with both shapes.
        """
        shape_s, shape_t = student.logits.shape, teacher.logits.shape
        if self.reads_logits and shape_s != shape_t:
            raise ValueError(
                f"student and teacher must have maps of one shape, not {tuple(shape_s)} and {tuple(shape_t)}"
            )

    def update_critic(self, progress: float) -> Tensor:
        """Train the critic one step on what `forward` has seen; only called where there is a critic.

        Args:
            progress: share of the training that is done, in [0, 1).

        Returns:
            The critic's own loss, detached.
        """
        raise NotImplementedError(f"{type(self).__name__} has a critic and no update_critic")

    def __mul__(self, factor: float) -> Self:
        """The same loss with a factor; a copy, parameters and all, so that this one stays as it is."""
        if not isinstance(factor, (int, float)):
            return NotImplemented
        if not 0 <= factor < math.inf:
            raise ValueError(f"a loss can be multiplied with 0 or a positive number, not {factor}")
        weighted = copy.deepcopy(self)
        weighted.factor = self.factor * float(factor)
        return weighted

    __rmul__ = __mul__

    def _require_taps(self, student: SegOutput, teacher: SegOutput) -> None:
        if all(tap in output.taps for tap in self.taps for output in (student, teacher)):
            return
        maps = ", ".join(f"{tap!r}: map" for tap in self.taps)
        raise TypeError(
            f"{type(self).__name__} compares intermediate maps, not logits alone: pass "
            f"SegOutput(logits, None, {{{maps}}}) for student and teacher, the teacher's maps under these "
            "names too and at the student's sizes"
        )


def resized(teacher: Tensor, student: Tensor, *, align_corners: bool) -> Tensor:
    """A map of the teacher at the size of the student's, bilinearly; as it is where the sizes agree."""
    if teacher.shape[-2:] == student.shape[-2:]:
        return teacher
    return F.interpolate(
        at_least_float32(teacher), student.shape[-2:], mode="bilinear", align_corners=align_corners
    )


def _checked_label(label: Tensor | None, logits: Tensor) -> Tensor:
    """The label as int64, where it belongs to these logits."""
    if label is None:
        raise ValueError("the label is missing: call loss(student, teacher, label)")
    if label.ndim != 3 or len(label) != len(logits):
        shapes = f"{tuple(label.shape)} for logits {tuple(logits.shape)}"
        raise ValueError(f"label must be (N, H, W) with the logits' N, not {shapes}")
    if label.dtype == torch.bool or label.is_floating_point() or label.is_complex():
        raise ValueError(f"label must hold class indices, whole numbers, not {label.dtype}")
    # Elsewhere the question would wait for the device.
    if label.device.type == "cpu":
        classes, counted = logits.shape[1], label[label != IGNORE]
        outside = counted[(counted < 0) | (counted >= classes)]
        if len(outside):
            raise ValueError(
                f"label has class {outside[0].item()}, but the logits have {classes} channels: "
                f"0 to {classes - 1}, and {IGNORE} for pixels that do not count"
            )
    return label.long()
