"""The fused cross-entropy is the plain one: same value, same gradient, whatever the strip."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.kernels.bilinear import matrix, neighbours, span
from hwdkit.kernels.upsampled_ce import upsampled_ce_sum
from hwdkit.types import IGNORE

ONE_ROW, FEW_ROWS, EVERYTHING = 1, 20_000, 2**40


def plain(logits: Tensor, label: Tensor, *, align_corners: bool) -> Tensor:
    up = F.interpolate(logits, label.shape[-2:], mode="bilinear", align_corners=align_corners)
    return F.cross_entropy(up, label, ignore_index=IGNORE, reduction="sum")


def batch(shape: tuple[int, int, int, int], size: tuple[int, int], *, seed: int = 0) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(*shape, generator=made, dtype=torch.float64)
    label = torch.randint(shape[1], (shape[0], *size), generator=made)
    label[torch.rand(label.shape, generator=made) < 0.2] = IGNORE
    return logits, label


def with_gradient(value: Tensor, leaf: Tensor) -> tuple[Tensor, Tensor]:
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.tuples(*[st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)]),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.booleans(),
    st.sampled_from([ONE_ROW, FEW_ROWS, EVERYTHING]),
)
def test_value_and_gradient_are_those_of_interpolate_and_cross_entropy(
    shape: tuple[int, int, int, int], size: tuple[int, int], align_corners: bool, budget: int
) -> None:
    logits, label = batch(shape, size)
    logits.requires_grad_()
    ours = upsampled_ce_sum(logits, label, align_corners=align_corners, ignore=IGNORE, budget=budget)
    expected = with_gradient(plain(logits, label, align_corners=align_corners), logits)
    torch.testing.assert_close(with_gradient(ours, logits), expected, rtol=1e-12, atol=1e-12)


def test_float32_is_within_a_millionth_of_float64() -> None:
    logits, label = batch((2, 19, 17, 33), (136, 264))
    exact = logits.clone().requires_grad_()
    single = logits.float().requires_grad_()
    value, gradient = with_gradient(plain(exact, label, align_corners=True), exact)
    ours = upsampled_ce_sum(single, label, align_corners=True, ignore=IGNORE)
    value_32, gradient_32 = with_gradient(ours, single)
    assert abs(float(value_32) / float(value) - 1) < 1e-6
    assert float((gradient_32 - gradient).abs().max() / gradient.abs().max()) < 1e-6


@pytest.mark.parametrize("align_corners", [True, False])
def test_numeric_differences_agree_with_the_gradient(align_corners: bool) -> None:
    logits, label = batch((2, 3, 3, 2), (7, 5))

    def loss(x: Tensor) -> Tensor:
        return upsampled_ce_sum(x, label, align_corners=align_corners, ignore=IGNORE, budget=FEW_ROWS)

    assert torch.autograd.gradcheck(loss, logits.requires_grad_())


def test_backward_twice_gives_the_same_gradient_twice() -> None:
    logits, label = batch((1, 3, 4, 4), (8, 8))
    logits.requires_grad_()
    loss = 2 * upsampled_ce_sum(logits, label, align_corners=True, ignore=IGNORE)
    first = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(loss, logits)[0], first)


def test_two_uses_of_one_value_add_up() -> None:
    logits, label = batch((1, 3, 4, 4), (8, 8))
    logits.requires_grad_()
    loss = upsampled_ce_sum(logits, label, align_corners=True, ignore=IGNORE)
    once = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    assert torch.allclose(torch.autograd.grad(loss + 0.5 * loss, logits)[0], 1.5 * once)


def test_half_precision_logits_are_summed_in_float32_and_get_a_gradient_of_their_own_type() -> None:
    logits, label = batch((2, 5, 8, 8), (64, 64))
    half = logits.bfloat16().requires_grad_()
    value = upsampled_ce_sum(half, label, align_corners=True, ignore=IGNORE)
    assert value.dtype == torch.float32
    exact = half.detach().double().requires_grad_()
    _, expected = with_gradient(plain(exact, label, align_corners=True), exact)
    gradient = torch.autograd.grad(value, half)[0]
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-2, atol=1e-2)


def test_without_a_gradient_nothing_is_kept() -> None:
    logits, label = batch((1, 3, 4, 4), (8, 8))
    value = upsampled_ce_sum(logits, label, align_corners=True, ignore=IGNORE)
    assert not value.requires_grad
    with torch.no_grad():
        again = upsampled_ce_sum(logits.requires_grad_(), label, align_corners=True, ignore=IGNORE)
    assert not again.requires_grad
    assert torch.equal(again, value)


def test_ignored_everywhere_is_nought_with_a_gradient_of_noughts() -> None:
    logits, label = batch((2, 3, 4, 4), (8, 8))
    logits.requires_grad_()
    value = upsampled_ce_sum(logits, torch.full_like(label, IGNORE), align_corners=True, ignore=IGNORE)
    assert value.item() == 0
    assert not torch.autograd.grad(value, logits)[0].any()


def test_scores_of_any_size_stay_finite() -> None:
    logits, label = batch((1, 4, 5, 5), (20, 20))
    logits = (1e4 * logits).float().requires_grad_()
    value = upsampled_ce_sum(logits, label, align_corners=False, ignore=IGNORE)
    assert value.isfinite()
    assert torch.autograd.grad(value, logits)[0].isfinite().all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 70), st.integers(1, 300), st.booleans(), st.data())
def test_span_holds_every_source_position_that_is_read(
    source: int, target: int, align_corners: bool, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, target - 1))
    stop = data.draw(st.integers(start + 1, target))
    first, last = span(start, stop, source, target, align_corners=align_corners)
    read = matrix(source, target, align_corners=align_corners, like=torch.empty(0))[start:stop].any(0)
    places = read.nonzero()
    assert first <= int(places.min())
    assert int(places.max()) < last <= source
    assert last - first <= int(places.max() - places.min()) + 4


def test_taps_are_those_of_interpolate() -> None:
    line = torch.arange(7, dtype=torch.float64).square()
    for align_corners in (True, False):
        low, high, fraction = neighbours(7, 20, align_corners=align_corners)
        ours = line[low] * (1 - fraction) + line[high] * fraction
        expected = F.interpolate(line[None, None], 20, mode="linear", align_corners=align_corners)[0, 0]
        torch.testing.assert_close(ours, expected)
