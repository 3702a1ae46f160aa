"""PKD: 1 - Pearson's correlation of each channel over the pixels of the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from golden_inputs import LABEL, student, teacher
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hwdkit.losses import PKD
from hwdkit.losses.correlation import PIXELS, standardise_channels
from hwdkit.losses.pkd import standardised_distance
from hwdkit.types import SegOutput

quickly = settings(deadline=None, derandomize=True, max_examples=20)
seeds = st.integers(0, 2**16)
sizes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(3, 5))


def maps(seed: int, *size: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student_map, teacher_map = torch.randn(2, *size, generator=generator, dtype=torch.float64).to(dtype)
    return student_map, teacher_map


def output(embedding: Tensor) -> SegOutput:
    return SegOutput(torch.zeros(1), None, {"embedding": embedding})


def value(student_map: Tensor, teacher_map: Tensor, **options: Any) -> Tensor:
    loss = PKD(student_channels=student_map.shape[1], teacher_channels=teacher_map.shape[1], **options)
    result: Tensor = loss.to(student_map.dtype)(output(student_map), output(teacher_map), LABEL)
    return result


@quickly
@given(seed=seeds, size=sizes)
def test_is_one_minus_the_correlation_of_each_channel(seed: int, size: tuple[int, int, int, int]) -> None:
    s, t = maps(seed, *size)
    columns = [np.asarray(x.movedim(1, 0).flatten(1)) for x in (s, t)]
    expected = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(*columns, strict=True)])
    assert standardised_distance(s, t).item() == pytest.approx(expected, abs=1e-4)


def test_is_the_formula_of_mmrazor_up_to_its_unbiased_deviation() -> None:
    s, t = maps(1, 2, 3, 4, 5)
    pixels = 40
    z_s, z_t = ((x - x.mean(PIXELS, keepdim=True)) / (x.std(PIXELS, keepdim=True) + 1e-6) for x in (s, t))
    theirs = (z_s - z_t).square().mean() / 2
    torch.testing.assert_close(theirs, (pixels - 1) / pixels * standardised_distance(s, t), rtol=1e-5, atol=0)


def test_one_millionth_is_added_to_the_deviation() -> None:
    x = torch.tensor([-1e-6, 1e-6], dtype=torch.float64).reshape(2, 1, 1, 1)
    torch.testing.assert_close(standardise_channels(x).flatten(), torch.tensor([-0.5, 0.5]).double())


@quickly
@given(seed=seeds, size=sizes)
def test_does_not_see_a_scale_and_an_offset_of_a_channel(seed: int, size: tuple[int, int, int, int]) -> None:
    s, t = maps(seed, *size)
    scale = torch.linspace(0.5, 3, size[1], dtype=s.dtype)[:, None, None]
    moved = s * scale + 10 * scale.square()
    torch.testing.assert_close(value(moved, t), value(s, t), rtol=0, atol=1e-4)


@quickly
@given(seed=seeds, size=sizes)
def test_equal_maps_are_0_and_opposite_ones_2(seed: int, size: tuple[int, int, int, int]) -> None:
    s, _ = maps(seed, *size)
    assert value(s, s).item() == 0
    assert value(-s, s).item() == pytest.approx(2, abs=1e-4)


def test_standardised_channels_have_mean_0_and_deviation_1_over_the_batch() -> None:
    x = 5 + 3 * maps(2, 2, 3, 4, 5)[0]
    z = standardise_channels(x)
    torch.testing.assert_close(z.mean(PIXELS), torch.zeros(3).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(z.std(PIXELS, correction=0), torch.ones(3).double(), rtol=1e-5, atol=0)
    assert z.mean((2, 3)).abs().max() > 0.01


@pytest.mark.parametrize("size", [(1, 1, 1, 1), (1, 4, 1, 1), (2, 1, 3, 3), (2, 4, 3, 3)])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e4])
def test_degenerate_maps_give_a_finite_value_and_gradient(
    size: tuple[int, int, int, int], scale: float
) -> None:
    s, t = (scale * x for x in maps(3, *size, dtype=torch.float32))
    for other in (t, s.clone(), torch.zeros_like(s)):
        for mine in (s.clone(), torch.full_like(s, scale)):
            mine.requires_grad_()
            loss = value(mine, other)
            (gradient,) = torch.autograd.grad(loss, mine)
            assert loss.isfinite()
            assert gradient.isfinite().all()


def test_the_projector_is_trained_and_the_teacher_is_not() -> None:
    loss = PKD(student_channels=6, teacher_channels=8).double()
    mine, theirs = student(), teacher()
    theirs.taps["embedding"].requires_grad_()
    loss(mine, theirs, LABEL).backward()
    standardised_distance(mine.taps["embedding"][:, :6], theirs.taps["embedding"][:, :6]).backward()
    assert theirs.taps["embedding"].grad is None
    assert mine.taps["embedding"].grad is not None
    assert isinstance(loss.projector, nn.Conv2d)
    assert loss.projector.bias is None
    assert loss.projector.weight.grad is not None
    assert loss.projector.weight.grad.any()


def test_the_projected_map_is_what_is_compared() -> None:
    loss = PKD(student_channels=6, teacher_channels=8).double()
    mine, theirs = student(), teacher()
    expected = standardised_distance(loss.projector(mine.taps["embedding"]), theirs.taps["embedding"])
    assert torch.equal(loss(mine, theirs, LABEL), expected)


def test_equal_channels_need_no_projector_and_different_ones_do() -> None:
    assert isinstance(PKD(student_channels=8, teacher_channels=8).projector, nn.Identity)
    assert isinstance(PKD(student_channels=8, teacher_channels=8, projector="linear").projector, nn.Conv2d)
    with pytest.raises(ValueError, match="equal channels"):
        PKD(student_channels=6, teacher_channels=8, projector="none")
    with pytest.raises(ValueError, match="projector must be"):
        PKD(student_channels=6, teacher_channels=8, projector="mlp")  # type: ignore[arg-type]


def test_the_tap_says_which_map_is_compared() -> None:
    s, t = maps(4, 2, 3, 4, 5)
    loss = PKD(student_channels=3, teacher_channels=3, tap="logits")
    assert loss.taps == ()
    found = loss(SegOutput(s, None, {}), SegOutput(t, None, {}), LABEL)
    torch.testing.assert_close(found, standardised_distance(s, t))
    assert PKD(student_channels=3, teacher_channels=3, tap="stage3", teacher_tap="stage4").teacher_taps == (
        "stage4",
    )
