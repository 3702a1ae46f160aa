"""Tiny datasets in the exact on-disk layout of the real ones, made on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from tiny_trees import ids, write_pair


@pytest.fixture
def ade20k(tmp_path: Path) -> Path:
    """The folder around ADEChallengeData2016: 3 training and 2 validation pairs."""
    root = tmp_path / "downloads" / "ADEChallengeData2016"
    for folder, count in (("training", 3), ("validation", 2)):
        name = {"training": "ADE_train", "validation": "ADE_val"}[folder]
        for i in range(1, count + 1):
            stem = f"{name}_{i:08d}"
            write_pair(
                root / "images" / folder / f"{stem}.jpg",
                root / "annotations" / folder / f"{stem}.png",
                ids(0, 1, 150),
            )
    return root.parent


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    """The folder with leftImg8bit and gtFine: 2 cities, 3 train pairs, 1 val, a test image without label."""
    root = tmp_path / "cityscapes-download"
    frames = [
        ("train", "aachen", "aachen_000000_000019"),
        ("train", "aachen", "aachen_000001_000019"),
        ("train", "ulm", "ulm_000000_000019"),
        ("val", "munster", "munster_000000_000019"),
    ]
    for split, city, stem in frames:
        ground_truth = root / "gtFine" / split / city
        write_pair(
            root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png",
            ground_truth / f"{stem}_gtFine_labelIds.png",
            ids(0, 7, 33, 4),
        )
        # The other files of the gtFine archive lie in the same folders.
        Image.new("RGBA", (16, 12)).save(ground_truth / f"{stem}_gtFine_color.png")
        (ground_truth / f"{stem}_gtFine_polygons.json").write_text("{}")
    image = root / "leftImg8bit" / "test" / "berlin" / "berlin_000000_000019_leftImg8bit.png"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (16, 12)).save(image)
    return root


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """The folder with images and labels: 5 train and 2 val pairs."""
    root = tmp_path / "camvid-pack"
    for split, count in (("train", 5), ("val", 2)):
        for i in range(count):
            stem = f"0001TP_{split}_{i:06d}"
            label = root / "labels" / split / f"{stem}.png"
            write_pair(root / "images" / split / f"{stem}.jpg", label, ids(0, 10, 255, 3))
    return root
