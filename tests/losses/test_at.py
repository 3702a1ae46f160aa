"""Attention transfer: recorded values of CIRKD's and mmrazor's code, and what an attention map cannot see."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from golden_inputs import LABEL, arrays, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.losses import AT
from hwdkit.losses.at import attention_distance, attention_map
from hwdkit.types import SegOutput

GOLDEN = arrays("feature_losses")
quickly = settings(deadline=None, derandomize=True, max_examples=20)
seeds = st.integers(0, 2**16)
sizes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(2, 5))
powers = st.sampled_from([0.5, 1.0, 2.0, 3.0, 4.0])


def maps(seed: int, *size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student_map, teacher_map = torch.randn(2, *size, generator=generator, dtype=torch.float64)
    return student_map, teacher_map


def naive_attention(feature: Tensor, power: float) -> list[list[float]]:
    """One image and one position at a time."""
    rows = []
    for image in feature.tolist():
        positions = [
            [channel[i][j] for channel in image]
            for i in range(len(image[0]))
            for j in range(len(image[0][0]))
        ]
        strength = [sum(abs(value) ** power for value in vector) for vector in positions]
        norm = math.sqrt(sum(value**2 for value in strength))
        rows.append([value / norm for value in strength])
    return rows


def test_value_and_gradient_are_those_of_the_official_code() -> None:
    found, gradient = value_and_gradient(AT())
    assert found == pytest.approx(GOLDEN["at"].item(), rel=1e-8)
    torch.testing.assert_close(gradient, GOLDEN["gradient_at"], rtol=1e-7, atol=1e-12)


@quickly
@given(seed=seeds, size=sizes, power=powers)
def test_attention_is_that_of_a_plain_loop(seed: int, size: tuple[int, int, int, int], power: float) -> None:
    feature, _ = maps(seed, *size)
    expected = torch.tensor(naive_attention(feature, power), dtype=torch.float64)
    torch.testing.assert_close(attention_map(feature, power=power), expected)


@quickly
@given(seed=seeds, size=sizes, power=powers, scale=st.sampled_from([-1.0, 1e-8, 1e4, 1e12]))
def test_does_not_see_a_scale_of_an_image(
    seed: int, size: tuple[int, int, int, int], power: float, scale: float
) -> None:
    s, t = (x.float() for x in maps(seed, *size))
    factors = torch.cat([torch.tensor([scale]), torch.ones(size[0] - 1)])[:, None, None, None]
    torch.testing.assert_close(
        attention_distance(factors * s, t, power=power), attention_distance(s, t, power=power)
    )


def test_repeated_or_permuted_channels_do_not_count() -> None:
    s, t = maps(1, 2, 3, 4, 5)
    plain = attention_distance(s, t)
    torch.testing.assert_close(attention_distance(s.repeat(1, 2, 1, 1), t.flip(1)), plain)


def test_lies_between_0_for_equal_maps_and_two_over_the_positions() -> None:
    s, _ = maps(2, 1, 3, 4, 5)
    assert attention_distance(s, s).item() == 0
    here, there = torch.zeros(2, 1, 3, 4, 5)
    here[..., 0, 0] = 1
    there[..., 3, 4] = 1
    assert attention_distance(here, there).item() == pytest.approx(2 / 20)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 8.0])
@pytest.mark.parametrize("size", [(1, 1, 1, 1), (1, 4, 1, 1), (2, 1, 3, 3), (2, 4, 3, 3)])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e4])
def test_degenerate_maps_give_a_finite_value_and_gradient(
    power: float, size: tuple[int, int, int, int], scale: float
) -> None:
    s, t = (scale * x.float() for x in maps(3, *size))
    for other in (t, s.clone(), torch.zeros_like(s)):
        for mine in (s.clone(), s.relu(), torch.zeros_like(s)):
            mine.requires_grad_()
            loss = attention_distance(mine, other, power=power)
            (gradient,) = torch.autograd.grad(loss, mine)
            assert loss.isfinite()
            assert gradient.isfinite().all()


def test_an_image_without_features_attends_to_nothing() -> None:
    feature = torch.cat([torch.zeros(1, 3, 4, 5), torch.ones(1, 3, 4, 5)])
    rows = attention_map(feature)
    assert not rows[0].any()
    torch.testing.assert_close(rows[1].norm(), torch.tensor(1.0))


def test_no_gradient_reaches_the_teacher() -> None:
    s, t = (x.requires_grad_() for x in maps(4, 2, 3, 4, 5))
    attention_distance(s, t).backward()
    AT()(SegOutput(s, None, {"embedding": s}), SegOutput(t, None, {"embedding": t}), LABEL).backward()
    assert s.grad is not None
    assert t.grad is None


def test_every_option_changes_the_value() -> None:
    s, t = maps(5, 2, 3, 4, 5)
    mine, theirs = (SegOutput(x, None, {"embedding": x, "stage4": x.flip(1, 3)[:, :2]}) for x in (s, t))
    values = {
        float(loss(mine, theirs, LABEL)) for loss in (AT(), AT(power=1.0), AT(power=4.0), AT(tap="stage4"))
    }
    assert len(values) == 4
    assert AT(tap="stage3", teacher_tap="stage4").teacher_taps == ("stage4",)
    assert AT(tap="logits").taps == ()


@pytest.mark.parametrize("power", [0.0, -1.0, float("nan"), float("inf")])
def test_power_that_is_no_positive_number_is_refused(power: Any) -> None:
    with pytest.raises(ValueError, match="power must be positive"):
        AT(power=power)
