"""Af-DCD: the contrast against a plain loop, patches at the border, masks, and what each option does."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.losses import AfDCD, af_dcd
from hwdkit.losses.af_dcd import centre_mask, l1_distances, omni_contrast
from hwdkit.losses.mgd import random_mask, squared_error_per_image
from hwdkit.types import SegOutput

quickly = settings(deadline=None, derandomize=True, max_examples=20)
seeds = st.integers(0, 2**16)
sides = st.integers(1, 5)


def pair(seed: int, *size: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """A student's map, which wants a gradient, and a teacher's, float64."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(2, *size, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher


def naive_contrast(student: Tensor, teacher: Tensor, patch: int, groups: int, tau: float) -> float:
    """The equation, one image, one anchor and one candidate at a time."""
    n, c, h, w = student.shape
    d = c // groups
    total = 0.0

    def similarity(image: int, mine: tuple[int, int, int], theirs: tuple[int, int, int]) -> float:
        (y, x, g), (v, u, k) = mine, theirs
        s, t = student[image, g * d : (g + 1) * d, y, x], teacher[image, k * d : (k + 1) * d, v, u]
        return -sum(abs(a - b) for a, b in zip(s.tolist(), t.tolist(), strict=True)) / tau

    for image in range(n):
        for y, x, g in ((y, x, g) for y in range(h) for x in range(w) for g in range(groups)):
            top, left = y // patch * patch, x // patch * patch
            negatives = [
                similarity(image, (y, x, g), (v, u, k))
                for v in range(top, min(top + patch, h))
                for u in range(left, min(left + patch, w))
                for k in range(groups)
                if k != g
            ]
            positive = similarity(image, (y, x, g), (y, x, g))
            total -= positive - math.log(sum(math.exp(z) for z in [positive, *negatives]))
    return total / (h * w * n)


@quickly
@given(seed=seeds, h=sides, w=sides, patch=st.integers(1, 3), groups=st.integers(2, 3))
def test_contrast_is_its_equation_written_out(seed: int, h: int, w: int, patch: int, groups: int) -> None:
    student, teacher = pair(seed, 2, 2 * groups, h, w)
    value = omni_contrast(student, teacher, patch=patch, groups=groups, temperature=0.7)
    expected = naive_contrast(student, teacher, patch, groups, 0.7)
    assert value.item() == pytest.approx(expected, rel=1e-10)


def test_contrast_of_equal_vectors_counts_the_candidates() -> None:
    student, teacher = torch.ones(2, 8, 4, 4), torch.ones(2, 8, 4, 4)
    value = omni_contrast(student, teacher, patch=2, groups=4, temperature=0.07)
    assert value.item() == pytest.approx(4 * math.log(1 + 3 * 4), rel=1e-6)


@quickly
@given(seed=seeds, h=st.integers(1, 4), w=st.integers(1, 4))
def test_gradient_of_the_contrast_is_right_in_every_patch(seed: int, h: int, w: int) -> None:
    student, teacher = pair(seed, 1, 4, h, w)
    assert torch.autograd.gradcheck(
        lambda s: omni_contrast(s, teacher, patch=3, groups=2, temperature=1.0), student
    )


@quickly
@given(seed=seeds)
def test_same_group_elsewhere_in_the_patch_and_other_patches_do_not_count(seed: int) -> None:
    student, teacher = pair(seed, 1, 4, 4, 4)

    def gradient(moved: Tensor) -> Tensor:
        loss = omni_contrast(student, moved, patch=2, groups=2, temperature=50.0)
        return torch.autograd.grad(loss, student)[0]

    before = gradient(teacher)
    last_patch, first_group = teacher.clone(), teacher.clone()
    last_patch[..., 2:, 2:] += 100
    after = gradient(last_patch)
    assert torch.equal(after[..., :2, :], before[..., :2, :])
    assert torch.equal(after[..., :2], before[..., :2])
    first_group[:, :2, 0, 0] += 100
    after = gradient(first_group)
    assert torch.equal(after[:, :2, 0, 1], before[:, :2, 0, 1])
    assert not torch.equal(after[:, 2:, 0, 1], before[:, 2:, 0, 1])


@quickly
@given(seed=seeds, at_once=st.sampled_from([1, 100, 10**6]))
def test_distances_do_not_depend_on_how_many_are_formed_at_once(seed: int, at_once: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    anchors, candidates = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(af_dcd, "DIFFERENCES_AT_ONCE", at_once)
        found = l1_distances(anchors, candidates)
    expected = (anchors[:, :, None] - candidates[:, None]).abs().sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (9, 11), (64, 65)])
def test_centre_mask_zeroes_the_middle_third(size: tuple[int, int]) -> None:
    h, w = size
    mask = centre_mask(torch.zeros(2, 3, h, w))
    for y in range(h):
        for x in range(w):
            middle = h // 3 <= y < 2 * h // 3 and w // 3 <= x < 2 * w // 3
            assert mask[0, 0, y, x].item() == (0 if middle else 1)


def loss_of(**options: Any) -> AfDCD:
    torch.manual_seed(0)
    defaults = {"student_channels": 3, "teacher_channels": 8, "groups": 4, "pool": 2, "patch": 2}
    return AfDCD(**(defaults | options)).double()


