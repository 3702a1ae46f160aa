"""The class tables and the on-disk layouts of the real datasets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_trees import ids, write_pair

from hwdkit.data.datasets import DATASETS, layout_of
from hwdkit.data.layout import locate
from hwdkit.errors import DataError


@pytest.mark.parametrize("name", DATASETS)
def test_every_class_has_a_name_a_colour_and_an_id(name: str) -> None:
    layout = DATASETS[name]
    assert layout.name == name
    assert len(set(layout.classes)) == len(layout.classes) == len(layout.palette)
    assert all(0 <= value <= 255 for colour in layout.palette for value in colour)
    assert set(layout.label_map.values()) == {*range(len(layout.classes)), 255}


def test_the_class_counts_and_published_counts_are_those_of_the_papers() -> None:
    assert {name: len(layout.classes) for name, layout in DATASETS.items()} == {
        "ade20k": 150, "camvid": 11, "cityscapes": 19, "scenes": 12,
    }  # fmt: skip
    assert DATASETS["ade20k"].published == {"train": 20210, "val": 2000}
    assert DATASETS["cityscapes"].published == {"train": 2975, "val": 500}
    assert DATASETS["camvid"].published == {"train": 367, "val": 101, "test": 233}


def test_ade20k_takes_one_off_each_id_and_ignores_0() -> None:
    layout = DATASETS["ade20k"]
    assert layout.label_map == {0: 255, **{k: k - 1 for k in range(1, 151)}}
    assert [layout.classes[c] for c in (0, 12, 20, 149)] == ["wall", "person", "car", "flag"]
    assert layout.palette[0] == (120, 120, 120)
    assert layout.palette[149] == (92, 0, 255)


def test_cityscapes_maps_its_19_ids_and_ignores_every_other_known_one() -> None:
    layout = DATASETS["cityscapes"]
    evaluated = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert layout.label_map == {
        **dict.fromkeys([-1, *range(34), 255], 255),
        **{raw: c for c, raw in enumerate(evaluated)},
    }
    assert layout.classes[13] == "car"
    assert layout.palette[13] == (0, 0, 142)


def test_ade20k_is_found_in_its_own_folder_and_in_the_one_around_it(ade20k: Path) -> None:
    layout = DATASETS["ade20k"]
    inner = ade20k / "ADEChallengeData2016"
    assert locate(layout, ade20k) == locate(layout, inner) == inner
    pairs = layout.list_pairs(inner)
    assert {split: len(listed) for split, listed in pairs.items()} == {"train": 3, "val": 2}
    assert pairs["train"][0] == (
        "images/training/ADE_train_00000001.jpg",
        "annotations/training/ADE_train_00000001.png",
    )


def test_cityscapes_pairs_city_by_city_and_takes_only_label_ids(cityscapes: Path) -> None:
    pairs = DATASETS["cityscapes"].list_pairs(cityscapes)
    assert {split: len(listed) for split, listed in pairs.items()} == {"train": 3, "val": 1}
    assert pairs["train"][-1] == (
        "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png",
        "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png",
    )


def test_camvid_test_split_is_optional(camvid: Path) -> None:
    layout = DATASETS["camvid"]
    assert set(layout.list_pairs(camvid)) == {"train", "val"}
    write_pair(camvid / "images/test/a.png", camvid / "labels/test/a.png", ids(1))
    assert layout.list_pairs(camvid)["test"] == [("images/test/a.png", "labels/test/a.png")]


def test_camvid_is_found_in_the_layout_of_its_source_repository(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_pair(tmp_path / f"CamVid/{split}/a.png", tmp_path / f"CamVid/{split}annot/a.png", ids(0, 11))
    layout = DATASETS["camvid"]
    root = locate(layout, tmp_path)
    assert layout.list_pairs(root)["val"] == [("val/a.png", "valannot/a.png")]
    assert layout.label_map[11] == 255


def test_hidden_files_of_archivers_are_not_data(camvid: Path) -> None:
    (camvid / "images/train/._0001TP_train_000000.jpg").write_bytes(b"litter")
    assert len(DATASETS["camvid"].list_pairs(camvid)["train"]) == 5


def test_an_archive_is_to_be_unpacked_first(tmp_path: Path) -> None:
    archive = tmp_path / "ADEChallengeData2016.zip"
    archive.touch()
    with pytest.raises(DataError, match="is an archive: unpack it first") as caught:
        locate(DATASETS["ade20k"], archive)
    assert caught.value.exit_code == 4


def test_half_a_layout_is_told_what_it_lacks(ade20k: Path) -> None:
    inner = ade20k / "ADEChallengeData2016"
    (inner / "images/training").rename(inner / "images/elsewhere")
    with pytest.raises(DataError, match="ADEChallengeData2016 has no images/training"):
        locate(DATASETS["ade20k"], ade20k)


def test_another_dataset_is_not_taken_for_this_one(camvid: Path) -> None:
    with pytest.raises(DataError, match="does not look like ade20k") as caught:
        locate(DATASETS["ade20k"], camvid)
    assert "ADEChallengeData2016/images" in caught.value.hint


def test_a_misspelt_dataset_is_guessed() -> None:
    with pytest.raises(DataError, match="Did you mean 'cityscapes'"):
        layout_of("cityscape")


def test_the_columns_of_a_test_label_are_what_they_say() -> None:
    assert np.array_equal(ids(4, 9)[0, :4], [4, 9, 4, 9])
