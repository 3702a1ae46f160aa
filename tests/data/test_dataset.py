"""Reading pairs: label modes, the label map, and errors that name the file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_trees import ids, write_pair

from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.decode import decode_image
from hwdkit.data.index import DatasetIndex, Pair
from hwdkit.errors import DataError


def one_pair(root: Path, *, label_map: dict[int, int] | None = None, classes: int = 3) -> SegmentationDataset:
    index = DatasetIndex(
        name="tiny",
        classes=tuple(f"class {c}" for c in range(classes)),
        palette=((0, 0, 0),) * classes,
        label_map=label_map,
        splits={"train": (Pair("image.png", "label.png", 12, 16),)},
        root=root,
        statistics={},
        fingerprint="",
    )
    return SegmentationDataset(index, "train")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_label_is_its_ids_whether_gray_or_palette(tmp_path: Path, mode: str) -> None:
    write_pair(tmp_path / "image.png", tmp_path / "label.png", ids(0, 1, 2, 255), mode=mode)
    assert Image.open(tmp_path / "label.png").mode == mode
    image, label = one_pair(tmp_path).read(0)
    assert image.dtype == label.dtype == torch.uint8
    assert image.shape == (3, 12, 16)
    assert np.array_equal(label, ids(0, 1, 2, 255))
    assert np.array_equal(image.permute(1, 2, 0), np.array(Image.open(tmp_path / "image.png")))


@pytest.mark.parametrize(("dtype", "mode"), [(np.uint16, "I;16"), (np.int32, "I")])
def test_a_label_of_more_than_8_bits_is_its_ids(tmp_path: Path, dtype: type, mode: str) -> None:
    write_pair(tmp_path / "image.png", tmp_path / "label.png", ids(0))
    raw = np.where(ids(0, 1) == 1, 1000, 0).astype(dtype)
    Image.fromarray(raw).save(tmp_path / "label.tif")
    (tmp_path / "label.tif").rename(tmp_path / "label.png")
    assert Image.open(tmp_path / "label.png").mode == mode
    _, label = one_pair(tmp_path, label_map={0: 255, 1000: 2}).read(0)
    assert np.array_equal(label, np.where(raw == 1000, 2, 255))
    with pytest.raises(DataError, match="id 1000 on 96 pixels"):
        one_pair(tmp_path).read(0)


def test_the_label_map_moves_ids_and_refuses_the_rest(tmp_path: Path) -> None:
    write_pair(tmp_path / "image.png", tmp_path / "label.png", ids(0, 7, 33))
    _, label = one_pair(tmp_path, label_map={-1: 255, 0: 255, 7: 0, 33: 2}).read(0)
    assert set(np.unique(label)) == {0, 2, 255}
    with pytest.raises(DataError) as caught:
        one_pair(tmp_path, label_map={0: 255, 7: 0}).read(0)
    assert str(caught.value) == f"{tmp_path}/label.png: unknown label id 33 on 60 pixels (known: 0, 7)"


def test_without_a_map_an_id_beyond_the_classes_is_unknown(tmp_path: Path) -> None:
    write_pair(tmp_path / "image.png", tmp_path / "label.png", ids(2, 3))
    with pytest.raises(DataError, match=r"unknown label id 3 on 96 pixels \(known: 0-2, 255\)"):
        one_pair(tmp_path).read(0)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P"])
def test_an_image_of_any_8_bit_kind_becomes_rgb(tmp_path: Path, mode: str) -> None:
    write_pair(tmp_path / "image.png", tmp_path / "label.png", ids(0))
    gray = Image.new("RGB", (16, 12), (200, 200, 200))
    (gray.quantize(2) if mode == "P" else gray.convert(mode)).save(tmp_path / "image.tif")
    (tmp_path / "image.tif").rename(tmp_path / "image.png")
    image, _ = one_pair(tmp_path).read(0)
    assert torch.equal(image, torch.full((3, 12, 16), 200, dtype=torch.uint8))


def test_a_16_bit_image_is_refused_rather_than_clipped(tmp_path: Path) -> None:
    write_pair(tmp_path / "image.png", tmp_path / "label.png", ids(0))
    Image.fromarray(np.full((12, 16), 4000, np.uint16)).save(tmp_path / "image.png")
    with pytest.raises(DataError, match="image has mode I;16"):
        one_pair(tmp_path).read(0)


def test_reading_names_the_file_that_is_wrong(tmp_path: Path) -> None:
    write_pair(tmp_path / "image.png", tmp_path / "label.png", ids(0))
    good = (tmp_path / "image.png").read_bytes()
    (tmp_path / "image.png").write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match=r"image\.png: cannot be decoded"):
        one_pair(tmp_path).read(0)
    (tmp_path / "image.png").unlink()
    with pytest.raises(DataError, match=r"image\.png: cannot be read"):
        one_pair(tmp_path).read(0)
    (tmp_path / "image.png").write_bytes(good)
    Image.fromarray(ids(0, size=(5, 6))).save(tmp_path / "label.png")
    with pytest.raises(DataError, match=r"label\.png: label is 5x6, its image image\.png is 12x16"):
        one_pair(tmp_path).read(0)
    Image.new("RGB", (16, 12)).save(tmp_path / "label.png")
    with pytest.raises(DataError, match=r"label\.png: label has colours"):
        one_pair(tmp_path).read(0)


def test_a_painted_label_is_read_by_its_colours(tmp_path: Path) -> None:
    write_pair(tmp_path / "image.png", tmp_path / "label.png", ids(0))
    painted = np.where(ids(0, 1)[..., None] == 1, (10, 20, 30), (1, 2, 3)).astype(np.uint8)
    Image.fromarray(painted).save(tmp_path / "label.png")
    plain = one_pair(tmp_path, label_map={7: 2, 8: 255}).index
    index = dataclasses.replace(plain, label_colours={(10, 20, 30): 7, (1, 2, 3): 8})
    _, label = SegmentationDataset(index, "train").read(0)
    assert np.array_equal(label, np.where(ids(0, 1) == 1, 2, 255))


def test_arrays_and_tensors_hold_the_same(tmp_path: Path) -> None:
    write_pair(tmp_path / "image.png", tmp_path / "label.png", ids(0, 1, 2))
    dataset = one_pair(tmp_path)
    image, label = dataset.open(0)
    assert (image.shape, label.shape) == ((12, 16, 3), (12, 16))
    assert image.dtype == label.dtype == np.uint8
    tensors = dataset.read(0)
    assert np.array_equal(tensors[0], image.transpose(2, 0, 1))
    assert np.array_equal(tensors[1], label)
    assert all(tensor.is_contiguous() for tensor in tensors)


def test_a_split_that_does_not_exist_lists_those_that_do(tmp_path: Path) -> None:
    index = one_pair(tmp_path).index
    with pytest.raises(DataError, match="no split 'test'; it has train"):
        SegmentationDataset(index, "test")


def test_a_format_that_pillow_hands_to_another_program_is_not_decoded(tmp_path: Path) -> None:
    """Pillow would give an EPS file, whatever its name, to Ghostscript."""
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    with pytest.raises(DataError, match=r"x\.jpg: cannot be decoded"):
        decode_image(data, where="x.jpg")
