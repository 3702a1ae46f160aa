"""HWD and channel-wise KL on a GPU in three Triton kernels, where torch launches some fifty.

The same numbers as `channel_kl.py`, which stays the specification; `choice.py` says when this is used. Floats
are not added up by atomics, so that two runs agree to the bit.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from hwdkit.kernels.weighting import Divergence, WeightNumbers

BLOCK = 4096
"""Positions of a row that a program holds at a time: all of a 64 x 64 map."""

DISTANCES = {"mse": 0, "l1": 1, "smooth_l1": 2, "kl": 3}
SMOOTHINGS = {"effective_number": 0, "softmax": 1}


def value_and_gradient(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float,
    divergence: Divergence,
    on_logits: bool,
    area: Tensor | None,
    numbers: WeightNumbers | None,
    needs_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """`weighted_channel_kl` of maps that `choice.triton_takes`, and its gradient or None; both float32."""
    count, classes, height, width = student.shape
    size = height * width
    s, t = student.contiguous(), teacher.contiguous()
    kl, far, lse_s, lse_t = (s.new_empty((count, classes), dtype=torch.float32) for _ in range(4))
    block = min(BLOCK, triton.next_power_of_2(size))
    _rows[(count * classes,)](
        s, t, kl, far, lse_s, lse_t, size, 1 / temperature,
        distance=DISTANCES[divergence if numbers else "kl"], on_logits=on_logits, block=block, num_warps=8,
    )  # fmt: skip
    share = 1 / (count * classes)
    if numbers is None:
        weight, loss = None, kl
    else:
        weight, loss = torch.empty_like(kl), kl.new_empty(count)
        _weights[(count,)](
            far, kl, far if area is None else area, weight, loss, classes, numbers.mu, numbers.sigma,
            math.log(numbers.beta), 1 - numbers.beta, numbers.temperature,
            corrected=area is not None, normalise=numbers.normalise, smoothing=SMOOTHINGS[numbers.smoothing],
            block=max(2, triton.next_power_of_2(classes)),
        )  # fmt: skip
    value = loss.sum() * (temperature**2 * share)
    if not needs_gradient:
        return value, None
    gradient = torch.empty(student.shape, dtype=torch.float32, device=student.device)
    _gradient[(count * classes, triton.cdiv(size, block))](
        s, t, lse_s, lse_t, kl if weight is None else weight, gradient, size, 1 / temperature,
        temperature * share, weighted=weight is not None, block=block, num_warps=8,
    )  # fmt: skip
    return value, gradient


@triton.jit
def _rows(
    student,
    teacher,
    kl_out,
    divergence_out,
    lse_s_out,
    lse_t_out,
    size,
    inverse,
    distance: tl.constexpr,
    on_logits: tl.constexpr,
    block: tl.constexpr,
):
    """One channel of one image: log-sum-exps in a first pass, KL(q || p) and CD_c (Eq. 5) in a second."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, block)
    peak_s, peak_t = float("-inf"), float("-inf")
    mass_s, mass_t = 0.0, 0.0
    for start in range(0, size, block):
        inside = start + lane < size
        at = row * size + start + lane
        s = tl.load(student + at, mask=inside, other=float("-inf")).to(tl.float32) * inverse
        t = tl.load(teacher + at, mask=inside, other=float("-inf")).to(tl.float32) * inverse
        new_s, new_t = tl.maximum(peak_s, tl.max(s, 0)), tl.maximum(peak_t, tl.max(t, 0))
        mass_s = mass_s * tl.exp(peak_s - new_s) + tl.sum(tl.exp(s - new_s), 0)
        mass_t = mass_t * tl.exp(peak_t - new_t) + tl.sum(tl.exp(t - new_t), 0)
        peak_s, peak_t = new_s, new_t
    lse_s, lse_t = peak_s + tl.log(mass_s), peak_t + tl.log(mass_t)
    kl, divergence = 0.0, 0.0
    for start in range(0, size, block):
        inside = start + lane < size
        at = row * size + start + lane
        raw_s = tl.load(student + at, mask=inside, other=0.0).to(tl.float32)
        raw_t = tl.load(teacher + at, mask=inside, other=0.0).to(tl.float32)
        log_p, log_q = raw_s * inverse - lse_s, raw_t * inverse - lse_t
        p, q = tl.exp(log_p), tl.exp(log_q)
        kl += tl.sum(tl.where(inside, q * (log_q - log_p), 0.0), 0)
        if distance != 3:
            apart = raw_s - raw_t if on_logits else p - q
            if distance == 0:
                far = apart * apart
            elif distance == 1:
                far = tl.abs(apart)
            else:
                far = tl.where(tl.abs(apart) < 1, 0.5 * apart * apart, tl.abs(apart) - 0.5)
            divergence += tl.sum(tl.where(inside, far, 0.0), 0)
    tl.store(kl_out + row, kl)
    tl.store(divergence_out + row, kl if distance == 3 else divergence)
    tl.store(lse_s_out + row, lse_s)
    tl.store(lse_t_out + row, lse_t)


