"""TD, NTD, their two ratios and the weights: against plain loops and against HWD's own."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from hwdkit.losses import HWD
from hwdkit.losses.channel_wise import channel_kl
from hwdkit.measure.divergence import Divergence, Measure, image_sums
from hwdkit.measure.types import ClassDivergence
from hwdkit.types import IGNORE

CLASSES, TAU = 5, 3.0
MEASURES = [
    Measure("mse", "activation", TAU),
    Measure("kl", "activation", TAU),
    Measure("mse", "logits", TAU),
]
every_measure = pytest.mark.parametrize("measure", MEASURES, ids=lambda one: f"{one.kind}-{one.on}")


class Image(NamedTuple):
    """(C, h, w) logits of both, and an (H, W) label of four times their size."""

    student: Tensor
    teacher: Tensor
    label: Tensor


def image(seed: int, *, absent: int = 3) -> Image:
    """With ignored pixels, and without one class."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 4 * torch.randn(2, CLASSES, 3, 4, generator=generator)
    label = torch.randint(0, CLASSES, (3, 4), generator=generator)
    label[0, 0] = absent  # hence ignored: at least one position is
    label[label == absent] = IGNORE
    return Image(student, teacher, label.repeat_interleave(4, 0).repeat_interleave(4, 1))


def measured(measure: Measure, *images: Image, chunk_bytes: int = 2**20) -> list[ClassDivergence]:
    divergence = Divergence(CLASSES)
    for student, teacher, label in images:
        found = image_sums({"s": student}, teacher, label, measure, chunk_bytes=chunk_bytes)
        divergence.update(found["s"])
    return divergence.classes()


def at_position(measure: Measure, student: list[float], teacher: list[float], i: int) -> float:
    """The divergence of two channels at position i, from their logits, in Python's own float64."""
    if measure.on == "logits":
        return (teacher[i] - student[i]) ** 2
    p_s, p_t = (
        math.exp(z[i] / measure.temperature) / math.fsum(math.exp(x / measure.temperature) for x in z)
        for z in (student, teacher)
    )
    return (p_t - p_s) ** 2 if measure.kind == "mse" else p_t * math.log(p_t / p_s) - p_t + p_s


def plain(measure: Measure, images: list[Image], c: int) -> tuple[list[float], list[float], list[float]]:
    """Values on the class's own positions, those on others, and the images' ratios, by loops."""
    own, other, ratios = [], [], []
    for one in images:
        labels = one.label[::4, ::4].flatten().tolist()
        student, teacher = one.student[c].flatten().tolist(), one.teacher[c].flatten().tolist()
        values = [at_position(measure, student, teacher, i) for i in range(len(labels))]
        here = [value for value, name in zip(values, labels, strict=True) if name == c]
        there = [value for value, name in zip(values, labels, strict=True) if name not in (c, IGNORE)]
        own += here
        other += there
        if here and there and sum(there) > 0:
            ratios.append((sum(here) / len(here)) / (sum(there) / len(there)))
    return own, other, ratios


@every_measure
@pytest.mark.parametrize("chunk_bytes", [1, 2**20], ids=["one channel at a time", "all at once"])
def test_divergences_and_both_ratios_are_those_of_plain_loops(measure: Measure, chunk_bytes: int) -> None:
    images = [image(0), image(1, absent=0), image(2, absent=3)]
    found = measured(measure, *images, chunk_bytes=chunk_bytes)
    for c in range(CLASSES):
        own, other, ratios = plain(measure, images, c)
        assert found[c].ntd == pytest.approx(sum(other) / len(other), rel=1e-9)
        if own:
            td = sum(own) / len(own)
            assert found[c].td == pytest.approx(td, rel=1e-9)
            assert found[c].ratio == pytest.approx(td / (sum(other) / len(other)), rel=1e-9)
            assert found[c].image_ratio == pytest.approx(sum(ratios) / len(ratios), rel=1e-9)
        assert found[c].images == len(ratios)
    assert len({one.images for one in found}) > 1  # some classes are not in every image


def test_the_two_ratios_are_different_quantities() -> None:
    found = measured(MEASURES[0], image(0), image(1, absent=0))
    assert any(abs(one.ratio - one.image_ratio) > 0.1 * one.ratio for one in found if one.ratio)  # type: ignore[operator]


@every_measure
def test_weight_is_the_mean_of_hwds_own_over_the_images(measure: Measure) -> None:
    images = [image(3), image(4)]
    hwd = HWD(temperature=TAU, divergence=measure.kind, divergence_on=measure.on)
    own = [hwd.channel_weights(s[None].double(), t[None].double(), label[None]) for s, t, label in images]
    expected = torch.cat(own).mean(0)
    assert [one.weight for one in measured(measure, *images)] == pytest.approx(expected.tolist(), rel=1e-9)
    assert len(set(expected.tolist())) == CLASSES
    assert expected.sum().item() == pytest.approx(CLASSES)


