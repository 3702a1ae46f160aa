"""Intervals against closed cases, a naive loop, and simulations in which the truth is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from hwdkit.measure import bootstrap
from hwdkit.measure.bootstrap import (
    Counts,
    Draws,
    differences,
    image_weights,
    method_draws,
    resampled,
    scores,
)
from hwdkit.metrics import ConfusionMatrix
from hwdkit.recipe.protocol import Absent

Floats = np.ndarray[Any, np.dtype[np.float64]]


def random_counts(images: int, classes: int, *, seed: int, absent: tuple[int, ...] = ()) -> Counts:
    """Counts that a confusion matrix could have; the classes `absent` occur in the first image alone."""
    rng = np.random.default_rng(seed)
    matrices = rng.integers(0, 50, (images, classes, classes))
    matrices[1:, list(absent)] = 0
    matrices[1:, :, list(absent)] = 0
    return counts_of(matrices)


def counts_of(matrices: np.ndarray[Any, np.dtype[np.int64]]) -> Counts:
    diagonal = matrices.diagonal(axis1=1, axis2=2)
    return np.stack([diagonal, matrices.sum(2), matrices.sum(1)], axis=1)


def drawn(*counts: Counts, resamples: int = 400, seed: int = 0, absent: Absent = "present") -> list[Draws]:
    """One method of one seed for each."""
    together = resampled(list(counts), resamples=resamples, seed=seed, absent=absent)
    return [
        method_draws(scores(each.sum(0), absent)[None], many[None], seed=seed, key="")
        for each, many in zip(counts, together, strict=True)
    ]


@pytest.mark.parametrize("absent", ["present", "paper"])
def test_scores_are_those_of_the_confusion_matrix(absent: Absent) -> None:
    matrices = np.random.default_rng(3).integers(0, 9, (5, 4, 4))
    matrices[:, 2] = matrices[:, :, 2] = 0  # a class that nobody sees
    truth = ConfusionMatrix(4)
    truth.matrix = torch.from_numpy(matrices.sum(0))
    found = scores(counts_of(matrices).sum(0), absent)
    assert found[0] == pytest.approx(truth.miou(absent), abs=1e-15)
    np.testing.assert_allclose(found[1:], truth.iou().numpy(), rtol=1e-15)
    assert math.isnan(found[3])


def test_scores_without_a_labelled_pixel_are_unknown() -> None:
    assert np.isnan(scores(np.zeros((3, 4), dtype=np.int64), "present")).all()


def test_every_resample_draws_as_many_images_as_there_are_each_equally_often() -> None:
    weights = image_weights(4000, 7, np.random.default_rng(0))
    assert weights.shape == (4000, 7)
    assert (weights.sum(1) == 7).all()
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.06)
    np.testing.assert_allclose(weights.var(0), 6 / 7, atol=0.08)  # of a binomial


@pytest.mark.parametrize("absent", ["present", "paper"])
def test_resamples_equal_a_naive_loop_over_the_same_images(absent: Absent) -> None:
    counts = [random_counts(9, 5, seed=seed, absent=(4,)) for seed in (1, 2)]
    found = resampled(counts, resamples=30, seed=5, absent=absent)
    rng = np.random.default_rng(np.random.SeedSequence(5, spawn_key=(bootstrap.IMAGES,)))
    weights = image_weights(30, 9, rng)
    for each, many in zip(counts, found, strict=True):
        for row, weight in zip(many, weights, strict=True):
            picked = np.concatenate([each[[i] * times] for i, times in enumerate(weight)])
            np.testing.assert_array_equal(row, scores(picked.sum(0), absent))


def test_numbers_do_not_depend_on_the_budget_or_on_what_else_is_compared() -> None:
    a, b, c = (random_counts(11, 3, seed=seed) for seed in (1, 2, 3))
    whole = resampled([a, b], resamples=101, seed=0, absent="present")
    pieces = resampled([b, c, a], resamples=101, seed=0, absent="present", budget=2000)
    np.testing.assert_array_equal(whole[0], pieces[2])
    np.testing.assert_array_equal(whole[1], pieces[0])


def test_another_seed_gives_other_resamples() -> None:
    a = random_counts(11, 3, seed=1)
    one, two = (resampled([a], resamples=50, seed=seed, absent="present")[0] for seed in (0, 1))
    assert not np.array_equal(one, two)


def test_images_that_are_all_alike_leave_no_uncertainty() -> None:
    a, b = (np.repeat(random_counts(1, 4, seed=seed), 6, axis=0) for seed in (1, 2))
    for interval in differences(*drawn(a, b), confidence=95, images=80):
        assert interval.low == interval.delta == interval.high


def test_networks_that_differ_alike_in_every_image_leave_no_uncertainty() -> None:
    # Each image is as large as any other, IoU 1 / 2 for one network and 1 / 4 for the other, everywhere.
    rng = np.random.default_rng(0)
    right = np.array([[[60], [120], [60]]]).repeat(8, 0)
    less = np.array([[[30], [120], [30]]]).repeat(8, 0)
    scale = rng.integers(1, 9, (8, 1, 1))
    miou, _ = differences(*drawn(right * scale, less * scale), confidence=95, images=80)
    assert miou.delta == pytest.approx(0.25)
    assert miou.low == pytest.approx(0.25, abs=1e-12)
    assert miou.high == pytest.approx(0.25, abs=1e-12)


def test_a_network_and_itself_differ_by_nothing() -> None:
    a = random_counts(12, 3, seed=1)
    for interval in differences(*drawn(a, a.copy()), confidence=95, images=80):
        assert (interval.delta, interval.low, interval.high) == (0, 0, 0)
        assert not interval.beyond_noise


def test_two_images_give_their_three_mixes_in_the_right_shares() -> None:
    a, b = random_counts(2, 3, seed=1), random_counts(2, 3, seed=2)
    one, two = resampled([a, b], resamples=20_000, seed=0, absent="paper")
    found = one[:, 0] - two[:, 0]

    def difference(*picked: int) -> float:
        mine, others = (scores(each[list(picked)].sum(0), "paper")[0] for each in (a, b))
        return float(mine - others)

    # Of the four equally likely resamples 00, 01, 10 and 11 two are the same mix.
    for picked, share in (((0, 0), 0.25), ((0, 1), 0.5), ((1, 1), 0.25)):
        assert np.isclose(found, difference(*picked)).mean() == pytest.approx(share, abs=0.015)
    miou, *_ = differences(*drawn(a, b, resamples=20_000), confidence=95, images=80)
    values = sorted([difference(0, 0), difference(0, 1), difference(1, 1)])
    assert (miou.low, miou.high) == (pytest.approx(values[0]), pytest.approx(values[-1]))


def test_order_turns_the_sign_and_nothing_else() -> None:
    one, two = drawn(random_counts(15, 3, seed=1), random_counts(15, 3, seed=2))
    for there, back in zip(
        differences(one, two, confidence=90, images=80),
        differences(two, one, confidence=90, images=80),
        strict=True,
    ):
        assert (there.delta, there.low, there.high) == pytest.approx((-back.delta, -back.high, -back.low))


def test_more_confidence_makes_a_wider_interval() -> None:
    pair = drawn(random_counts(15, 3, seed=1), random_counts(15, 3, seed=2))
    widths = [
        of.high - of.low
        for of in (differences(*pair, confidence=c, images=80)[0] for c in (50.0, 80.0, 95.0, 99.0))
    ]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_a_class_that_is_missing_from_resamples_counts_where_it_occurs() -> None:
    a, b = (random_counts(4, 3, seed=seed, absent=(2,)) for seed in (1, 2))
    one, two = drawn(a, b)
    assert np.isnan(one.draws[:, 3]).any()
    *_, rare = differences(one, two, confidence=95, images=80)
    assert rare.low == rare.delta == rare.high  # whenever it occurs, it is that one image


def test_a_class_that_nobody_sees_has_no_interval() -> None:
    counts = random_counts(4, 3, seed=1)
    counts[:, :, 2] = 0
    *_, never = differences(*drawn(counts, counts), confidence=95, images=80)
    assert math.isnan(never.delta)
    assert math.isnan(never.low)
    assert not never.beyond_noise


def test_seeds_are_joined_to_their_mean_and_spread() -> None:
    points = np.array([[0.30, 0.1, np.nan], [0.34, 0.5, np.nan], [0.38, np.nan, 0.0]])
    resamples = np.repeat(points[:, None], 20_000, axis=1)  # as if images had no say
    joined = method_draws(points, resamples, seed=0, key="a")
    np.testing.assert_allclose(joined.point, [0.34, 0.3, 0.0])
    np.testing.assert_allclose(joined.std[:2], [0.04, np.std([0.1, 0.5], ddof=1)])
    assert math.isnan(joined.std[2])
    # 95 % of Student's t with 2 degrees of freedom lie within 4.303.
    low, high = np.percentile(joined.draws[:, 0], [2.5, 97.5])
    assert (high - low) / 2 == pytest.approx(4.303 * 0.04 / math.sqrt(3), rel=0.08)


def test_one_seed_adds_nothing_to_the_images() -> None:
    points, resamples = np.array([[0.3]]), np.array([[[0.1], [0.2]]])
    joined = method_draws(points, resamples, seed=0, key="a")
    np.testing.assert_array_equal(joined.draws, resamples[0])
    assert math.isnan(joined.std[0])


def test_seeds_of_two_methods_vary_independently() -> None:
    points, resamples = np.array([[0.3], [0.4]]), np.zeros((2, 3000, 1))
    one, two, again = (method_draws(points, resamples, seed=0, key=key).draws[:, 0] for key in "aba")
    np.testing.assert_array_equal(one, again)
    assert abs(np.corrcoef(np.sign(one), np.sign(two))[0, 1]) < 0.06


def simulated_coverage(seeds: int, *, seed_noise: float, trials: int, images: int = 80) -> float:
    """How often the interval of two equally good methods holds the truth, which is 0.

    Every network has an ability (its seed's), every image a hardness for all and a taste for each method.
    """
    rng = np.random.default_rng(7)
    pixels, hits = 400, 0
    for _ in range(trials):
        hardness = rng.normal(0, 0.6, images)
        methods = []
        for name in "ab":
            taste = rng.normal(0, 0.3, images)
            ability = rng.normal(0, seed_noise, (seeds, 1))
            chance = 1 / (1 + np.exp(-(1 + hardness + taste + ability)))
            right = rng.binomial(pixels, chance)
            wrong = pixels - right
            methods.append((name, np.stack([right, right + wrong, right], axis=2)[..., None]))
        flat = [each for _, counts in methods for each in counts]
        many = resampled(flat, resamples=400, seed=0, absent="present")
        joined = []
        for place, (name, counts) in enumerate(methods):
            own = np.stack(many[place * seeds : (place + 1) * seeds])
            points = np.stack([scores(each.sum(0), "present") for each in counts])
            joined.append(method_draws(points, own, seed=0, key=name))
        miou, *_ = differences(joined[0], joined[1], confidence=95, images=80)
        hits += miou.low <= 0 <= miou.high
    return hits / trials


def test_one_image_has_no_interval_and_few_claim_nothing() -> None:
    rng = np.random.default_rng(0)
    labelled = rng.integers(50, 99, (12, 1, 2))
    right = np.concatenate([labelled, labelled, labelled], axis=1)
    less = np.concatenate([labelled // 4, labelled, labelled], axis=1)
    pair = drawn(right, less)
    for images, has_interval, claims in ((1, False, False), (9, True, False), (10, True, True)):
        miou, *_ = differences(*pair, confidence=95, images=images)
        assert miou.delta > 0.5
        assert math.isfinite(miou.low) is math.isfinite(miou.high) is has_interval
        assert miou.beyond_noise is claims
    each = differences(*pair, confidence=95, images=np.array([12, 12, 1]))
    assert [interval.images for interval in each] == [12, 12, 1]
    assert [interval.beyond_noise for interval in each] == [True, True, False]


@pytest.mark.slow
@pytest.mark.parametrize(("images", "least", "most"), [(1, 0, 0.1), (5, 0.7, 0.88), (20, 0.9, 0.97)])
def test_intervals_of_few_images_are_as_bad_as_they_are_said_to_be(
    images: int, least: float, most: float
) -> None:
    assert least <= simulated_coverage(1, seed_noise=0, trials=400, images=images) <= most


@pytest.mark.slow
def test_intervals_of_single_networks_hold_the_truth_as_often_as_they_say() -> None:
    assert 0.91 <= simulated_coverage(1, seed_noise=0, trials=600) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("seed_noise", [0.02, 0.2])
def test_intervals_of_several_seeds_never_claim_too_much(seeds: int, seed_noise: float) -> None:
    assert simulated_coverage(seeds, seed_noise=seed_noise, trials=300) >= 0.93


@pytest.mark.slow
def test_intervals_of_one_seed_do_not_know_of_others() -> None:
    """The warning that goes with them is true: where seeds differ, they hold the truth far too rarely."""
    assert simulated_coverage(1, seed_noise=0.2, trials=300) < 0.6