@triton.jit
def _weights(
    divergence,
    kl,
    area,
    weight_out,
    loss_out,
    classes,
    mu,
    sigma,
    log_beta,
    one_less_beta,
    temperature,
    corrected: tl.constexpr,
    normalise: tl.constexpr,
    smoothing: tl.constexpr,
    block: tl.constexpr,
):
    """One image: its divergences over its areas, Eqs. 6 and 7, and its share of Eq. 4. See `HWD` for each."""
    image = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, block)
    real = lane < classes
    w = tl.load(divergence + image * classes + lane, mask=real, other=0.0)
    if corrected:
        w = w / tl.load(area + image * classes + lane, mask=real, other=1.0)
    if normalise:
        largest = tl.maximum(tl.max(tl.where(real, w, 0.0), 0), 1.1754943508222875e-38)
        scaled = w / largest
        mean = tl.sum(tl.where(real, scaled, 0.0), 0) / classes
        off = tl.where(real, scaled - mean, 0.0)
        std = tl.sqrt(tl.sum(off * off, 0) / tl.maximum(classes - 1, 1))
        differ = (std > 1.1920928955078125e-07) & (classes > 1)
        w = mu + sigma * tl.where(differ, off / tl.where(differ, std, 1.0), 0.0)
    if smoothing == 0:
        score = (1.0 - tl.exp(w * log_beta)) / one_less_beta
        score = tl.maximum(score, -8.507059173023462e37)
    else:
        score = w / temperature
    score = tl.where(real, score, float("-inf"))
    mass = tl.exp(score - tl.max(score, 0))
    weight = classes * mass / tl.sum(mass, 0)
    tl.store(weight_out + image * classes + lane, weight, mask=real)
    row_kl = tl.load(kl + image * classes + lane, mask=real, other=0.0)
    tl.store(loss_out + image, tl.sum(tl.where(real, weight * row_kl, 0.0), 0))


@triton.jit
def _gradient(
    student,
    teacher,
    lse_s,
    lse_t,
    weight,
    gradient,
    size,
    inverse,
    factor,
    weighted: tl.constexpr,
    block: tl.constexpr,
):
    """tau w_c (p - q) / (N C), a part of one channel."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * block + tl.arange(0, block)
    inside = lane < size
    at = row * size + lane
    s = tl.load(student + at, mask=inside, other=0.0).to(tl.float32)
    t = tl.load(teacher + at, mask=inside, other=0.0).to(tl.float32)
    p, q = tl.exp(s * inverse - tl.load(lse_s + row)), tl.exp(t * inverse - tl.load(lse_t + row))
    slope = factor * tl.load(weight + row) if weighted else factor
    tl.store(gradient + at, slope * (p - q), mask=inside)
