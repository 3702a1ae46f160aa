"""The table of datasets, free of torch and numpy.

To add one: a file that defines a `Layout`, a line here, a test.
"""

from __future__ import annotations

import difflib

from hwdkit.datasets.ade20k import ADE20K
from hwdkit.datasets.camvid import CAMVID
from hwdkit.datasets.cityscapes import CITYSCAPES
from hwdkit.datasets.coco_stuff import COCO_STUFF_10K, COCO_STUFF_164K, COCO_STUFF_164K_182
from hwdkit.datasets.layout import Layout
from hwdkit.datasets.scenes import SCENES
from hwdkit.datasets.voc import VOC_AUG
from hwdkit.errors import DataError

DATASETS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        ADE20K,
        CAMVID,
        CITYSCAPES,
        COCO_STUFF_10K,
        COCO_STUFF_164K,
        COCO_STUFF_164K_182,
        SCENES,
        VOC_AUG,
    )
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
