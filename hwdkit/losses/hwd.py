"""Holistic Weighted Distillation (Sun et al., ICME 2023): CWD whose channels are weighted per image.

Read `HWD.forward`: it is the paper's Algorithm 1, lines 5-7. The functions above it are Eqs. 5-7.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from hwdkit.kernels.channel_kl import weighted_channel_kl
from hwdkit.kernels.weighting import DISTANCES, Divergence, WeightNumbers
from hwdkit.losses.base import Loss
from hwdkit.losses.channel_wise import channel_kl, log_activation
from hwdkit.losses.labels import class_ids, small_label
from hwdkit.losses.options import require_choice, require_positive
from hwdkit.losses.precision import at_least_float32
from hwdkit.types import SegOutput

DivergenceOn = Literal["activation", "logits"]
AreaCorrection = Literal["none", "paper", "sqrt", "square"]
Smoothing = Literal["effective_number", "softmax"]

_AREA_POWERS = {"none": 0.0, "paper": 1.0, "sqrt": 0.5, "square": 2.0}


def channel_divergence(
    student: Tensor, teacher: Tensor, *, divergence: Divergence, on: DivergenceOn, temperature: float
) -> Tensor:
    """How far each channel of the student is from the teacher's: CD_c, Eq. 5.

    A sum over positions where the paper prints a mean: the constant 1/(HW) vanishes in the normalisation.

    Args:
        student: (N, C, h, w) logits.
        teacher: (N, C, h, w) logits.
        divergence: mse (the paper), l1, smooth_l1, or kl(teacher || student).
        on: activation maps (the paper) or raw logits (the released code's default); kl needs activation maps.
        temperature: tau of the activation maps.

    Returns:
        (N, C), non-negative.
    """
    if divergence == "kl":
        return channel_kl(student, teacher, temperature=temperature) / temperature**2
    if on == "activation":
        p_s = log_activation(student, temperature=temperature).exp()
        p_t = log_activation(teacher, temperature=temperature).exp()
    else:
        p_s, p_t = at_least_float32(student).flatten(2), at_least_float32(teacher).flatten(2)
    return DISTANCES[divergence](p_s - p_t).sum(-1)


def class_pixels(label: Tensor, classes: int, *, size: tuple[int, int]) -> Tensor:
    """N_c: how many positions of the logit map each class covers in each image.

    The label is down-sampled to the logits' size first, by nearest, as the authors' code does; the paper
    speaks of the image's pixels, which is the same up to a constant and rounding.

    Args:
        label: (N, H, W) int64; values outside [0, classes) are not counted.
        classes: C.
        size: (h, w) of the logits.

    Returns:
        (N, C) float32 counts.
    """
    # Pixels that do not count go to one extra bin, which is cut off: no boolean indexing, no host sync.
    bins = class_ids(small_label(label, size), classes)
    counts = torch.zeros(len(label), classes + 1, device=label.device)
    return counts.scatter_add_(1, bins, torch.ones_like(bins, dtype=counts.dtype))[:, :classes]


def standardise(divergence: Tensor, *, mu: float, sigma: float) -> Tensor:
    """Each image's channel divergences as N(mu, sigma^2): Eq. 6, with the unbiased std of the authors' code.

    Where the channels of an image do not differ (student equals teacher, one class), Eq. 6 is 0/0; all of
    them are mu then, which weighs every channel 1 and makes HWD plain CWD.

    Args:
        divergence: (N, C), non-negative.
        mu: mean of the result.
        sigma: standard deviation of the result.

    Returns:
        (N, C).
    """
    if divergence.shape[1] == 1:
        return torch.full_like(divergence, mu)
    # Divergences lie around 1e-10 and are scale-free here; their squares would underflow in float32.
    scaled = divergence / divergence.amax(1, keepdim=True).clamp(min=torch.finfo(divergence.dtype).tiny)
    std, mean = torch.std_mean(scaled, dim=1, keepdim=True)
    # No epsilon in the quotient: real weights would be biased by it.
    z = torch.where(std > torch.finfo(scaled.dtype).eps, (scaled - mean) / std, 0.0)
    return mu + sigma * z


def smooth(
    weight: Tensor, *, smoothing: Smoothing, beta: float = 0.1, softmax_temperature: float = 3.0
) -> Tensor:
    """Turn normalised divergences into channel weights that sum to C: Eq. 7.

    Args:
        weight: (N, C) from `standardise`.
        smoothing: effective_number is Eq. 7; softmax is its ablation, a softmax at temperature tau'.
        beta: in (0, 1); towards 0 all channels above 0 weigh the same, those below nothing.
        softmax_temperature: tau' > 0.

    Returns:
        (N, C), non-negative, each row sums to C.
    """
    if smoothing == "effective_number":
        score = -torch.expm1(weight * math.log(beta)) / (1 - beta)
        # beta**w overflows for very negative w: such a channel weighs nothing, and a row of them is not NaN.
        score = score.clamp(min=torch.finfo(score.dtype).min / 4)
    else:
        score = weight / softmax_temperature
    return weight.shape[1] * score.softmax(1)


class HWD(Loss):
    """Holistic Weighted Distillation, Eq. 4: tau^2/C * sum_c w_c * KL(p_c^T || p_c^S), mean over images.

    `area_correction="paper"` divides CD_c by N_c + 1 as printed; `"none"` is what the released code does
    by default and, by its history, what produced the published numbers.

    Args:
        temperature: tau of the activation maps (Eq. 2).
        mu, sigma: mean and standard deviation of the normalised divergences (Eq. 6).
        beta: smoothing (Eq. 7), in (0, 1).
        divergence, divergence_on: see `channel_divergence`.
        area_correction: divide CD_c by 1 (none), N_c+1 (paper), its root (sqrt) or square (square).
        smoothing, softmax_temperature: see `smooth`.
        normalise: False skips Eq. 6 altogether, mu and sigma included.

    Attributes:
        fused: whether `forward` takes the fused kernel. Its plain lines give the same up to rounding, are
            slower, keep five maps of the logits' size, and can be differentiated twice.
    """

    fused = True
    paper = (
        "Sun, Ye, Chen, Feng, Wang, Chen. Holistic Weighted Distillation for Semantic Segmentation. ICME "
        "2023. doi:10.1109/ICME55011.2023.00075"
    )

    def __init__(
        self,
        *,
        temperature: float = 4.0,
        mu: float = 0.0,
        sigma: float = 1.0,
        beta: float = 0.1,
        divergence: Divergence = "mse",
        divergence_on: DivergenceOn = "activation",
        area_correction: AreaCorrection = "none",
        smoothing: Smoothing = "effective_number",
        softmax_temperature: float = 3.0,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        if not 0 < beta < 1:
            raise ValueError(f"beta must be more than 0 and less than 1, not {beta}")
        if not math.isfinite(mu):
            raise ValueError(f"mu must be a finite number, not {mu}")
        require_positive(temperature=temperature, sigma=sigma, softmax_temperature=softmax_temperature)
        require_choice(Divergence, divergence=divergence)
        require_choice(DivergenceOn, divergence_on=divergence_on)
        require_choice(AreaCorrection, area_correction=area_correction)
        require_choice(Smoothing, smoothing=smoothing)
        if divergence == "kl" and divergence_on == "logits":
            raise ValueError("divergence kl compares distributions: it needs divergence_on: activation")
        self.temperature, self.mu, self.sigma, self.beta = temperature, mu, sigma, beta
        self.divergence: Divergence = divergence
        self.divergence_on: DivergenceOn = divergence_on
        self.area_correction: AreaCorrection = area_correction
        self.smoothing: Smoothing = smoothing
        self.softmax_temperature = softmax_temperature
        self.normalise = normalise

    def forward(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
        """Lines 5 to 7 of the paper's Algorithm 1; the kernel fuses them into one pass over the maps."""
        s, t = student.logits, teacher.logits
        with torch.autocast(s.device.type, enabled=False):
            area = self._area(label, s)
            if self.fused:
                return weighted_channel_kl(
                    s,
                    t,
                    temperature=self.temperature,
                    divergence=self.divergence,
                    on_logits=self.divergence_on == "logits",
                    area=area,
                    weigh=self._weights,
                    numbers=self._numbers(),
                )
            divergence = self._divergence(s, t, area)  # line 5: CD_c, Eq. 5
            weights = self._weights(divergence)  # line 6: w_c, Eqs. 6 and 7
            return (weights * channel_kl(s, t, temperature=self.temperature)).mean()  # line 7: Eq. 4

    def channel_weights(self, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
        """w_c of every image: (N, C), non-negative, rows sum to C."""
        return self._weights(self._divergence(student, teacher, self._area(label, student)))

    def _area(self, label: Tensor, logits: Tensor) -> Tensor | None:
        """(N, C), what CD_c is divided by: N_c + 1 to the power of the correction; None = nothing."""
        if self.area_correction == "none":
            return None
        pixels = class_pixels(label, logits.shape[1], size=(logits.shape[2], logits.shape[3]))
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        area: Tensor = (pixels + 1).to(dtype) ** _AREA_POWERS[self.area_correction]
        return area

    @torch.no_grad()
    def _divergence(self, student: Tensor, teacher: Tensor, area: Tensor | None) -> Tensor:
        divergence = channel_divergence(
            student, teacher, divergence=self.divergence, on=self.divergence_on, temperature=self.temperature
        )
        return divergence if area is None else divergence / area

    def _weights(self, divergence: Tensor) -> Tensor:
        if self.normalise:
            divergence = standardise(divergence, mu=self.mu, sigma=self.sigma)
        return smooth(
            divergence,
            smoothing=self.smoothing,
            beta=self.beta,
            softmax_temperature=self.softmax_temperature,
        )

    def _numbers(self) -> WeightNumbers:
        """`_weights` for a kernel that calls no function."""
        return WeightNumbers(
            normalise=self.normalise,
            mu=self.mu,
            sigma=self.sigma,
            smoothing=self.smoothing,
            beta=self.beta,
            temperature=self.softmax_temperature,
        )
