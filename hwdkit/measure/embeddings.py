"""Features of single pixels: a sample balanced over the classes, its t-SNE, and how far apart they are.

HWD (Sun et al., ICME 2023), Fig. 5. The home of scikit-learn (extra `tsne`); `plots/embeddings.py` draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwdkit.engine.opened import NamedNetwork
from hwdkit.errors import EnvironmentFailure
from hwdkit.losses.labels import small_label

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """Pixels, the same for every network.

    Attributes:
        classes: (P,) class index.
        images: (P,) index of the image in the split.
        places: (P, 2) row and column in the image.
        features: network -> (P, E) features before the classifier.
    """

    classes: NDArray[np.int64]
    images: NDArray[np.int64]
    places: NDArray[np.int64]
    features: dict[str, Features]


@dataclass(frozen=True)
class Embedding:
    """One network's sample in two dimensions.

    Attributes:
        points: (P, 2).
        silhouette: mean over the pixels of (b - a) / max(a, b), a the mean distance to the own class and b to
            the nearest other class; of the features themselves, not of the points; in -1..1. None with fewer
            than two classes.
    """

    points: Features
    silhouette: float | None


def require_sklearn() -> Any:
    """scikit-learn, which the extra `tsne` brings.

    Raises:
        EnvironmentFailure: it is not installed, or cannot be loaded.
    """
    try:
        import sklearn
        import sklearn.decomposition
        import sklearn.manifold
        import sklearn.metrics
    except ImportError as error:
        raise EnvironmentFailure(
            f"t-SNE needs scikit-learn ({error})", hint="pip install 'hwdkit[tsne]'"
        ) from error
    return sklearn


@torch.no_grad()
def sampled(
    networks: Sequence[NamedNetwork],
    pairs: Iterable[tuple[int, Tensor, Tensor]],
    *,
    classes: Sequence[int],
    per_class: int,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Sample:
    """Draw up to `per_class` pixels of every class, each pixel of the split as likely as any other of it.

    Candidates are the positions of the smallest map among the networks, labelled by nearest as in training.
    The draw depends on the seed and the image's index alone. Memory grows with the sample only.

    Args:
        networks: in eval mode.
        pairs: (index, image (3, H, W) uint8, label (H, W) int64), on the networks' device.
        advance: called with the number of images done.

    Returns:
        Sorted by class, then image, then place.
    """
    kept: dict[int, list[_Pixel]] = {c: [] for c in classes}
    for done, (index, image, label) in enumerate(pairs, 1):
        outputs = {network.name: network.model(image[None], ("embedding",)) for network in networks}
        maps = {name: output.taps["embedding"][0].float() for name, output in outputs.items()}
        size = min(((one.shape[1], one.shape[2]) for one in maps.values()), key=math.prod)
        small = small_label(label[None], size)[0].cpu().numpy()
        keys = np.random.default_rng(np.random.SeedSequence([seed, index])).random(small.shape)
        for c in classes:
            highest = kept[c][-1].key if len(kept[c]) == per_class else math.inf
            cells = np.argwhere((small == c) & (keys < highest))
            cells = cells[np.argsort(keys[tuple(cells.T)])[:per_class]]
            features = {name: _at(one, cells, size) for name, one in maps.items()}
            for i, (row, column) in enumerate(cells.tolist()):
                place = (row * label.shape[0] // size[0], column * label.shape[1] // size[1])
                vectors = {name: of_cells[i] for name, of_cells in features.items()}
                kept[c].append(_Pixel(keys[row, column], index, place, vectors))
            kept[c] = sorted(kept[c], key=lambda pixel: pixel[:2])[:per_class]
        advance(done)
    ordered = [
        (c, pixel) for c in sorted(kept) for pixel in sorted(kept[c], key=lambda of: (of.image, of.place))
    ]
    return Sample(
        classes=np.array([c for c, _ in ordered], np.int64),
        images=np.array([pixel.image for _, pixel in ordered], np.int64),
        places=np.array([pixel.place for _, pixel in ordered], np.int64).reshape(-1, 2),
        features={
            network.name: np.array([pixel.features[network.name] for _, pixel in ordered], np.float32)
            for network in networks
        },
    )


def embedded(
    features: Features, classes: NDArray[np.int64], *, perplexity: float, pca: int, seed: int
) -> Embedding:
    """t-SNE of one network's features, after PCA; the same seed gives the same points.

    Args:
        features: (P, E), P at least 7.
        classes: (P,).
        perplexity: lowered to (P - 1) / 3 where there are few pixels, as t-SNE's neighbourhoods need.
        pca: dimensions that t-SNE starts from; fewer where E or P is smaller.
    """
    sklearn = require_sklearn()
    dimensions = min(pca, *features.shape)
    reduced = sklearn.decomposition.PCA(dimensions, svd_solver="full").fit_transform(
        features.astype(np.float64)
    )
    tsne = sklearn.manifold.TSNE(
        2, perplexity=usable_perplexity(perplexity, len(features)), init="pca", random_state=seed, n_jobs=1
    )
    points = tsne.fit_transform(reduced)
    several = 2 <= len(np.unique(classes)) < len(classes)
    silhouette = float(sklearn.metrics.silhouette_score(features, classes)) if several else None
    return Embedding(points.astype(np.float32), silhouette)


def usable_perplexity(perplexity: float, pixels: int) -> float:
    """The perplexity that so many pixels allow."""
    return min(perplexity, (pixels - 1) / 3)


class _Pixel(NamedTuple):
    key: float
    image: int
    place: tuple[int, int]
    features: dict[str, Features]


def _at(maps: Tensor, cells: NDArray[np.int64], size: tuple[int, int]) -> Features:
    """Features at the centres of cells of a grid of `size`: (E, h, w), (n, 2) -> (n, E)."""
    rows, columns = (
        torch.from_numpy((2 * cells[:, axis] + 1) * maps.shape[1 + axis] // (2 * size[axis]))
        for axis in (0, 1)
    )
    features: Features = maps[:, rows.to(maps.device), columns.to(maps.device)].T.cpu().numpy()
    return features
