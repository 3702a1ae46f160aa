"""From each dataset's own layout on disk to a trained and evaluated network, through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_runs import SMALL, hwdkit
from tiny_trees import coco_stuff_10k, coco_stuff_164k, ids, sbd, voc2012, write_pair

from hwdkit.datasets.table import DATASETS

RECIPE = f"""
data: {{dataset: NAME, crop: [32, 32], workers: 0}}
student: {{backbone: resnet18, backbone_options: {SMALL}, head_channels: 8}}
train: {{iterations: 10, batch_size: 2, log_every: 5}}
"""


def ade20k(root: Path) -> None:
    for split in ("training", "validation"):
        for i in range(2):
            stem = f"ADE_{split[:3]}_{i}"
            image, label = (root / kind / split / stem for kind in ("images", "annotations"))
            write_pair(image.with_suffix(".jpg"), label.with_suffix(".png"), ids(0, 1, 75, 150))


def cityscapes(root: Path) -> None:
    for split, city in (("train", "aachen"), ("val", "munster")):
        for i in range(2):
            stem = f"{split}/{city}/{city}_00000{i}_000019"
            image = root / "leftImg8bit" / f"{stem}_leftImg8bit.png"
            write_pair(image, root / "gtFine" / f"{stem}_gtFine_labelIds.png", ids(0, 7, 26, 33))


def camvid(root: Path) -> None:
    for split in ("train", "val"):
        for i in range(2):
            write_pair(root / split / f"{i}.png", root / f"{split}annot" / f"{i}.png", ids(0, 3, 10, 11))


def voc_aug(root: Path) -> None:
    sbd(voc2012(root))


TREES: dict[str, Callable[[Path], object]] = {
    "ade20k": ade20k,
    "camvid": camvid,
    "cityscapes": cityscapes,
    "coco-stuff-10k": coco_stuff_10k,
    "coco-stuff-164k": coco_stuff_164k,
    "coco-stuff-164k-182": coco_stuff_164k,
    "voc-aug": voc_aug,
}


def test_no_dataset_is_forgotten() -> None:
    assert {*TREES, "scenes"} == set(DATASETS)  # scenes is trained on by most tests of commands


@pytest.mark.parametrize("name", TREES)
def test_a_dataset_as_it_is_downloaded_can_be_prepared_cached_trained_on_and_evaluated(
    name: str, tmp_path: Path
) -> None:
    TREES[name](tmp_path / "downloaded")
    where = ("--data-root", tmp_path / "data", "--quiet")
    source = ("--source", tmp_path / "downloaded")
    refused = hwdkit("prepare-data", name, *source, *where)
    assert refused.code == 4
    assert "published" in refused.err
    prepared = hwdkit("prepare-data", name, *source, *where, "--allow-partial", "--cache", "--json")
    assert prepared.code == 0, prepared.err
    assert prepared.document["partial"] is True
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("NAME", name))
    run = ("--recipe", tmp_path / "tiny.yaml", "--out", tmp_path / "run", "--gpus", 0, "--json")
    trained = hwdkit("distill", *run, *where)
    assert trained.code == 0, trained.err
    evaluated = hwdkit("evaluate", "--checkpoint", tmp_path / "run", "--gpus", 0, "--json", *where)
    assert evaluated.code == 0, evaluated.err
    assert 0 <= evaluated.document["miou"] <= 1
