"""Pascal VOC 2012 with the labels of SBD: 20 kinds of objects and a background, 10 582 images to train on."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

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

    The training set is every image that VOC or SBD labels, without VOC's validation images. Where both label
    an image, VOC's label is taken: it marks borders. A folder SegmentationClassAug, which holds both already
    merged, is used instead of both, with its list trainaug.txt if there is one.
    """
    voc = PurePosixPath(first_folder(root, *VOC_FOLDERS))
    images = files_in(root, voc / "JPEGImages", ".jpg")
    voc_labels = labels = files_in(root, voc / "SegmentationClass", ".png")
    merged = files_in(root, voc / "SegmentationClassAug", ".png")
    lists = root / voc / "ImageSets/Segmentation"
    validation, train = set(names_in(lists / "val.txt")), set(names_in(lists / "train.txt"))
    if merged:
        train = set(names_in(lists / "trainaug.txt")) or train | merged.keys()
        labels = {**labels, **merged}
    else:
        sbd = first_folder(root, *SBD_FOLDERS)
        train.update(names_in(root / sbd / "train.txt"), names_in(root / sbd / "val.txt"))
        images = {**files_in(root, f"{sbd}/img", ".jpg"), **images}
        labels = {**files_in(root, f"{sbd}/cls", ".mat"), **labels}
    return {
        "train": SplitFiles(images, labels).only(train - validation),
        "val": SplitFiles(images, voc_labels).only(validation),
    }


def _in_voc(path: str) -> list[str]:
    return [str(PurePosixPath(folder, path)) for folder in VOC_FOLDERS]


VOC_AUG = Layout(
    name="voc-aug",
    classes=CLASSES,
    palette=tuple(bit_colour(index) for index in range(len(CLASSES))),
    label_map={**{index: index for index in range(len(CLASSES))}, 255: IGNORE},
    published={"train": 10582, "val": 1449},
    inner_folders=("VOC", "VOCtrainval_11-May-2012"),
    must_have=(
        "|".join(_in_voc("JPEGImages")),
        "|".join(_in_voc("SegmentationClass")),
        "|".join(_in_voc("ImageSets/Segmentation/val.txt")),
        "|".join([*(f"{folder}/cls" for folder in SBD_FOLDERS), *_in_voc("SegmentationClassAug")]),
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
