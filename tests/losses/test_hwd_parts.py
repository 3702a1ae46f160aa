"""The pieces of Holistic Weighted Distillation one by one: CD_c, N_c, Eq. 6 and Eq. 7."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.losses.hwd import channel_divergence, class_pixels, smooth, standardise
from hwdkit.types import IGNORE

quickly = settings(deadline=None, derandomize=True, max_examples=25)
seeds = st.integers(0, 2**16)
sizes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 5), st.integers(2, 5))


def logits(*size: int) -> tuple[Tensor, Tensor]:
    """Of a student and of a teacher, float64."""
    generator = torch.Generator().manual_seed(4)
    student, teacher = 3 * torch.randn(2, *size, generator=generator, dtype=torch.float64)
    return student, teacher


def naive_pixels(label: Tensor, classes: int, size: tuple[int, int]) -> list[list[int]]:
    """Nearest down-sampling and counting, one pixel at a time."""
    counts = [[0] * classes for _ in range(len(label))]
    for n in range(len(label)):
        for i in range(size[0]):
            for j in range(size[1]):
                c = int(label[n, i * label.shape[1] // size[0], j * label.shape[2] // size[1]])
                if c in range(classes):
                    counts[n][c] += 1
    return counts


@quickly
@given(seed=seeds, size=sizes, height=st.integers(1, 40), width=st.integers(1, 40))
def test_class_pixels_are_those_of_a_plain_loop(
    seed: int, size: tuple[int, int, int, int], height: int, width: int
) -> None:
    n, c, h, w = size
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(-1, c + 2, (n, height, width), generator=generator)
    label[label == c + 1] = IGNORE
    counts = class_pixels(label, c, size=(h, w))
    assert counts.tolist() == naive_pixels(label, c, (h, w))


@pytest.mark.parametrize("outside", [-1, 5, 6, 150, 255])
def test_pixels_outside_the_classes_are_never_counted(outside: int) -> None:
    label = torch.full((1, 16, 16), outside)
    label[:, :4] = 2
    assert class_pixels(label, 5, size=(4, 4)).tolist() == [[0, 0, 4, 0, 0]]


@pytest.mark.parametrize(
    ("divergence", "on"),
    [(name, on) for name in ("mse", "l1", "smooth_l1") for on in ("activation", "logits")]
    + [("kl", "activation")],
)
def test_channel_divergence_is_its_formula_summed_over_positions(divergence: Any, on: Any) -> None:
    student, teacher = logits(1, 2, 2, 3)
    found = channel_divergence(student, teacher, divergence=divergence, on=on, temperature=2.0)
    formulas = {
        "mse": lambda s, t: (s - t) ** 2,
        "l1": lambda s, t: abs(s - t),
        "smooth_l1": lambda s, t: (s - t) ** 2 / 2 if abs(s - t) < 1 else abs(s - t) - 0.5,
        "kl": lambda s, t: t * math.log(t / s),
    }
    for c in range(2):
        s, t = (
            (z[0, c].flatten() / 2).softmax(0) if on == "activation" else z[0, c].flatten()
            for z in (student, teacher)
        )
        expected = sum(formulas[divergence](a, b) for a, b in zip(s.tolist(), t.tolist(), strict=True))
        assert found[0, c].item() == pytest.approx(expected, rel=1e-10)


def test_kl_divergence_is_that_of_the_teacher_from_the_student() -> None:
    student, teacher = logits(2, 5, 4, 6)
    found = channel_divergence(student, teacher, divergence="kl", on="activation", temperature=1.0)
    log_p, log_q = (z.flatten(2).log_softmax(-1) for z in (student, teacher))
    expected = F.kl_div(log_p, log_q, log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(found, expected)
    assert (found >= 0).all()


@quickly
@given(
    seed=seeds, mu=st.floats(-3, 3), sigma=st.floats(0.1, 3), scale=st.sampled_from([1e-30, 1e-10, 1.0, 1e5])
)
def test_standardised_divergences_have_the_asked_for_mean_and_deviation(
    seed: int, mu: float, sigma: float, scale: float
) -> None:
    divergence = scale * torch.rand(3, 7, generator=torch.Generator().manual_seed(seed))
    result = standardise(divergence, mu=mu, sigma=sigma)
    torch.testing.assert_close(result.mean(1), torch.full((3,), mu), rtol=0, atol=1e-5)
    torch.testing.assert_close(result.std(1), torch.full((3,), sigma), rtol=1e-4, atol=0)


@pytest.mark.parametrize("level", [0.0, 1e-12, 1.0])
def test_channels_that_do_not_differ_are_all_at_the_mean(level: float) -> None:
    rounded = [level, level * (1 - 2**-24), level, level]  # the next float32 below 1: rounding, no difference
    divergence = torch.tensor([[level] * 4, rounded, [1.0, 2.0, 3.0, 4.0]])
    result = standardise(divergence, mu=0.5, sigma=1)
    assert (result[:2] == 0.5).all()
    assert (result[2] != 0.5).all()


def test_smoothing_with_beta_near_one_is_a_plain_softmax() -> None:
    weight = torch.linspace(-2, 2, 9, dtype=torch.float64)[None]
    expected = 9 * weight.softmax(1)
    torch.testing.assert_close(
        smooth(weight, smoothing="effective_number", beta=1 - 1e-7), expected, rtol=1e-5, atol=0
    )
    torch.testing.assert_close(smooth(weight, smoothing="softmax", softmax_temperature=1.0), expected)
