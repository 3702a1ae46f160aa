"""Pair-wise affinity: pooling, the two normalisations, the Gram matrix."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from golden_inputs import arrays, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.losses.pairwise import Pairwise, nodes, pairwise_affinity
from hwdkit.losses.similarity import cosine_gram, unit_channels
from hwdkit.types import SegOutput

GOLDEN = arrays("pairwise")
RECORDED: dict[str, dict[str, Any]] = {"hwd": {}, "skd": {"scale": 0.5, "detach_norm": True}}
quickly = settings(deadline=None, derandomize=True, max_examples=15)
seeds = st.integers(0, 2**16)


def maps(seed: int, n: int = 2, h: int = 5, w: int = 7) -> tuple[Tensor, Tensor]:
    """Features of a student (4 channels, wants gradients) and of a teacher (6 channels), float64."""
    generator = torch.Generator().manual_seed(seed)
    both = torch.randn(n, 10, h, w, generator=generator, dtype=torch.float64)
    return both[:, :4].clone().requires_grad_(), both[:, 4:].clone()


def value(loss: Pairwise, ours: Tensor, theirs: Tensor) -> Tensor:
    label = torch.zeros(len(ours), 8, 8, dtype=torch.int64)
    out, target = SegOutput(ours, None, {"embedding": ours}), SegOutput(theirs, None, {"embedding": theirs})
    result: Tensor = loss(out, target, label)
    return result


def naive(ours: Tensor, theirs: Tensor, *, kernel: tuple[int, int]) -> float:
    """One window, one pair of windows at a time."""
    total, count = 0.0, 0
    for n in range(len(ours)):
        vectors: list[list[list[float]]] = []
        for features in (ours[n], theirs[n]):
            tops = range(0, features.shape[1], kernel[0])
            lefts = range(0, features.shape[2], kernel[1])
            windows = [features[:, i : i + kernel[0], j : j + kernel[1]] for i in tops for j in lefts]
            vectors.append([window.flatten(1).amax(1).tolist() for window in windows])
        for a_s, a_t in zip(*vectors, strict=True):
            for b_s, b_t in zip(*vectors, strict=True):
                cosines = [
                    sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
                    for a, b in ((a_s, b_s), (a_t, b_t))
                ]
                total += (cosines[0] - cosines[1]) ** 2
                count += 1
    return total / count


@pytest.mark.parametrize("case", RECORDED)
def test_agrees_with_the_recorded_numbers(case: str) -> None:
    found, slope = value_and_gradient(Pairwise(**RECORDED[case]))
    assert found == pytest.approx(GOLDEN[f"value_{case}"].item(), rel=1e-8)
    torch.testing.assert_close(slope, GOLDEN[f"gradient_{case}"], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "kernel"),
    [
        ({"kernel": 1}, (1, 1)),
        ({"kernel": 3}, (3, 3)),
        ({"kernel": 100}, (5, 7)),
        ({"kernel": 3, "scale": 0.4}, (2, 2)),
        ({"scale": 0.6}, (3, 4)),
        ({"scale": 0.01}, (1, 1)),
        ({"scale": 1.0}, (5, 7)),
    ],
)
def test_every_kernel_is_the_plain_loop(options: dict[str, Any], kernel: tuple[int, int]) -> None:
    ours, theirs = maps(1)
    expected = pytest.approx(naive(ours, theirs, kernel=kernel), rel=1e-10)
    assert value(Pairwise(**options), ours, theirs).item() == expected


@pytest.mark.parametrize(
    ("size", "scale", "grid"),
    [(64, None, (32, 32)), (65, None, (33, 33)), (64, 0.5, (2, 2)), (65, 0.5, (3, 3))],
)
def test_half_of_an_odd_size_gives_three_nodes_a_side(size: int, scale: Any, grid: tuple[int, int]) -> None:
    assert nodes(torch.zeros(1, 2, size, size), kernel=2, scale=scale).shape == (1, 2, *grid)


@quickly
@given(seed=seeds, factor=st.floats(1e-3, 1e3), detach_norm=st.booleans())
def test_positive_factor_of_a_feature_map_does_not_count(seed: int, factor: float, detach_norm: bool) -> None:
    loss = Pairwise(detach_norm=detach_norm)
    ours, theirs = maps(seed)
    plain = value(loss, ours, theirs)
    # 1e-8 beside the norm makes SKD's invariance approximate.
    rtol = 1e-4 if detach_norm else 1e-9
    torch.testing.assert_close(value(loss, factor * ours, theirs), plain, rtol=rtol, atol=1e-12)
    torch.testing.assert_close(value(loss, ours, factor * theirs), plain, rtol=rtol, atol=1e-12)


@quickly
@given(seed=seeds)
def test_gradient_is_orthogonal_to_the_feature_unless_the_norm_is_a_constant(seed: int) -> None:
    for detach_norm in (False, True):
        ours, theirs = maps(seed)
        (slope,) = torch.autograd.grad(value(Pairwise(kernel=1, detach_norm=detach_norm), ours, theirs), ours)
        along = (slope * ours).sum(1).abs().max()
        assert (along < 1e-12) != detach_norm


@quickly
@given(seed=seeds, n=st.integers(1, 3))
def test_a_batch_is_the_mean_of_its_images(seed: int, n: int) -> None:
    ours, theirs = maps(seed, n)
    images = [value(Pairwise(), ours[i : i + 1], theirs[i : i + 1]) for i in range(n)]
    torch.testing.assert_close(value(Pairwise(), ours, theirs), torch.stack(images).mean())


def test_order_of_the_channels_does_not_count() -> None:
    ours, theirs = maps(3)
    torch.testing.assert_close(
        value(Pairwise(), ours.flip(1), theirs.roll(2, 1)), value(Pairwise(), ours, theirs)
    )


@pytest.mark.parametrize("options", RECORDED.values(), ids=list(RECORDED))
@pytest.mark.parametrize("size", [(2, 5, 7), (1, 1, 1)])
@pytest.mark.parametrize("scale", [0.0, 1e-10, 1.0, 1e4])
def test_value_and_gradient_are_finite_in_float32(
    options: dict[str, Any], size: tuple[int, int, int], scale: float
) -> None:
    ours, theirs = (scale * tensor.detach().float() for tensor in maps(4, *size))
    for target in (theirs, ours):
        leaf = ours.clone().requires_grad_()
        loss = value(Pairwise(**options), leaf, target)
        (slope,) = torch.autograd.grad(loss, leaf)
        assert loss.isfinite()
        assert slope.isfinite().all()


@pytest.mark.parametrize("detach_norm", [False, True])
def test_position_without_a_feature_gets_no_gradient(detach_norm: bool) -> None:
    ours, theirs = maps(5)
    with torch.no_grad():
        ours[0, :, 2, 3] = 0
    loss = value(Pairwise(kernel=1, detach_norm=detach_norm), ours, theirs)
    (slope,) = torch.autograd.grad(loss, ours)
    assert not slope[0, :, 2, 3].any()
    assert slope.abs().max() < 1
    assert slope.any()


def test_student_that_equals_the_teacher_has_nothing_to_learn() -> None:
    ours, _ = maps(6)
    loss = value(Pairwise(), ours, ours.detach())
    (slope,) = torch.autograd.grad(loss, ours)
    assert loss.item() == 0
    assert not slope.any()


def test_teacher_gets_no_gradient() -> None:
    ours, theirs = maps(7)
    theirs.requires_grad_()
    for loss in (value(Pairwise(), ours, theirs), pairwise_affinity(ours, theirs)):
        assert torch.autograd.grad(loss, (ours, theirs), allow_unused=True)[1] is None


def test_autocast_leaves_the_gram_matrix_in_full_precision() -> None:
    ours, theirs = (tensor.detach().float() for tensor in maps(8))
    with torch.autocast("cpu", torch.bfloat16):
        cast = value(Pairwise(), ours, theirs)
    assert torch.equal(cast, value(Pairwise(), ours, theirs))


@pytest.mark.parametrize(
    "options",
    [{"kernel": 3}, {"scale": 0.9}, {"teacher_tap": "stage4"}],
    ids=["kernel", "scale", "teacher_tap"],
)
def test_each_option_changes_the_loss(options: dict[str, Any]) -> None:
    ours, theirs = maps(9)
    if "teacher_tap" in options:
        assert Pairwise(**options).teacher_taps == ("stage4",)
    else:
        assert value(Pairwise(**options), ours, theirs) != value(Pairwise(), ours, theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 0}, "kernel must be a whole number"),
        ({"kernel": -2}, "kernel must be a whole number"),
        ({"kernel": 1.5}, "kernel must be a whole number"),
        ({"kernel": math.nan}, "kernel must be a whole number"),
        ({"kernel": math.inf}, "kernel must be a whole number"),
        ({"scale": 0.0}, "scale must be more than 0"),
        ({"scale": 1.1}, "scale must be more than 0"),
        ({"scale": math.nan}, "scale must be more than 0"),
        ({"teacher_tap": "logits"}, "logits can be compared with logits only"),
    ],
)
def test_option_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pairwise(**options)


def test_unit_channels_are_those_of_normalize_and_zero_stays_zero() -> None:
    ours, _ = maps(10)
    torch.testing.assert_close(unit_channels(ours), F.normalize(ours, dim=1), rtol=1e-14, atol=0)
    tiny = torch.full((1, 2, 3), 1e-14, dtype=torch.float64)
    torch.testing.assert_close(unit_channels(tiny), F.normalize(tiny, dim=1), rtol=1e-14, atol=0)
    zero = torch.zeros(1, 3, 2, 2, requires_grad=True)
    unit = unit_channels(zero)
    assert not unit.any()
    assert not torch.autograd.grad(unit.sum(), zero)[0].any()


def test_gradient_of_unit_channels_is_that_of_normalize() -> None:
    ours, _ = maps(11)
    weight = torch.randn(ours.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    slopes = [
        torch.autograd.grad((unit * weight).sum(), ours)[0]
        for unit in (unit_channels(ours), F.normalize(ours, dim=1))
    ]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-14)


def test_gram_matrix_is_the_cosine_of_every_pair() -> None:
    ours, _ = maps(12, 2, 2, 3)
    flat = ours.flatten(2)
    expected = torch.cosine_similarity(flat[..., :, None], flat[..., None, :], dim=1)
    torch.testing.assert_close(cosine_gram(unit_channels(ours)), expected)
