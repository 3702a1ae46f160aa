"""Intra-class feature variation: prototypes, cosines, and what becomes of ignored pixels."""

from __future__ import annotations

import math

import pytest
import torch
from golden_inputs import arrays, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.losses.ifv import IFV, intra_class_cosine, intra_class_variation
from hwdkit.losses.labels import class_ids, members, small_label
from hwdkit.types import IGNORE, SegOutput

GOLDEN = arrays("ifv")
CLASSES = 4
quickly = settings(deadline=None, derandomize=True, max_examples=15)
seeds = st.integers(0, 2**16)


def maps(seed: int, n: int = 2, h: int = 4, w: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Features of a student (3 channels, wants gradients) and of a teacher (6); a label twice as large."""
    generator = torch.Generator().manual_seed(seed)
    both = torch.randn(n, 9, h, w, generator=generator, dtype=torch.float64)
    label = torch.randint(0, CLASSES + 1, (n, 2 * h, 2 * w), generator=generator)
    label[label == CLASSES] = IGNORE
    return both[:, :3].clone().requires_grad_(), both[:, 3:].clone(), label


def value(ours: Tensor, theirs: Tensor, label: Tensor, *, classes: int = CLASSES) -> Tensor:
    logits = torch.zeros(len(ours), classes, *ours.shape[2:], dtype=ours.dtype)
    out, target = SegOutput(logits, None, {"embedding": ours}), SegOutput(logits, None, {"embedding": theirs})
    result: Tensor = IFV()(out, target, label)
    return result


def gradient(ours: Tensor, theirs: Tensor, label: Tensor, *, classes: int = CLASSES) -> Tensor:
    (result,) = torch.autograd.grad(value(ours, theirs, label, classes=classes), ours)
    return result


def cosine(a: list[float], b: list[float]) -> float:
    length = max(math.hypot(*a), 1e-8) * max(math.hypot(*b), 1e-8)
    return sum(x * y for x, y in zip(a, b, strict=True)) / length


def naive(ours: Tensor, theirs: Tensor, label: Tensor, classes: int) -> float:
    """One class at a time, as the authors do it; one pixel at a time, as they do not."""
    total = 0.0
    n, _, h, w = ours.shape
    for image in range(n):
        small = label[image, ::2, ::2].flatten().tolist()
        both: list[list[float]] = []
        for features in (ours[image], theirs[image]):
            vectors = features.flatten(1).T.tolist()
            centre = list(vectors)
            for k in range(classes):
                members = [vector for vector, y in zip(vectors, small, strict=True) if y == k]
                mean = [sum(column) / (len(members) + 1e-6) for column in zip(*members, strict=True)]
                centre = [mean if y == k else old for old, y in zip(centre, small, strict=True)]
            both.append([cosine(vector, mean) for vector, mean in zip(vectors, centre, strict=True)])
        total += sum((s - t) ** 2 for s, t in zip(*both, strict=True))
    return total / (n * h * w)


def test_agrees_with_the_recorded_numbers() -> None:
    found, slope = value_and_gradient(IFV())
    assert found == pytest.approx(GOLDEN["value_ifv"].item(), rel=1e-8)
    torch.testing.assert_close(slope, GOLDEN["gradient_ifv"], rtol=1e-7, atol=1e-12)


@quickly
@given(seed=seeds, n=st.integers(1, 3), h=st.integers(1, 4), w=st.integers(1, 4))
def test_is_the_plain_loop(seed: int, n: int, h: int, w: int) -> None:
    ours, theirs, label = maps(seed, n, h, w)
    expected = pytest.approx(naive(ours, theirs, label, CLASSES), rel=1e-9, abs=1e-14)
    assert value(ours, theirs, label).item() == expected


@quickly
@given(seed=seeds, factor=st.floats(1e-3, 1e3))
def test_positive_factor_of_a_feature_map_does_not_count(seed: int, factor: float) -> None:
    ours, theirs, label = maps(seed)
    plain = value(ours, theirs, label)
    torch.testing.assert_close(value(factor * ours, theirs, label), plain)
    torch.testing.assert_close(value(ours, factor * theirs, label), plain)


@quickly
@given(seed=seeds, n=st.integers(1, 3))
def test_a_batch_is_the_mean_of_its_images(seed: int, n: int) -> None:
    ours, theirs, label = maps(seed, n)
    images = [value(*(tensor[i : i + 1] for tensor in (ours, theirs, label))) for i in range(n)]
    torch.testing.assert_close(value(ours, theirs, label), torch.stack(images).mean())


def test_ignored_pixels_stay_in_the_mean_and_get_no_gradient() -> None:
    ours, theirs, label = maps(1)
    label = label % CLASSES
    half = label.clone()
    half[1] = IGNORE
    torch.testing.assert_close(value(ours, theirs, half), value(ours[:1], theirs[:1], label[:1]) / 2)
    slope = gradient(ours, theirs, half)
    assert slope[0].any()
    assert not slope[1].any()


@pytest.mark.parametrize("outside", [-1, CLASSES, 150, IGNORE])
def test_label_that_is_no_class_counts_as_ignored(outside: int) -> None:
    ours, theirs, label = maps(2)
    expected = value(ours, theirs, label)
    moved = torch.where(label == IGNORE, outside, label)
    assert torch.equal(value(ours, theirs, moved), expected)


def test_number_of_classes_is_that_of_the_logits() -> None:
    ours, theirs, label = maps(3)
    fewer = torch.where(label == CLASSES - 1, IGNORE, label)
    torch.testing.assert_close(
        value(ours, theirs, label, classes=CLASSES - 1), value(ours, theirs, fewer, classes=CLASSES)
    )
    assert value(ours, theirs, label) != value(ours, theirs, fewer)


def test_cosine_is_one_where_there_is_no_class_and_where_a_class_has_one_pixel() -> None:
    ours, _, _ = maps(4, 1, 1, 3)
    member = members(class_ids(torch.tensor([[[IGNORE, 2, 0]]]), CLASSES), CLASSES)
    assert member.int().tolist() == [[[0, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0]]]
    torch.testing.assert_close(intra_class_cosine(ours, member), torch.ones(1, 3, dtype=torch.float64))


def test_prototypes_belong_to_one_image() -> None:
    ours, theirs, label = maps(5)
    other = ours.detach().clone()
    other[1] = other[1].flip(1)
    member = members(class_ids(small_label(label, (4, 5)), CLASSES), CLASSES)
    before, after = (intra_class_cosine(features, member) for features in (ours, other))
    torch.testing.assert_close(before[0], after[0])
    assert not torch.allclose(before[1], intra_class_cosine(theirs, member)[1])


def test_gradient_flows_through_the_prototype() -> None:
    ours, theirs, label = maps(6)
    torch.autograd.gradcheck(lambda features: value(features, theirs, label), ours)


@pytest.mark.parametrize("size", [(2, 4, 5), (1, 1, 1)])
@pytest.mark.parametrize("scale", [0.0, 1e-12, 1.0, 1e4])
@pytest.mark.parametrize("classes", [1, CLASSES])
@pytest.mark.parametrize("kind", ["random", "ignored", "one class"])
def test_value_and_gradient_are_finite_in_float32(
    size: tuple[int, int, int], scale: float, classes: int, kind: str
) -> None:
    ours, theirs, label = maps(7, *size)
    label = {"random": label, "ignored": label * 0 + IGNORE, "one class": label * 0}[kind]
    ours, theirs = (scale * tensor.detach().float() for tensor in (ours, theirs))
    for target in (theirs, ours):
        leaf = ours.clone().requires_grad_()
        assert value(leaf, target, label, classes=classes).isfinite()
        assert gradient(leaf, target, label, classes=classes).isfinite().all()


def test_pixel_without_a_feature_is_finite_among_others() -> None:
    ours, theirs, label = maps(8)
    with torch.no_grad():
        ours[0, :, 1, 1] = 0
    slope = gradient(ours, theirs, label * 0)
    assert slope.isfinite().all()
    assert slope.abs().max() < 1


def test_student_that_equals_the_teacher_has_nothing_to_learn() -> None:
    ours, _, label = maps(9)
    assert value(ours, ours.detach(), label).item() == 0
    assert not gradient(ours, ours.detach(), label).any()


def test_teacher_gets_no_gradient() -> None:
    ours, theirs, label = maps(10)
    theirs.requires_grad_()
    member = members(class_ids(small_label(label, (4, 5)), CLASSES), CLASSES)
    for loss in (value(ours, theirs, label), intra_class_variation(ours, theirs, member)):
        assert torch.autograd.grad(loss, (ours, theirs), allow_unused=True)[1] is None


def test_autocast_leaves_the_products_in_full_precision() -> None:
    ours, theirs, label = maps(11)
    ours, theirs = ours.detach().float(), theirs.float()
    with torch.autocast("cpu", torch.bfloat16):
        cast = value(ours, theirs, label)
    assert torch.equal(cast, value(ours, theirs, label))


def test_teacher_may_go_by_another_tap_but_not_by_logits() -> None:
    loss = IFV(tap="stage4", teacher_tap="embedding")
    assert (loss.taps, loss.teacher_taps) == (("stage4",), ("embedding",))
    with pytest.raises(ValueError, match="logits can be compared with logits only"):
        IFV(teacher_tap="logits")
