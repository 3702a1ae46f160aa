"""The class of every pixel is the one that up-sampling everything would give."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.kernels.bilinear_argmax import upsampled_argmax

ONE_CELL, EVERYTHING = 1, 2**40


def plain(logits: Tensor, size: tuple[int, int], *, align_corners: bool) -> Tensor:
    up = F.interpolate(logits[None], size, mode="bilinear", align_corners=align_corners)
    return up[0].argmax(0)


def scores(classes: int, height: int, width: int, *, seed: int = 0) -> Tensor:
    return torch.randn(
        classes, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.booleans(),
    st.sampled_from([ONE_CELL, EVERYTHING]),
)
def test_every_pixel_has_the_class_of_the_upsampled_logits(
    shape: tuple[int, int, int], size: tuple[int, int], align_corners: bool, budget: int
) -> None:
    logits = scores(*shape)
    ours = upsampled_argmax(logits, size, align_corners=align_corners, budget=budget)
    assert torch.equal(ours.long(), plain(logits, size, align_corners=align_corners))


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(136, 264), (131, 257), (17, 33)])
def test_large_regions_of_one_class_change_nothing(size: tuple[int, int], align_corners: bool) -> None:
    logits = F.interpolate(scores(6, 4, 5)[None], (17, 33), mode="nearest")[0] + 0.01 * scores(6, 17, 33)
    ours = upsampled_argmax(logits, size, align_corners=align_corners)
    assert torch.equal(ours.long(), plain(logits, size, align_corners=align_corners))


def test_float32_differs_only_where_two_classes_are_equal_up_to_rounding() -> None:
    logits = scores(19, 33, 65).float()
    size = (264, 520)
    ours = upsampled_argmax(logits, size, align_corners=True).long()
    up = F.interpolate(logits[None].double(), size, mode="bilinear", align_corners=True)[0]
    chosen, best = up.gather(0, ours[None])[0], up.amax(0)
    assert float((best - chosen).max()) < 1e-5


def test_the_first_of_classes_that_are_equal_everywhere_is_taken() -> None:
    logits = torch.zeros(3, 4, 4)
    assert not upsampled_argmax(logits, (32, 32), align_corners=True).any()


@pytest.mark.parametrize(("classes", "dtype"), [(256, torch.uint8), (257, torch.int32)])
def test_the_type_holds_every_class(classes: int, dtype: torch.dtype) -> None:
    logits = torch.zeros(classes, 2, 2)
    logits[-1] = 1
    ours = upsampled_argmax(logits, (5, 5), align_corners=False)
    assert ours.dtype == dtype
    assert torch.equal(ours, torch.full((5, 5), classes - 1, dtype=dtype))


def test_half_precision_is_compared_in_float32() -> None:
    logits = scores(5, 6, 7).bfloat16()
    ours = upsampled_argmax(logits, (48, 56), align_corners=False)
    assert torch.equal(ours.long(), plain(logits.float(), (48, 56), align_corners=False))
