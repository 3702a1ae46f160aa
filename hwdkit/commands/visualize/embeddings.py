"""hwdkit visualize embeddings: t-SNE of the features of a few pixels of every class."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from hwdkit.commands.visualize import Embeddings, figure
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.errors import DataError, UsageError
from hwdkit.measure.embeddings import Embedding, Sample, embedded, require_sklearn, sampled, usable_perplexity
from hwdkit.report.render import fixed
from hwdkit.report.table import Table
from hwdkit.terminal import values

log = logging.getLogger("hwdkit")

MOST_CLASSES = 20
"""Drawn without --classes; colours of more cannot be told apart."""

MOST_PIXELS = 20_000
LEAST_PIXELS = 7


def run(options: Embeddings) -> tuple[dict[str, Any], bytes]:
    """The figure, and the sample, every network's points, and its silhouette."""
    require_sklearn()
    opened = figure.opened(options, limit=options.limit, workers=options.workers)
    index = opened.images.index
    names = values.classes(options.classes or (), index.classes) or _largest(opened.images.dataset)
    if options.per_class * len(names) > MOST_PIXELS:
        raise UsageError(
            f"--per-class {options.per_class} of {len(names)} classes is more than {MOST_PIXELS} pixels",
            hint=f"--per-class {MOST_PIXELS // len(names)}, or fewer --classes",
        )
    with figure.working("sampling", opened.images.total) as advance:
        sample = sampled(
            opened.networks,
            opened.pairs(),
            classes=sorted({index.classes.index(name) for name in names}),
            per_class=options.per_class,
            seed=options.seed,
            advance=advance,
        )
    if len(sample.classes) < LEAST_PIXELS:
        raise DataError(
            f"{len(sample.classes)} labelled pixels of these classes; t-SNE needs {LEAST_PIXELS} at least",
            hint="more images (--limit), more --classes or a larger --per-class",
        )
    points = _embedded(sample, options)
    from hwdkit.report.plots.embeddings import embeddings

    content = embeddings(
        points, sample.classes, classes=index.classes, palette=index.palette, form=options.suffix
    )
    settings = {
        "seed": options.seed,
        "perplexity": usable_perplexity(options.perplexity, len(sample.classes)),
        "pca": options.pca,
        "images": opened.images.total,
    }
    return {**opened.facts(), **settings, **_document(sample, points, index.classes)}, content


def render(result: dict[str, Any]) -> tuple[Table, str]:
    """The silhouettes."""
    rows = (
        (name, str(one["features"]), fixed(one["silhouette"], 4))
        for name, one in result["embeddings"].items()
    )
    table = Table(["network", "features", "silhouette"], rows)
    return table, f"{len(result['pixels'])} pixels of {len(result['pixels_per_class'])} classes: "


def _embedded(sample: Sample, options: Embeddings) -> dict[str, Embedding]:
    result = {}
    with figure.working("t-SNE", len(sample.features)) as advance:
        for done, (name, features) in enumerate(sample.features.items(), 1):
            log.info("t-SNE of %s: %d pixels, %d features", name, *features.shape)
            result[name] = embedded(
                features,
                sample.classes,
                perplexity=options.perplexity,
                pca=options.pca,
                seed=options.seed,
            )
            advance(done)
    return result


def _largest(dataset: SegmentationDataset) -> tuple[str, ...]:
    """The classes with the most pixels in the split."""
    pixels, names = dataset.index.statistics[dataset.split].pixels, dataset.index.classes
    order = sorted((c for c in range(len(names)) if pixels[c]), key=lambda c: -pixels[c])
    if len(order) > MOST_CLASSES:
        log.info("the %d largest of %d classes; choose others with --classes", MOST_CLASSES, len(order))
    return tuple(names[c] for c in order[:MOST_CLASSES])


def _document(sample: Sample, points: dict[str, Embedding], classes: tuple[str, ...]) -> dict[str, Any]:
    counts = Counter(sample.classes.tolist())
    pixels = zip(sample.classes.tolist(), sample.images.tolist(), sample.places.tolist(), strict=True)
    return {
        "pixels_per_class": {classes[c]: counts[c] for c in sorted(counts)},
        "pixels": [
            {"class": classes[c], "image": image, "row": row, "column": column}
            for c, image, (row, column) in pixels
        ],
        "embeddings": {
            name: {
                "features": sample.features[name].shape[1],
                "silhouette": one.silhouette,
                "points": one.points.tolist(),
            }
            for name, one in points.items()
        },
    }
