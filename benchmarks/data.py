"""Training crops per second and core: the papers' way, ours with decoding, and ours from the cache.

The papers' way decodes a pair, resizes all of it and cuts a crop out of that; it is written here with Pillow
and torch from that description, on uint8; once more with the normalisation in float64 of their code, beside
ours with the network's. Counts CPU time of one thread with the files in memory, and interleaves the ways, so
that a busy machine slows all alike.

    python benchmarks/data.py --rounds 5 --out benchmarks/results/MACHINE-COMMIT-data.json
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from goals import Row, show, time_row
from measurement import begin, parser
from PIL import Image
from torch import Tensor

from hwdkit import scenes
from hwdkit.data.cache import cache_for
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.index import DatasetIndex, Pair, SplitStatistics
from hwdkit.data.stream import sample_rng
from hwdkit.data.transforms import PAD_COLOUR, augment
from hwdkit.datasets.scenes import CLASSES, PALETTE
from hwdkit.recipe.schema import PAPER_SCALES
from hwdkit.types import IGNORE

CROP, FLIP = (512, 512), 0.5
PLAIN, DECODED, CACHED = "plain", "decoded", "cached"
PLAIN_FLOATS, DECODED_FLOATS = "plain, normalised", "decoded, normalised"
"""Also normalised: in float64 on all of the image, as the papers' code does, or in float32 on the crop."""

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
GOALS = {
    ("cityscapes", DECODED): 2.0,
    ("ade20k", DECODED): 3.0,
    ("ade20k", DECODED_FLOATS): 3.0,  # the papers' code normalises: this is what it does for a sample
    ("cityscapes", CACHED): 50.0,
}
FLOORS = {"cityscapes": "decoding PNG: 2 to 3 times (study)", "ade20k": "decoding JPEG: ~4 times (study)"}

Crop = Callable[[int, int], tuple[Tensor, Tensor]]
"""(sample number, index of the pair) -> image and label of one training crop."""


class Kind(NamedTuple):
    """What the files of a dataset are like."""

    size: tuple[int, int]
    suffix: str
    options: dict[str, Any]
    noise: float  # grey levels; as much as makes a drawn PNG weigh what a photographed one does


KINDS = {
    "cityscapes": Kind((1024, 2048), ".png", {"compress_level": 6}, 0.5),
    "ade20k": Kind((512, 683), ".jpg", {"quality": 90}, 6.0),
}


def main() -> None:
    arguments = parse()
    begin(arguments)
    rows: list[Row] = []
    more: dict[str, Any] = {"crop": CROP}
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in KINDS.items():
            index = draw(name, kind, Path(folder) / name, arguments.images)
            ways = ways_to_crop(index)
            more[name] = {
                "file_mb": round(mean_size(index) / 1e6, 2),
                "crops": compare(ways, arguments.images),
            }
            times = measure(ways, arguments)
            more[name]["images_per_s_core"] = {
                way: round(1000 / statistics.median(of), 1) for way, of in times.items()
            }
            rows += rows_of(name, times, quick=arguments.quick)
    show(rows, arguments, **more)


def rows_of(name: str, times: dict[str, list[float]], *, quick: bool) -> list[Row]:
    """Each way of ours beside the plain one that delivers the same."""
    pairs = [(DECODED, PLAIN), (DECODED_FLOATS, PLAIN_FLOATS), (CACHED, PLAIN)]
    return [
        time_row(
            f"one sample, {name}-sized, {ours}",
            times,
            ours=ours,
            plain=plain,
            least=None if quick else GOALS.get((name, ours)),
            floor=FLOORS[name] if ours != CACHED else "",
        )
        for ours, plain in pairs
    ]


