"""The table of datasets. To add one: a file that defines a `Layout`, a line here, a test."""

from __future__ import annotations

import difflib

from hwdkit.data.ade20k import ADE20K
from hwdkit.data.camvid import CAMVID
from hwdkit.data.cityscapes import CITYSCAPES
from hwdkit.data.coco_stuff import COCO_STUFF_10K, COCO_STUFF_164K, COCO_STUFF_164K_182
from hwdkit.data.generate import SCENES
from hwdkit.data.layout import Layout
from hwdkit.data.voc import VOC_AUG
from hwdkit.errors import DataError

DATASETS: dict[str, Layout] = {
    "ade20k": ADE20K,
    "camvid": CAMVID,
    "cityscapes": CITYSCAPES,
    "coco-stuff-10k": COCO_STUFF_10K,
    "coco-stuff-164k": COCO_STUFF_164K,
    "coco-stuff-164k-182": COCO_STUFF_164K_182,
    "scenes": SCENES,
    "voc-aug": VOC_AUG,
}


def layout_of(name: str) -> Layout:
    """Look a dataset up by name.

    Raises:
        DataError: unknown; lists the known ones.
    """
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        guess = f"Did you mean {close[0]!r}? " if close else ""
        raise DataError(f"unknown dataset {name!r}", hint=f"{guess}hwdkit knows {', '.join(DATASETS)}.")
    return DATASETS[name]
