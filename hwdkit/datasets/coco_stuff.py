"""COCO-Stuff: things and stuff of everyday scenes, the full edition (164k) and the first (10k).

The class table is `tables/coco-stuff.csv`, after the authors' labels.txt. It numbers 182 classes, of which 11
were planned and never drawn: they have no index in the table, and an image that shows one is refused. The
papers on distillation count all 182 nevertheless; for their numbers there is `coco-stuff-164k-182`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from hwdkit.datasets.layout import Layout, SplitFiles, files_in, first_folder, names_in, rows_of
from hwdkit.datasets.voc import bit_colour
from hwdkit.types import IGNORE


class Label(NamedTuple):
    """One row of the table.

    Attributes:
        raw: id in the files of the full edition; those of the first edition are one higher.
        name: the authors' name.
        class_index: None for a class that no image shows.
    """

    raw: int
    name: str
    class_index: int | None


LABELS = tuple(
    Label(int(row["raw"]), row["name"], int(row["index"]) if row["index"] else None)
    for row in rows_of("coco-stuff")
)
"""In the order of their ids."""

EVALUATED = tuple(label for label in LABELS if label.class_index is not None)


def list_files_164k(root: Path) -> dict[str, SplitFiles]:
    """Find images and labels, in folders of their own or side by side as the three archives unpack."""
    listed = {}
    for split in ("train", "val"):
        folder = f"{split}2017"
        images = first_folder(root, f"images/{folder}", folder)
        labels = first_folder(
            root,
            f"annotations/{folder}",
            f"annotations/stuffthingmaps_trainval2017/{folder}",
            f"stuffthingmaps_trainval2017/{folder}",
            folder,
        )
        listed[split] = SplitFiles(files_in(root, images, ".jpg"), _labels(root, labels))
    return listed


def list_files_10k(root: Path) -> dict[str, SplitFiles]:
    """Find the images and labels that the two lists name; val is what the authors call test."""
    images, labels = files_in(root, "images", ".jpg"), files_in(root, "annotations", ".mat")
    listed = {}
    for split, name in (("train", "train"), ("val", "test")):
        listed[split] = SplitFiles(images, labels).only(names_in(root / "imageLists" / f"{name}.txt"))
    return listed


def _labels(root: Path, folder: str) -> dict[str, str]:
    # Other tools leave their conversions beside the originals.
    labels = files_in(root, folder, ".png")
    return {key: path for key, path in labels.items() if not key.endswith("TrainIds")}


def _layout_164k(name: str, labels: tuple[Label, ...], label_map: dict[int, int]) -> Layout:
    return Layout(
        name=name,
        classes=tuple(label.name for label in labels),
        # The authors draw theirs at random. This is the rule of Pascal VOC, with 0 left to "unlabeled".
        palette=tuple(bit_colour(label.raw + 1) for label in labels),
        label_map={**label_map, 255: IGNORE},
        published={"train": 118287, "val": 5000},
        inner_folders=("dataset", "coco_stuff164k", "coco-stuff-164k", "coco"),
        must_have=(
            "images/train2017|train2017",
            "images/val2017|val2017",
            "annotations/train2017|annotations/stuffthingmaps_trainval2017|stuffthingmaps_trainval2017|train2017",
        ),
        expected=(
            "images/{train,val}2017/*.jpg and annotations/{train,val}2017/*.png\n"
            "or {train,val}2017/*.jpg and stuffthingmaps_trainval2017/{train,val}2017/*.png\n"
            "or all three archives unpacked into one folder: {train,val}2017/*.jpg and *.png"
        ),
        how_to_get=(
            "Download train2017.zip (18 GB) and val2017.zip (1 GB) from http://images.cocodataset.org/zips/ "
            "and stuffthingmaps_trainval2017.zip (659 MB) from "
            "https://github.com/nightrome/cocostuff#downloads, and unpack them."
        ),
        licence="Images: Flickr terms of use. COCO and COCO-Stuff annotations: CC BY 4.0.",
        list_files=list_files_164k,
    )


COCO_STUFF_164K = _layout_164k(
    "coco-stuff-164k",
    EVALUATED,
    {label.raw: label.class_index for label in LABELS if label.class_index is not None},
)

COCO_STUFF_164K_182 = _layout_164k("coco-stuff-164k-182", LABELS, {label.raw: label.raw for label in LABELS})

COCO_STUFF_10K = Layout(
    name="coco-stuff-10k",
    classes=COCO_STUFF_164K.classes,
    palette=COCO_STUFF_164K.palette,
    label_map={
        0: IGNORE,
        **{label.raw + 1: label.class_index for label in LABELS if label.class_index is not None},
    },
    published={"train": 9000, "val": 1000},
    inner_folders=("cocostuff-10k-v1.1", "dataset", "dataset/cocostuff-10k-v1.1", "coco_stuff10k"),
    must_have=("images", "annotations", "imageLists/train.txt", "imageLists/test.txt"),
    expected=(
        "images/*.jpg and annotations/*.mat      (MATLAB 5.0 files with the matrix S)\n"
        "imageLists/train.txt and imageLists/test.txt      (one name a line)"
    ),
    how_to_get=(
        "Download cocostuff-10k-v1.1.zip (2 GB) as https://github.com/nightrome/cocostuff10k says, "
        "and unpack it."
    ),
    licence=COCO_STUFF_164K.licence,
    list_files=list_files_10k,
)
