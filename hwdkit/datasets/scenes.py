"""The synthetic street scenes: 12 of Cityscapes' classes, drawn by hwdkit itself.

What a scene looks like is `hwdkit.scenes`, and drawing the files `prepare/scenes.py`.
"""

from __future__ import annotations

from pathlib import Path

from hwdkit.datasets.layout import Layout, SplitFiles, files_in
from hwdkit.types import IGNORE

CLASSES: tuple[str, ...] = (
    "road",
    "sidewalk",
    "building",
    "fence",
    "pole",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "car",
    "bicycle",
)
"""In the order of the class numbers that `stage.py` paints with; a subset of Cityscapes' classes."""

PALETTE: tuple[tuple[int, int, int], ...] = (
    (128, 64, 128),
    (244, 35, 232),
    (70, 70, 70),
    (190, 153, 153),
    (153, 153, 153),
    (220, 220, 0),
    (107, 142, 35),
    (152, 251, 152),
    (70, 130, 180),
    (220, 20, 60),
    (0, 0, 142),
    (119, 11, 32),
)
"""Cityscapes' colours for the same classes."""


FIRST_SCENE = {"train": 0, "val": 1_000_000}
"""Number of a split's first scene: val stays the same set however many scenes train has."""


def list_files(root: Path) -> dict[str, SplitFiles]:
    """Find the drawn images and labels."""
    return {
        split: SplitFiles(
            files_in(root, f"images/{split}", ".png"), files_in(root, f"labels/{split}", ".png")
        )
        for split in FIRST_SCENE
    }


SCENES = Layout(
    name="scenes",
    classes=CLASSES,
    palette=PALETTE,
    label_map={**{raw: raw for raw in range(len(CLASSES))}, IGNORE: IGNORE},
    inner_folders=("scenes",),
    must_have=("images/train", "labels/train", "images/val", "labels/val"),
    expected="images/{train,val}/*.png and labels/{train,val}/*.png",
    how_to_get="scenes is drawn, not downloaded.",
    licence="Drawn by hwdkit; Apache-2.0 as hwdkit itself.",
    list_files=list_files,
)