def draw(name: str, kind: Kind, root: Path, images: int) -> DatasetIndex:
    """Write a dataset of enlarged scenes with a photograph's noise, as files of the given kind."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    height, width = kind.size
    pairs, counts = [], np.zeros(256, np.int64)
    for i in range(images):
        small, classes = scenes.render(0, i, size=(height // 4, width // 4))
        large = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
        noisy = large + rng.normal(0, kind.noise, large.shape)
        image = Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))
        image.save(root / f"{i}{kind.suffix}", **kind.options)
        label = Image.fromarray(classes).resize((width, height), Image.Resampling.NEAREST)
        label.save(root / f"{i}_label.png")
        pairs.append(Pair(f"{i}{kind.suffix}", f"{i}_label.png", height, width))
        counts += np.bincount(np.asarray(label).ravel(), minlength=256)
    known = len(CLASSES)
    found = SplitStatistics(
        images=images,
        pixels=tuple(int(count) for count in counts[:known]),
        ignored=int(counts[IGNORE]),
        raw_ids={int(raw): int(counts[raw]) for raw in np.flatnonzero(counts)},
    )
    return DatasetIndex(
        name=name,
        classes=CLASSES,
        palette=PALETTE,
        label_map={**{raw: raw for raw in range(known)}, IGNORE: IGNORE},
        splits={"train": tuple(pairs)},
        root=root,
        statistics={"train": found},
        fingerprint=name,
    )


def ways_to_crop(index: DatasetIndex) -> dict[str, Crop]:
    """The three ways, each with the random numbers that training gives the sample."""
    decoding = SegmentationDataset(index, "train")
    cache_for(index, index.root, workers=1)
    cached = SegmentationDataset(dataclasses.replace(index, folder=index.root), "train")
    assert cached.cached
    return {
        PLAIN: plain(index),
        PLAIN_FLOATS: plain(index, normalised=True),
        DECODED: ours(decoding),
        DECODED_FLOATS: ours(decoding, normalised=True),
        CACHED: ours(cached),
    }


def ours(dataset: SegmentationDataset, *, normalised: bool = False) -> Crop:
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))

    def crop(sample: int, i: int) -> tuple[Tensor, Tensor]:
        image, label = dataset.open(i)
        cut = augment(image, label, rng=sample_rng(0, sample), crop=CROP, scales=PAPER_SCALES, flip=FLIP)
        return ((cut[0] - mean) / std, cut[1]) if normalised else cut

    return crop


def plain(index: DatasetIndex, *, normalised: bool = False) -> Crop:
    """Decode the pair, map its ids, resize all of it, normalise all of it if asked, pad, crop, flip."""
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (MEAN, STD))
    table = np.full(256, IGNORE, np.uint8)
    for raw, mapped in (index.label_map or {}).items():
        table[raw] = mapped

    def crop(sample: int, i: int) -> tuple[Tensor, Tensor]:
        pair, rng = index.splits["train"][i], sample_rng(0, sample)
        image = torch.from_numpy(np.array(Image.open(index.root / pair.image)))
        label = torch.from_numpy(table[np.array(Image.open(index.root / pair.label))])
        scale = PAPER_SCALES[int(rng.integers(len(PAPER_SCALES)))]
        at_y, at_x, flipped = rng.random(), rng.random(), rng.random() < FLIP
        options: dict[str, Any] = {"scale_factor": scale, "recompute_scale_factor": False}
        smooth = image.permute(2, 0, 1).contiguous()[None].float()
        smooth = F.interpolate(smooth, mode="bilinear", align_corners=False, **options)
        image = ((smooth[0] - mean) / std).float() if normalised else smooth[0].round_().to(torch.uint8)
        label = F.interpolate(label[None, None], mode="nearest", **options)[0, 0]
        height, width = label.shape
        if height < CROP[0] or width < CROP[1]:
            shape = max(height, CROP[0]), max(width, CROP[1])
            small, small_label = image, label
            colour = torch.zeros(3) if normalised else torch.tensor(PAD_COLOUR, dtype=torch.uint8)
            image = colour[:, None, None].repeat(1, *shape)
            label = torch.full(shape, IGNORE, dtype=torch.uint8)
            image[:, :height, :width], label[:height, :width] = small, small_label
        top = int(at_y * (label.shape[0] - CROP[0] + 1))
        left = int(at_x * (label.shape[1] - CROP[1] + 1))
        image = image[:, top : top + CROP[0], left : left + CROP[1]]
        label = label[top : top + CROP[0], left : left + CROP[1]]
        if flipped:
            image, label = image.flip(-1), label.flip(-1)
        return image.contiguous(), label.contiguous()

    return crop


def compare(ways: dict[str, Crop], images: int) -> dict[str, float]:
    """Check that all ways cut the same crops, and count the values one grey level off."""
    off = values = 0
    for sample in range(4 * images):
        expected, expected_label = ways[PLAIN](sample, sample % images)
        image, label = ways[DECODED](sample, sample % images)
        again, label_again = ways[CACHED](sample, sample % images)
        assert torch.equal(image, again)
        assert torch.equal(label, label_again)
        assert torch.equal(label, expected_label)
        difference = (image.int() - expected.int()).abs()
        assert difference.max() <= 1
        off, values = off + int((difference > 0).sum()), values + difference.numel()
    return {"labels_that_differ": 0, "values_off_by_one_level": off / values}


def measure(ways: dict[str, Crop], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of CPU time a sample for the same samples in every way, round by round."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(arguments.rounds):
        spent = dict.fromkeys(ways, 0.0)
        # As many samples as show every scale about once, whatever the number of files.
        for sample in range(turn * arguments.samples, (turn + 1) * arguments.samples):
            for name, crop in ways.items():
                began = time.process_time()
                crop(sample, sample % arguments.images)
                spent[name] += time.process_time() - began
        for name in ways:
            times[name].append(1000 * spent[name] / arguments.samples)
    return times


def mean_size(index: DatasetIndex) -> float:
    return statistics.mean((index.root / pair.image).stat().st_size for pair in index.splits["train"])


def parse() -> argparse.Namespace:
    options = parser(__doc__, rounds=5, quick="2 files, 2 crops, 1 round")
    options.add_argument("--images", type=int, default=8, help="files per kind")
    options.add_argument("--samples", type=int, default=48, help="crops per round")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.images, arguments.samples, arguments.rounds = 2, 2, 1
    return arguments


if __name__ == "__main__":
    main()
