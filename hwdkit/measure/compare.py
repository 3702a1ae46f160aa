"""Is the difference real? Counting what each network gets right, and putting methods and seeds together.

How intervals are computed is `bootstrap.py`, what comes out `comparison.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwdkit.engine.evaluate import predict
from hwdkit.measure.bootstrap import Counts, differences, method_draws, resampled, scores
from hwdkit.measure.comparison import Comparison, Difference, Method, Setting
from hwdkit.metrics import confusion
from hwdkit.models.segmenter import Segmenter
from hwdkit.recipe.protocol import Protocol


@torch.no_grad()
def image_counts(
    model: Segmenter,
    pairs: Iterable[tuple[int, Tensor, Tensor]],
    protocol: Protocol,
    *,
    images: int,
    advance: Callable[[int], None] = lambda done: None,
) -> Counts:
    """Count what a network gets right in every image, in the one way that `hwdkit evaluate` shows it images.

    Args:
        model: on its device; put into eval mode.
        pairs: (index, image (3, H, W) uint8, label (H, W)), each index of 0 .. images - 1 once.
        protocol: see `Protocol`.
        images: how many there are.
        advance: told how many are done.

    Returns:
        (images, 3, C): intersection, labelled and predicted pixels; ignored pixels count nowhere.
    """
    model.eval()
    device = next(model.parameters()).device
    counts = np.zeros((images, 3, model.spec.classes), dtype=np.int64)
    for done, (index, image, label) in enumerate(pairs, start=1):
        prediction = predict(model, image.to(device, non_blocking=True), protocol)
        matrix = confusion(label.to(device, non_blocking=True), prediction, model.spec.classes)
        counts[index] = torch.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)]).cpu().numpy()
        advance(done)
    return counts


def compare(methods: Sequence[Method], setting: Setting, *, all_pairs: bool = False) -> Comparison:
    """Put measured methods together.

    Args:
        methods: in the order to show them; at most one is the baseline.
        setting: what was measured, and how to resample.
        all_pairs: every pair, instead of each method against the baseline.
    """
    members = {member.digest: member for method in methods for member in method.members}
    drawn = resampled(
        [member.counts for member in members.values()],
        resamples=setting.resamples,
        seed=setting.seed,
        absent=setting.absent,
    )
    by_digest = dict(zip(members, drawn, strict=True))
    draws = {}
    for method in methods:
        digests = _digests(method)  # sorted: the order on the command line must not change a digit
        draws[method.name] = method_draws(
            np.stack([scores(members[digest].counts.sum(0), setting.absent) for digest in digests]),
            np.stack([by_digest[digest] for digest in digests]),
            seed=setting.seed,
            key=" ".join(digests),
        )
    found = []
    images = _labelled_images(methods)
    for ours, theirs in _pairs(methods, all_pairs):
        pair = draws[ours.name], draws[theirs.name]
        miou, *classes = differences(*pair, confidence=setting.confidence, images=images)
        seeds = (len(ours.members), len(theirs.members))
        same = _digests(ours) == _digests(theirs)
        found.append(Difference(ours.name, theirs.name, seeds, same, miou, tuple(classes)))
    return Comparison(setting, tuple(methods), draws, tuple(found), _share(methods))


def _pairs(methods: Sequence[Method], all_pairs: bool) -> Iterator[tuple[Method, Method]]:
    """Who is compared with whom: the later argument minus the earlier, and always minus the baseline."""
    base = next((method for method in methods if method.role == "baseline"), None)
    for other, method in itertools.combinations(methods, 2):
        if base in (other, method):
            yield (method, other) if other is base else (other, method)
        elif all_pairs:
            yield method, other


def _digests(method: Method) -> list[str]:
    return sorted(member.digest for member in method.members)


def _labelled_images(methods: Sequence[Method]) -> NDArray[np.int64]:
    """(1 + C,) how many images have a labelled pixel at all, and one of each class."""
    labelled = methods[0].members[0].counts[:, 1] > 0
    return np.concatenate([[labelled.any(1).sum()], labelled.sum(0)])


def _share(methods: Sequence[Method]) -> tuple[float, ...]:
    """Each class's share of the labelled pixels, 0..1; NaN if there are none."""
    labelled = methods[0].members[0].counts[:, 1].sum(0)
    total = int(labelled.sum())
    return tuple(int(count) / total if total else math.nan for count in labelled)
