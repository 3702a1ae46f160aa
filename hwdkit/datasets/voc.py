"""Pascal VOC 2012 with the labels of SBD: 20 kinds of objects and a background, 10 582 images to train on.

The class table and the on-disk layout live here; reading and checking live in `layout.py` and `verify.py`.
"""

from __future__ import annotations

from pathlib import Path

from hwdkit.datasets.layout import Layout, SplitFiles, files_in, first_folder, names_in
from hwdkit.types import IGNORE

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

VOC_FOLDERS = ("VOCdevkit/VOC2012", "VOC2012", ".")
SBD_FOLDERS = ("benchmark_RELEASE/dataset", "VOCaug/dataset", "VOCdevkit/VOCaug/dataset", "sbd")


def bit_colour(index: int) -> tuple[int, int, int]:
    """Colour of an index by the rule of the VOC development kit: its bits go to red, green and blue in turn.

    Args:
        index: 0 (black) to 255.
    """
    red = green = blue = 0
    for place in range(8):
        red |= (index >> 3 * place & 1) << 7 - place
        green |= (index >> 3 * place + 1 & 1) << 7 - place
        blue |= (index >> 3 * place + 2 & 1) << 7 - place
    return red, green, blue


def list_files(root: Path) -> dict[str, SplitFiles]:
    """Find the images and labels of the augmented training set and of VOC's own validation set.

    Trained on is what VOC or SBD label, less what VOC validates on. Where both label an image, VOC's label is
    taken, which knows borders. A folder SegmentationClassAug, in which somebody has merged them already, goes
    before both, with its list trainaug.txt if there is one.
    """
    voc = first_folder(root, *VOC_FOLDERS).removeprefix(".")
    lists = root / voc / "ImageSets/Segmentation"
    images = files_in(root, _below(voc, "JPEGImages"), ".jpg")
    own = files_in(root, _below(voc, "SegmentationClass"), ".png")
    validated = set(names_in(lists / "val.txt"))
    trained = set(names_in(lists / "train.txt"))
    merged = files_in(root, _below(voc, "SegmentationClassAug"), ".png")
    if merged:
        trained = set(names_in(lists / "trainaug.txt")) or trained | merged.keys()
        labels = {**own, **merged}
    else:
        sbd = first_folder(root, *SBD_FOLDERS)
        trained.update(names_in(root / sbd / "train.txt"), names_in(root / sbd / "val.txt"))
        images = {**files_in(root, f"{sbd}/img", ".jpg"), **images}
        labels = {**files_in(root, f"{sbd}/cls", ".mat"), **own}
    return {
        "train": _chosen(trained - validated, images, labels),
        "val": _chosen(validated, images, own),
    }


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _chosen(names: set[str], images: dict[str, str], labels: dict[str, str]) -> SplitFiles:
    return SplitFiles(
        {name: images[name] for name in names if name in images},
        {name: labels[name] for name in names if name in labels},
    )


VOC_AUG = Layout(
    name="voc-aug",
    classes=CLASSES,
    palette=tuple(bit_colour(index) for index in range(len(CLASSES))),
    label_map={**{index: index for index in range(len(CLASSES))}, 255: IGNORE},
    published={"train": 10582, "val": 1449},
    inner_folders=("VOC", "VOCtrainval_11-May-2012"),
    must_have=(
        *(
            "|".join(_below(folder.removeprefix("."), name) for folder in VOC_FOLDERS)
            for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation/val.txt")
        ),
        "|".join(
            (
                *(f"{folder}/cls" for folder in SBD_FOLDERS),
                *(_below(folder.removeprefix("."), "SegmentationClassAug") for folder in VOC_FOLDERS),
            )
        ),
    ),
    expected=(
        "VOCdevkit/VOC2012/{JPEGImages,SegmentationClass}/ and ImageSets/Segmentation/{train,val}.txt\n"
        "benchmark_RELEASE/dataset/{cls/*.mat,train.txt,val.txt}      (SBD, beside VOCdevkit)\n"
        "or, in place of SBD: VOCdevkit/VOC2012/SegmentationClassAug/*.png"
    ),
    how_to_get=(
        "Download VOCtrainval_11-May-2012.tar (2 GB) from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ "
        "and benchmark.tgz of SBD from "
        "http://home.bharathh.info/pubs/codes/SBD/download.html, and unpack both into one folder."
    ),
    licence="Images: Flickr terms of use, for research. No licence is known for the labels of VOC and SBD.",
    list_files=list_files,
)
