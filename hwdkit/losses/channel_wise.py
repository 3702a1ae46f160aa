"""Channel-wise distillation (Shu et al., ICCV 2021), and the spatial softmax that it shares with HWD.

Read `channel_wise`: all variants of the paper's Table 3 and of the authors' code are one mean over rows.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hwdkit.kernels.channel_kl import weighted_channel_kl
from hwdkit.losses import features
from hwdkit.losses.features import LOGITS, FeatureLoss, Projector
from hwdkit.losses.options import require_choice, require_positive
from hwdkit.losses.precision import at_least_float32
from hwdkit.types import SegOutput

Normalise = Literal["channel", "spatial", "channel_mean", "none"]
Divergence = Literal["kl", "bhattacharyya", "l2"]

_DISTRIBUTIONS = ("channel", "spatial")
_ROW_PER_CHANNEL = ("channel", "channel_mean")


def log_activation(logits: Tensor, *, temperature: float) -> Tensor:
    """Log of the activation map: a softmax over the positions of each channel (HWD Eq. 2, CWD Eq. 2).

    Args:
        logits: (N, C, h, w).
        temperature: tau > 0; larger is flatter.

    Returns:
        (N, C, h*w), at least float32. In log space, since softmax().log() is -inf from a logit range of
        about 400 on.
    """
    return (at_least_float32(logits).flatten(2) / temperature).log_softmax(-1)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(q || p) of every row in nats; p is the student: (N, R, K) -> (N, R). CWD Eq. 3 before the mean."""
    return (log_q.exp() * (log_q - log_p)).sum(-1)


def bhattacharyya(log_p: Tensor, log_q: Tensor) -> Tensor:
    """-ln sum_i sqrt(p_i q_i) of every row: (N, R, K) -> (N, R). In log space: sqrt has no gradient at 0."""
    return -((log_p + log_q) / 2).logsumexp(-1)


def squared_distance(p: Tensor, q: Tensor) -> Tensor:
    """sum_i (p_i - q_i)^2 of every row: (N, R, K) -> (N, R)."""
    return (p - q).square().sum(-1)