def outputs(student: Tensor, teacher: Tensor) -> tuple[SegOutput, SegOutput]:
    return SegOutput(student, None, {"stage4": student}), SegOutput(teacher, None, {"stage4": teacher})


def maps(seed: int, h: int = 7, w: int = 9) -> tuple[Tensor, Tensor]:
    student, teacher = pair(seed, 2, 8, h, w)
    return student.detach()[:, :3].clone().requires_grad_(), teacher.requires_grad_()


def value(loss: AfDCD, student: Tensor, teacher: Tensor) -> Tensor:
    torch.manual_seed(5)
    result: Tensor = loss(*outputs(student, teacher), torch.zeros(len(student), 8, 8).long())
    return result


@quickly
@given(seed=seeds, feature=st.floats(0.1, 2), contrast=st.floats(0.1, 2))
def test_loss_is_the_weighted_sum_of_its_parts(seed: int, feature: float, contrast: float) -> None:
    student, teacher = maps(seed)
    loss = loss_of(feature_weight=feature, contrast_weight=contrast, temperature=0.5)
    torch.manual_seed(5)
    generated = loss.generate(student, random_mask(student, mask_ratio=0.75))
    pooled = [F.max_pool2d(map_, 2, ceil_mode=True) for map_ in (generated, teacher)]
    expected = feature * squared_error_per_image(generated, teacher) + contrast * naive_contrast(
        *pooled, 2, 4, 0.5
    )
    torch.testing.assert_close(value(loss, student, teacher), expected.detach(), rtol=1e-10, atol=0)


def test_a_part_without_weight_is_left_out() -> None:
    student, teacher = maps(1)
    parts = [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    alone, contrast, both = (
        value(loss_of(feature_weight=a, contrast_weight=b), student, teacher) for a, b in parts
    )
    torch.testing.assert_close(alone + contrast, both)
    assert alone > 0 < contrast


@pytest.mark.parametrize(
    "option",
    [
        {"feature_weight": 1e-3},
        {"contrast_weight": 0.1},
        {"mask": "centre"},
        {"mask_ratio": 0.1},
        {"pool": 1},
        {"patch": 1},
        {"groups": 2},
        {"temperature": 1.0},
    ],
)
def test_every_option_counts(option: dict[str, Any]) -> None:
    student, teacher = maps(1)
    assert value(loss_of(**option), student, teacher) != value(loss_of(), student, teacher)


@pytest.mark.parametrize("mask", ["random", "centre"])
def test_teacher_gets_no_gradient_and_every_parameter_does(mask: str) -> None:
    student, teacher = maps(2)
    for weights in ({}, {"feature_weight": 0.0}, {"contrast_weight": 0.0}):
        loss = loss_of(mask=mask, **weights)
        value(loss, student, teacher).backward()
        assert teacher.grad is None
        assert student.grad is not None
        assert student.grad.any()
        assert all(parameter.grad is not None for parameter in loss.parameters())


@quickly
@given(seed=seeds)
def test_loss_is_a_mean_over_images(seed: int) -> None:
    student, teacher = maps(seed)
    loss = loss_of(mask="centre")
    alone = [value(loss, student[i : i + 1], teacher[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(value(loss, student, teacher), torch.stack(alone).mean())


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 2), (9, 5)])
def test_value_and_gradients_are_finite_on_maps_of_any_size(scale: float, size: tuple[int, int]) -> None:
    loss = loss_of(pool=4, patch=4).float()
    torch.manual_seed(0)
    student, teacher = (scale * torch.randn(1, channels, *size) for channels in (3, 8))
    result = value(loss, student.requires_grad_(), teacher)
    result.backward()
    assert result.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loss.parameters())


def test_generated_map_that_equals_the_teacher_has_a_finite_gradient() -> None:
    _, teacher = pair(1, 1, 8, 4, 4)
    student = teacher.clone().requires_grad_()
    omni_contrast(student, teacher, patch=4, groups=4, temperature=0.07).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_autocast_and_half_precision_maps_are_compared_in_float32() -> None:
    loss = loss_of().float()
    student, teacher = (map_.detach().half() for map_ in maps(3))
    expected = value(loss, student.float(), teacher.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = value(loss, student, teacher)
    assert found.dtype == torch.float32
    assert found == expected


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"mask": "center"}, "mask must be random or centre"),
        ({"mask_ratio": 1.0}, "mask_ratio"),
        ({"mask_ratio": math.nan}, "mask_ratio"),
        ({"feature_weight": -1.0}, "feature_weight"),
        ({"contrast_weight": math.nan}, "contrast_weight"),
        ({"feature_weight": math.inf}, "feature_weight"),
        ({"feature_weight": 0.0, "contrast_weight": 0.0}, "both 0"),
        ({"pool": 0}, "pool"),
        ({"patch": 0}, "patch"),
        ({"groups": 0}, "groups"),
        ({"groups": 3}, "do not divide"),
        ({"groups": 16}, "do not divide"),
        ({"groups": 1}, "nothing to contrast with"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
    ],
)
def test_bad_option_is_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss_of(**option)


def test_one_group_is_enough_without_a_contrast() -> None:
    student, teacher = maps(1)
    assert value(loss_of(groups=1, contrast_weight=0.0), student, teacher) > 0
