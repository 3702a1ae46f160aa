"""How sure a difference of two mIoU is: images resampled in pairs, seeds by Student's t.

IoU of a split is a ratio of sums over its images, so three counts an image and class are all that a resample
needs: intersection, labelled and predicted pixels. Nothing is approximated; the sums are exact in float64.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwdkit.recipe.protocol import Absent

Counts = NDArray[np.int64]
"""(images, 3, C): intersection, labelled and predicted pixels, of the pixels that are labelled at all."""

Floats = NDArray[np.float64]

IMAGES, SEEDS = 0, 1
"""Spawn keys: two independent families of random numbers under one seed."""

BUDGET = 2**27
"""Bytes that the weights and sums of one chunk of resamples may take."""

FEW = 10
"""Below so many images an interval holds the truth far too rarely (docs/compare.md): it claims nothing."""


@dataclass(frozen=True)
class Draws:
    """mIoU and class IoU of one method, as measured and as they might have been.

    Attributes:
        point: (1 + C,) mean over the seeds: mIoU, then each class; NaN for what never occurs.
        std: (1 + C,) over the seeds, with n - 1; NaN for fewer than two.
        draws: (resamples, 1 + C) the same under resampled images, and seeds where there are several.
        seeds: how many trained networks the method has.
    """

    point: Floats
    std: Floats
    draws: Floats
    seeds: int


@dataclass(frozen=True)
class Interval:
    """A difference of two scores in 0..1 and the percentile interval of its resamples; NaN where unknown.

    `images`: how many it rests on, of those with a labelled pixel. One image has no interval.
    """

    delta: float
    low: float
    high: float
    images: int

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval leaves out 0, and rests on images enough to mean something."""
        return self.images >= FEW and (self.low > 0 or self.high < 0)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "beyond_noise": self.beyond_noise}


def scores(totals: Floats | Counts, absent: Absent) -> Floats:
    """mIoU and class IoU of summed counts, as `metrics.ConfusionMatrix` defines them.

    Args:
        totals: (..., 3, C) sums over images.

    Returns:
        (..., 1 + C): mIoU, then IoU of each class, NaN for one neither labelled nor predicted.
    """
    intersection = totals[..., 0, :].astype(np.float64)
    union = totals[..., 1, :] + totals[..., 2, :] - intersection
    iou = np.divide(intersection, union, out=np.full_like(intersection, np.nan), where=union > 0)
    mean = np.nan_to_num(iou).mean(-1) if absent == "paper" else mean_of_known(iou, axis=-1)
    return np.concatenate([mean[..., None], iou], axis=-1)


def resampled(
    counts: Sequence[Counts], *, resamples: int, seed: int, absent: Absent, budget: int = BUDGET
) -> list[Floats]:
    """Scores of several networks under the same resamples of the same images: (B, 1 + C) each.

    Each resample draws as many images as there are, with replacement, once for all networks: what makes an
    image hard for all of them cancels in their differences. A network's answer does not depend on the others.
    The same seed gives the same numbers on any machine, for any `budget` of bytes for a chunk of resamples.
    """
    images, _, classes = counts[0].shape
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(IMAGES,)))
    flat = [each.reshape(images, -1).astype(np.float64) for each in counts]
    drawn = [np.empty((resamples, 1 + classes)) for _ in counts]
    rows = max(1, budget // (8 * (2 * images + 9 * classes)))
    for begin in range(0, resamples, rows):
        end = min(resamples, begin + rows)
        weights = image_weights(end - begin, images, rng).astype(np.float64)
        for target, values in zip(drawn, flat, strict=True):
            # Whole numbers far below 2**53: the product is exact, whatever the order of its sums.
            target[begin:end] = scores((weights @ values).reshape(-1, 3, classes), absent)
    return drawn


def image_weights(resamples: int, images: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each image is drawn: (resamples, images), every row a multinomial that sums to `images`."""
    drawn = rng.integers(0, images, size=(resamples, images))
    drawn += np.arange(resamples)[:, None] * images
    return np.bincount(drawn.ravel(), minlength=resamples * images).reshape(resamples, images)


def method_draws(points: Floats, resamples: Floats, *, seed: int, key: str) -> Draws:
    """Join the seeds of one method: their mean, and how uncertain it is.

    The images' part is the mean over the seeds of every resample. On top of it, where there are k > 1 seeds,
    comes T * s / sqrt(k), s being their standard deviation and T a draw of Student's t with k - 1 degrees of
    freedom, one a resample: what is left unknown of a mean of k runs. Resampling k seeds instead would
    understate it: with two of them the interval misses the truth in 32 % of cases (docs/compare.md).

    Args:
        points: (k, 1 + C) scores of every seed.
        resamples: (k, B, 1 + C) the same under resampled images.
        seed: of the random numbers.
        key: names the method, so that its T does not depend on what else is compared.
    """
    seeds = len(points)
    point = mean_of_known(points, axis=0)
    draws = mean_of_known(resamples, axis=0)
    std = np.full_like(point, np.nan)
    if seeds > 1:
        known = np.isfinite(points).sum(0)
        squares = np.where(np.isfinite(points), (points - point) ** 2, 0.0).sum(0)
        std = np.sqrt(np.divide(squares, known - 1, out=std, where=known > 1))
        word = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SEEDS, word)))
        t = rng.standard_t(seeds - 1, size=len(draws))
        draws = draws + t[:, None] * np.nan_to_num(std) / np.sqrt(seeds)
    return Draws(point, std, draws, seeds)


def differences(
    method: Draws, other: Draws, *, confidence: float, images: int | NDArray[np.int64]
) -> list[Interval]:
    """One method minus another: mIoU, then each class.

    Args:
        method, other: over the same resamples of the same images.
        confidence: in percent; the interval spans that share of the resamples, the rest half on each side.
            Resamples in which one of the two has no IoU of a class are left out of that class's interval.
        images: how many have labelled pixels: of any class, then of each; or one number for all.
    """
    tail = (100 - confidence) / 2
    intervals = []
    deltas, draws = method.point - other.point, (method.draws - other.draws).T
    for delta, column, count in zip(deltas, draws, np.broadcast_to(images, deltas.shape), strict=True):
        finite = column[np.isfinite(column)]
        ends = np.full(2, np.nan)
        if np.isfinite(delta) and len(finite) and count > 1:
            ends = np.percentile(finite, [tail, 100 - tail])
        intervals.append(Interval(float(delta), float(ends[0]), float(ends[1]), int(count)))
    return intervals


def mean_of_known(values: Floats, *, axis: int) -> Floats:
    """The mean of what is not NaN; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis)
    total = np.where(known, values, 0.0).sum(axis)
    mean: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean
