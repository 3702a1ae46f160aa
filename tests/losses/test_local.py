"""LOCAL: this package's own definition against a plain loop and recorded numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from golden_inputs import LABEL, arrays, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.losses import Local
from hwdkit.losses.local import local_dissimilarity, local_distance
from hwdkit.types import SegOutput

GOLDEN = arrays("feature_losses")
quickly = settings(deadline=None, derandomize=True, max_examples=20)
seeds = st.integers(0, 2**16)
sizes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))


def maps(seed: int, *size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student_map, teacher_map = torch.randn(2, *size, generator=generator, dtype=torch.float64)
    return student_map, teacher_map


def naive_dissimilarity(x: Tensor) -> Tensor:
    """One position and one neighbour at a time."""
    n, _, h, w = x.shape
    found = torch.zeros(n, h, w, dtype=x.dtype)
    for image in range(n):
        for i in range(h):
            for j in range(w):
                for dy in (-1, 0, 1):
                    for dx in (-1, 0, 1):
                        y, z = min(max(i + dy, 0), h - 1), min(max(j + dx, 0), w - 1)
                        squared = float((x[image, :, y, z] - x[image, :, i, j]).square().sum())
                        found[image, i, j] += math.sqrt(squared + 1e-12) if (dy, dx) != (0, 0) else 0
    return found


def test_value_and_gradient_are_the_recorded_ones() -> None:
    found, gradient = value_and_gradient(Local(), "logits")
    assert found == pytest.approx(GOLDEN["local"].item(), rel=1e-8)
    torch.testing.assert_close(gradient, GOLDEN["gradient_local"], rtol=1e-7, atol=1e-12)


@quickly
@given(seed=seeds, size=sizes)
def test_dissimilarity_is_that_of_a_plain_loop(seed: int, size: tuple[int, int, int, int]) -> None:
    x, _ = maps(seed, *size)
    torch.testing.assert_close(local_dissimilarity(x), naive_dissimilarity(x), rtol=1e-10, atol=0)


@quickly
@given(seed=seeds, size=sizes)
def test_does_not_see_an_offset_of_a_channel_nor_the_order_of_channels(
    seed: int, size: tuple[int, int, int, int]
) -> None:
    s, t = maps(seed, *size)
    moved = (s + torch.arange(size[1])[:, None, None]).flip(1)
    torch.testing.assert_close(local_distance(moved, t), local_distance(s, t), rtol=1e-7, atol=1e-12)


@quickly
@given(seed=seeds, size=sizes)
def test_mirrored_maps_are_as_far_apart(seed: int, size: tuple[int, int, int, int]) -> None:
    s, t = maps(seed, *size)
    for dims in ((2,), (3,), (2, 3)):
        torch.testing.assert_close(local_distance(s.flip(dims), t.flip(dims)), local_distance(s, t))


def test_distance_is_the_mean_over_images_and_positions() -> None:
    s, t = maps(1, 2, 3, 4, 5)
    difference = naive_dissimilarity(s) - naive_dissimilarity(t)
    torch.testing.assert_close(local_distance(s, t), difference.square().sum() / 40)
    torch.testing.assert_close(local_distance(s, t, distance="l1"), difference.abs().sum() / 40)


def test_the_numbers_of_channels_may_differ() -> None:
    s, t = maps(2, 2, 3, 4, 5)
    padded = torch.cat([t, torch.zeros(2, 4, 4, 5)], 1)
    torch.testing.assert_close(local_distance(s, padded), local_distance(s, t))


@pytest.mark.parametrize("distance", ["mse", "l1"])
@pytest.mark.parametrize("size", [(1, 1, 1, 1), (1, 4, 1, 1), (2, 1, 3, 3), (2, 4, 3, 3)])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e4])
def test_degenerate_maps_give_a_finite_value_and_gradient(
    distance: Any, size: tuple[int, int, int, int], scale: float
) -> None:
    s, t = (scale * x.float() for x in maps(3, *size))
    for other in (t, s.clone(), torch.zeros_like(s)):
        for mine in (s.clone(), torch.full_like(s, scale)):
            mine.requires_grad_()
            loss = local_distance(mine, other, distance=distance)
            (gradient,) = torch.autograd.grad(loss, mine)
            assert loss.isfinite()
            assert gradient.isfinite().all()
    assert local_distance(s, s, distance=distance).item() == 0


def test_no_gradient_reaches_the_teacher() -> None:
    s, t = (x.requires_grad_() for x in maps(4, 2, 3, 4, 5))
    local_distance(s, t).backward()
    Local()(SegOutput(s, None, {}), SegOutput(t, None, {}), LABEL).backward()
    assert s.grad is not None
    assert t.grad is None


def test_every_option_changes_the_value() -> None:
    s, t = maps(5, 2, 3, 4, 5)
    mine, theirs = (SegOutput(x, None, {"stage4": x.square()}) for x in (s, t))
    values = {
        float(loss(mine, theirs, LABEL)) for loss in (Local(), Local(distance="l1"), Local(tap="stage4"))
    }
    assert len(values) == 3
    assert Local(tap="stage3", teacher_tap="stage4").teacher_taps == ("stage4",)
    assert Local().taps == ()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"distance": "l2"}, "distance must be mse or l1, not 'l2'"), ({"teacher_tap": "stage4"}, "logits")],
)
def test_bad_options_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Local(**options)
