"""What losses on maps share: which map of each network they compare, and how channels are matched."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from hwdkit.losses.base import Loss
from hwdkit.losses.options import require_choice
from hwdkit.losses.precision import at_least_float32
from hwdkit.types import SegOutput

LOGITS = "logits"
"""The tap that every network has: the score maps themselves."""

Projector = Literal["auto", "none", "linear", "linear_bn_relu"]


class FeatureLoss(Loss):
    """A loss that compares one map of the student with one of the teacher.

    The objective hands over the teacher's map under the student's name and at the student's size, so only
    the number of channels may differ here.

    Args:
        tap: "logits", "embedding" or a stage: see `Network.tap_channels`.
        teacher_tap: the teacher's map, where it has another name; None = the same. Logits are compared with
            logits only.
        channels: of the two maps, `student_channels` and `teacher_channels`, where the loss depends on them.
    """

    def __init__(
        self, *, tap: str, teacher_tap: str | None = None, channels: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        other = tap if teacher_tap is None else teacher_tap
        if (tap == LOGITS) != (other == LOGITS):
            raise ValueError(f"logits can be compared with logits only, not {tap} with {other}")
        self.tap, self.teacher_tap, self.channels = tap, other, channels
        self.taps = () if tap == LOGITS else (tap,)
        self.teacher_taps = () if tap == LOGITS else (other,)
        self.reads_logits = tap == LOGITS

    def maps(self, student: SegOutput, teacher: SegOutput) -> tuple[Tensor, Tensor]:
        """The two maps, (N, C_S, h, w) and (N, C_T, h, w), at least float32; the teacher's is detached."""
        f_s, f_t = self._pair(student, teacher)
        return at_least_float32(f_s), at_least_float32(f_t).detach()

    def check(self, student: SegOutput, teacher: SegOutput) -> None:
        shape_s, shape_t = (tuple(maps.shape) for maps in self._pair(student, teacher))
        if (shape_s[0], *shape_s[2:]) != (shape_t[0], *shape_t[2:]):
            raise ValueError(
                f"{self.tap} must have one size in student and teacher, not {shape_s} and {shape_t}"
            )
        if self.channels is not None and (shape_s[1], shape_t[1]) != self.channels:
            raise ValueError(
                f"{self.tap} has {shape_s[1]} channels in the student and {shape_t[1]} in the teacher, but "
                f"{type(self).__name__} was made for {self.channels[0]} and {self.channels[1]}"
            )

    def _pair(self, student: SegOutput, teacher: SegOutput) -> tuple[Tensor, Tensor]:
        if self.tap == LOGITS:
            return student.logits, teacher.logits
        return student.taps[self.tap], teacher.taps[self.tap]


def projector(
    kind: Projector, student_channels: int, teacher_channels: int, *, bias: bool = False
) -> nn.Module:
    """The student's channels to the teacher's: trained along with the student, left behind afterwards.

    Args:
        kind: linear is a 1x1 convolution; linear_bn_relu adds batch norm and ReLU; auto is linear where the
            channels differ and nothing where they do not; none needs equal channels.
        student_channels: C_S.
        teacher_channels: C_T.
        bias: whether the convolution has one.
    """
    require_choice(Projector, projector=kind)
    differ = student_channels != teacher_channels
    if kind == "none" and differ:
        raise ValueError(
            f"projector: none needs equal channels; student {student_channels}, teacher {teacher_channels}: "
            "use auto or linear"
        )
    if kind == "none" or (kind == "auto" and not differ):
        return nn.Identity()
    convolution = nn.Conv2d(student_channels, teacher_channels, 1, bias=bias)
    if kind == "linear_bn_relu":
        return nn.Sequential(convolution, nn.BatchNorm2d(teacher_channels), nn.ReLU(inplace=True))
    return convolution
