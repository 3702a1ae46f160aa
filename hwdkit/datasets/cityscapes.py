"""Cityscapes, fine annotations: 19 evaluated classes of street scenes, from the `labelIds` files."""

from __future__ import annotations

from pathlib import Path

from hwdkit.datasets.layout import Layout, SplitFiles, files_in
from hwdkit.types import IGNORE

CLASSES: dict[str, tuple[int, tuple[int, int, int]]] = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
"""Name -> (id in the labelIds files, colour), in class order."""

NOT_EVALUATED: dict[str, int] = {
    "license plate": -1,
    "unlabeled": 0,
    "ego vehicle": 1,
    "rectification border": 2,
    "out of roi": 3,
    "static": 4,
    "dynamic": 5,
    "ground": 6,
    "parking": 9,
    "rail track": 10,
    "guard rail": 14,
    "bridge": 15,
    "tunnel": 16,
    "polegroup": 18,
    "caravan": 29,
    "trailer": 30,
    "license plate, stored in 8 bits": 255,
}
"""Name -> id of everything that the benchmark does not score."""


def list_files(root: Path) -> dict[str, SplitFiles]:
    """Find images and labels city by city; the test split, whose labels are blank, only if it has both."""
    listed = {
        split: SplitFiles(
            files_in(root, f"leftImg8bit/{split}", "_leftImg8bit.png"),
            files_in(root, f"gtFine/{split}", "_gtFine_labelIds.png"),
        )
        for split in ("train", "val", "test")
    }
    return {split: files for split, files in listed.items() if split != "test" or all(files)}


CITYSCAPES = Layout(
    name="cityscapes",
    classes=tuple(CLASSES),
    palette=tuple(colour for _, colour in CLASSES.values()),
    label_map={
        **dict.fromkeys(NOT_EVALUATED.values(), IGNORE),
        **{raw: index for index, (raw, _) in enumerate(CLASSES.values())},
    },
    published={"train": 2975, "val": 500, "test": 1525},
    optional=("test",),
    inner_folders=("cityscapes", "Cityscapes"),
    must_have=("leftImg8bit/train", "leftImg8bit/val", "gtFine/train", "gtFine/val"),
    expected=(
        "leftImg8bit/{train,val}/CITY/*_leftImg8bit.png\n"
        "gtFine/{train,val}/CITY/*_gtFine_labelIds.png      (both folders beside each other)\n"
        "test is optional: its labels are withheld, it is there to be predicted"
    ),
    how_to_get=(
        "Cityscapes needs an account: sign in at https://www.cityscapes-dataset.com/downloads, download "
        "leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip (241 MB), "
        "and unpack both into one folder."
    ),
    licence="Cityscapes terms of use: research, teaching, non-commercial; no redistribution.",
    list_files=list_files,
)