def channel_kl(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """KL between the spatial distributions of each channel.

    CWD (Shu et al., ICCV 2021) Eq. 3 before the mean; HWD (Sun et al., ICME 2023) Eqs. 2-3.

    Args:
        student: (N, C, h, w) logits. Gradients flow here only.
        teacher: (N, C, h, w) logits at the same resolution.
        temperature: tau > 0.

    Returns:
        (N, C), in nats, already multiplied by tau**2.
    """
    log_p = log_activation(student, temperature=temperature)
    log_q = log_activation(teacher, temperature=temperature).detach()
    return temperature**2 * kl(log_p, log_q)


def log_rows(maps: Tensor, *, normalise: Normalise, temperature: float) -> Tensor:
    """The log-distributions that kl and bhattacharyya compare, one a row.

    Args:
        maps: (N, C, h, w).
        normalise: channel, a softmax over the positions of each channel (Eq. 2); or spatial, a softmax over
            the channels of each position.
        temperature: tau > 0.

    Returns:
        (N, C, h*w) for channel, (N, h*w, C) for spatial.
    """
    if normalise == "channel":
        return log_activation(maps, temperature=temperature)
    return (at_least_float32(maps).flatten(2) / temperature).log_softmax(1).transpose(1, 2)


def rows(maps: Tensor, *, normalise: Normalise, temperature: float) -> Tensor:
    """The vectors that l2 compares: distributions, the mean of each channel, or the map itself.

    Args:
        maps: (N, C, h, w).
        normalise: channel and spatial as in `log_rows`; channel_mean; none.
        temperature: tau > 0 divides the map in every case.

    Returns:
        (N, C, h*w) for channel, (N, C, 1) for channel_mean, (N, h*w, C) for spatial and none.
    """
    if normalise in _DISTRIBUTIONS:
        return log_rows(maps, normalise=normalise, temperature=temperature).exp()
    flat = at_least_float32(maps).flatten(2) / temperature
    return flat.mean(-1, keepdim=True) if normalise == "channel_mean" else flat.transpose(1, 2)


def channel_wise(
    student: Tensor, teacher: Tensor, *, normalise: Normalise, divergence: Divergence, temperature: float
) -> Tensor:
    """The mean divergence of a row: CWD Eq. 4, with the denominators and the tau^2 of the authors' code.

    Args:
        student: (N, C, h, w). Gradients flow here only.
        teacher: (N, C, h, w).
        normalise: what a row is; the mean is 1/(N*C) for channel and channel_mean, else 1/(N*h*w).
        divergence: kl(teacher || student) times tau^2; bhattacharyya and l2 as they are.
        temperature: tau > 0.

    Returns:
        A scalar.
    """
    teacher = teacher.detach()
    make = rows if divergence == "l2" else log_rows
    p, q = (make(maps, normalise=normalise, temperature=temperature) for maps in (student, teacher))
    if divergence == "kl":
        return temperature**2 * kl(p, q).mean()
    return (squared_distance(p, q) if divergence == "l2" else bhattacharyya(p, q)).mean()


class CWD(FeatureLoss):
    """Channel-wise distillation on score maps or features: the mean of `channel_kl`, by default.

    The reduction (1/(N*C), times tau^2) is that of the authors' code; the paper's Eq. 4 prints a sum.
    divergence and normalise are the paper's Table 3 and the options of the authors' code:

    - l2 is their `mse`, which forces temperature 1: set it for their numbers.
    - l2 with normalise none compares whole batches; their code takes the first image only, and divides by N.
    - bhattacharyya is our definition, mean of -ln sum sqrt(p q): the paper gives no formula.
    - channel_mean and none are no distributions, and the temperature is no more than a factor 1/tau^2 there.

    Args:
        student_channels, teacher_channels, tap, teacher_tap: see `FeatureLoss`; the tap logits is the
            paper's CW_s, embedding its CW_f.
        temperature: tau > 0 of the softmax.
        normalise, divergence: see `channel_wise`.
        projector: see `hwdkit.losses.features.projector`; CIRKD has linear, HWD linear_bn_relu. The
            authors' code leaks 0.01 between batch norm and ReLU, which the ReLU undoes.
        official_divisor: divide by N*C_S where it should be N*C_T, as CIRKD's code does, which reads the
            number of channels before projecting. Without effect where a row is no channel.
    """

    paper = "Shu et al. Channel-wise Knowledge Distillation for Dense Prediction. ICCV 2021."

    def __init__(
        self,
        *,
        student_channels: int,
        teacher_channels: int,
        temperature: float = 4.0,
        tap: str = LOGITS,
        teacher_tap: str | None = None,
        normalise: Normalise = "channel",
        divergence: Divergence = "kl",
        projector: Projector = "auto",
        official_divisor: bool = False,
    ) -> None:
        super().__init__(tap=tap, teacher_tap=teacher_tap, channels=(student_channels, teacher_channels))
        require_positive(temperature=temperature)
        require_choice(Normalise, normalise=normalise)
        require_choice(Divergence, divergence=divergence)
        if divergence != "l2" and normalise not in _DISTRIBUTIONS:
            raise ValueError(
                f"divergence {divergence} compares distributions: it needs normalise channel or spatial, "
                f"not {normalise}"
            )
        self.temperature = temperature
        self.normalise: Normalise = normalise
        self.divergence: Divergence = divergence
        self.official_divisor = official_divisor
        self.projector = features.projector(projector, student_channels, teacher_channels)

    def forward(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
        with torch.autocast(student.logits.device.type, enabled=False):
            before, target = self.maps(student, teacher)
            projected = self.projector(before)
            if self.normalise == "channel" and self.divergence == "kl":
                value = weighted_channel_kl(projected, target, temperature=self.temperature)
            else:
                value = channel_wise(
                    projected,
                    target,
                    normalise=self.normalise,
                    divergence=self.divergence,
                    temperature=self.temperature,
                )
            if self.official_divisor and self.normalise in _ROW_PER_CHANNEL:
                value = value * (target.shape[1] / before.shape[1])
            return value