def test_kl_over_all_positions_is_that_of_hwd() -> None:
    """Its extra terms make every position's share non-negative and vanish in the sum."""
    student, teacher, label = image(5)
    measure = Measure("kl", "activation", TAU)
    sums = image_sums({"s": student}, teacher, label, measure)["s"]
    kl = channel_kl(student[None].double(), teacher[None].double(), temperature=TAU)[0] / TAU**2
    torch.testing.assert_close(sums.own + sums.other + sums.ignored, kl)
    positions = measure.between(measure.maps(student), measure.maps(teacher))
    assert positions.min() >= 0
    p_t = measure.maps(teacher).exp()
    assert (p_t * (measure.maps(teacher) - measure.maps(student))).min() < 0  # what the plain terms are


@every_measure
def test_logits_far_apart_do_not_overflow(measure: Measure) -> None:
    student, teacher, label = image(6)
    found = measured(measure, Image(5000 * student, -5000 * teacher, label))
    assert all(one.ntd is not None and one.ntd >= 0 for one in found)


def test_ignored_positions_count_in_no_divergence() -> None:
    """Swapping the student's logits among ignored positions leaves all other activations as they are."""
    student, teacher, label = image(7)
    label = label.clone()
    label[4:8] = IGNORE
    swapped = student.clone()
    swapped[:, 1] = student[:, 1].flip(-1)
    before, after = (measured(MEASURES[0], Image(s, teacher, label)) for s in (student, swapped))
    for one, other in zip(before, after, strict=True):
        assert one.td == (None if other.td is None else pytest.approx(other.td))
        assert one.ntd == pytest.approx(other.ntd)


def test_class_without_a_position_has_no_target_divergence_and_no_ratio() -> None:
    found = measured(MEASURES[0], image(8, absent=2), image(9, absent=2))
    assert (found[2].td, found[2].ratio, found[2].image_ratio, found[2].images) == (None, None, None, 0)
    assert found[2].ntd is not None
    assert all(one.td is not None for c, one in enumerate(found) if c != 2)


def test_class_that_covers_everything_has_no_non_target_divergence() -> None:
    student, teacher, label = image(10)
    found = measured(MEASURES[0], Image(student, teacher, torch.full_like(label, 1)))
    assert found[1].td is not None
    assert (found[1].ntd, found[1].ratio, found[1].image_ratio, found[1].images) == (None, None, None, 0)


def test_image_whose_ntd_is_zero_is_left_out_of_the_mean_of_ratios_only() -> None:
    """Logits that differ on the class's own positions alone: TD/0 in this image, a number in the split."""
    student, teacher, label = image(11, absent=4)
    equal_elsewhere = torch.where(label[::4, ::4] == 1, student, teacher)
    special = Image(equal_elsewhere, teacher, label)
    alone = measured(Measure("mse", "logits"), special)[1]
    assert (alone.ntd, alone.ratio, alone.image_ratio, alone.images) == (0.0, None, None, 0)
    usual = image(12)
    both, only = (measured(Measure("mse", "logits"), *images)[1] for images in ((special, usual), (usual,)))
    assert both.images == only.images == 1
    assert both.image_ratio == only.image_ratio
    assert both.ratio != only.ratio


def test_student_that_equals_the_teacher_has_zeros_no_ratio_and_even_weights() -> None:
    one = image(13)
    for measure in MEASURES:
        for row in measured(measure, Image(one.teacher, one.teacher, one.label)):
            assert row.td in (0.0, None)
            assert (row.ntd, row.ratio, row.image_ratio) == (0.0, None, None)
            assert row.weight == pytest.approx(1)


def test_students_compared_together_are_those_compared_alone() -> None:
    first, second = image(14), image(15)
    measure = MEASURES[0]
    together = image_sums(
        {"a": first.student, "b": second.student}, first.teacher, first.label, measure, chunk_bytes=200
    )
    for name, student in (("a", first.student), ("b", second.student)):
        alone = image_sums({"s": student}, first.teacher, first.label, measure)["s"]
        for one, other in zip(together[name], alone, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
    assert not torch.equal(together["a"].own, together["b"].own)


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "kl", "on": "logits"}, {"kind": "l1"}, {"on": "logit"}, {"temperature": 0.0}],
)
def test_a_measure_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"kl|kind|on is|temperature"):
        Measure(**wrong)  # type: ignore[arg-type]
