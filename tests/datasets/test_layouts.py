"""The class tables and the on-disk layouts of the real datasets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_trees import coco_stuff_10k, coco_stuff_164k, ids, sbd, sbd_mat, voc2012, write_image, write_pair

from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.decode import raw_ids
from hwdkit.data.index import DatasetIndex
from hwdkit.datasets.coco_stuff import LABELS
from hwdkit.datasets.layout import locate, paired
from hwdkit.datasets.table import DATASETS, layout_of
from hwdkit.datasets.voc import bit_colour
from hwdkit.errors import DataError
from hwdkit.prepare.prepare import prepare


@pytest.mark.parametrize("name", DATASETS)
def test_every_class_has_a_name_a_colour_and_an_id(name: str) -> None:
    layout = DATASETS[name]
    assert layout.name == name
    assert len(set(layout.classes)) == len(layout.classes) == len(layout.palette)
    assert all(0 <= value <= 255 for colour in layout.palette for value in colour)
    assert set(layout.label_map.values()) == {*range(len(layout.classes)), 255}


@pytest.mark.parametrize(
    ("name", "classes", "published"),
    [
        ("ade20k", 150, {"train": 20210, "val": 2000}),
        ("camvid", 11, {"train": 367, "val": 101, "test": 233}),
        ("cityscapes", 19, {"train": 2975, "val": 500, "test": 1525}),
        ("coco-stuff-10k", 171, {"train": 9000, "val": 1000}),
        ("coco-stuff-164k", 171, {"train": 118287, "val": 5000}),
        ("coco-stuff-164k-182", 182, {"train": 118287, "val": 5000}),
        ("voc-aug", 21, {"train": 10582, "val": 1449}),
    ],
)
def test_the_counts_are_those_of_the_papers(name: str, classes: int, published: dict[str, int]) -> None:
    assert len(DATASETS[name].classes) == classes
    assert DATASETS[name].published == published


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


def test_cityscapes_test_split_is_listed_when_both_sides_are_there(cityscapes: Path) -> None:
    label = cityscapes / "gtFine/test/berlin/berlin_000000_000019_gtFine_labelIds.png"
    image = cityscapes / "leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png"
    write_pair(image, label, ids(1, 2, 3))
    assert DATASETS["cityscapes"].list_pairs(cityscapes)["test"] == [
        (str(image.relative_to(cityscapes)), str(label.relative_to(cityscapes)))
    ]
    image.unlink()  # labels come with the other splits' archive; without images they are no damage
    assert set(DATASETS["cityscapes"].list_pairs(cityscapes)) == {"train", "val"}


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


def prepared(name: str, source: Path) -> DatasetIndex:
    return prepare(name, root=source / "data", source=source, allow_partial=True)


def refused(name: str, source: Path, *words: str, partial: bool = True) -> None:
    with pytest.raises(DataError) as caught:
        prepare(name, root=source / "data", source=source, allow_partial=partial)
    for word in words:
        assert word in str(caught.value)
    assert not (source / "data").exists()


DEAD = {
    11: "street sign", 25: "hat", 28: "shoe", 29: "eye glasses", 44: "plate", 65: "mirror",
    67: "window", 68: "desk", 70: "door", 82: "blender", 90: "hair brush",
}  # fmt: skip


def test_coco_stuff_numbers_182_classes_of_which_11_never_occur() -> None:
    assert [label.raw for label in LABELS] == list(range(182))
    assert {label.raw: label.name for label in LABELS if label.class_index is None} == DEAD
    layout = DATASETS["coco-stuff-164k"]
    alive = [raw for raw in range(182) if raw not in DEAD]
    assert layout.label_map == {255: 255, **{raw: c for c, raw in enumerate(alive)}}
    assert [layout.classes[layout.label_map[raw]] for raw in (0, 10, 12, 91, 181)] == [
        "person", "fire hydrant", "stop sign", "banner", "wood",
    ]  # fmt: skip
    assert (layout.palette[0], layout.palette[170]) == (bit_colour(1), bit_colour(182))


def test_coco_stuff_10k_has_the_same_classes_one_id_higher() -> None:
    full, small = DATASETS["coco-stuff-164k"], DATASETS["coco-stuff-10k"]
    assert (small.classes, small.palette) == (full.classes, full.palette)
    assert small.label_map == {0: 255, **{raw + 1: c for raw, c in full.label_map.items() if raw != 255}}


def test_the_papers_protocol_keeps_all_182_indices() -> None:
    layout, full = DATASETS["coco-stuff-164k-182"], DATASETS["coco-stuff-164k"]
    assert layout.label_map == {**{raw: raw for raw in range(182)}, 255: 255}
    assert {raw: layout.classes[raw] for raw in DEAD} == DEAD
    for raw, c in full.label_map.items():
        if raw != 255:
            assert (layout.classes[raw], layout.palette[raw]) == (full.classes[c], full.palette[c])


PLACES = [
    ("images", "annotations"),
    ("", "stuffthingmaps_trainval2017"),
    ("images", "annotations/stuffthingmaps_trainval2017"),
    ("", ""),  # the three archives unpacked into one folder
]


@pytest.mark.parametrize(("images", "labels"), PLACES)
def test_coco_stuff_164k_is_found_where_its_archives_unpack(tmp_path: Path, images: str, labels: str) -> None:
    coco_stuff_164k(tmp_path, images=images, labels=labels)
    layout = DATASETS["coco-stuff-164k"]
    pairs = layout.list_pairs(locate(layout, tmp_path))
    assert {split: len(listed) for split, listed in pairs.items()} == {"train": 3, "val": 2}
    at = [f"{folder}/" if folder else "" for folder in (images, labels)]
    stem = "val2017/000000000139"
    assert pairs["val"][0] == (f"{at[0]}{stem}.jpg", f"{at[1]}{stem}.png")


def test_labels_that_other_tools_derived_are_not_data(tmp_path: Path) -> None:
    coco_stuff_164k(tmp_path)
    derived = tmp_path / "annotations/train2017/000000000009_labelTrainIds.png"
    write_pair(tmp_path / "elsewhere.png", derived, ids(0, 200))
    assert prepared("coco-stuff-164k", tmp_path).statistics["train"].images == 3


def test_coco_stuff_164k_is_counted_after_its_map(tmp_path: Path) -> None:
    coco_stuff_164k(tmp_path)
    full, paper = (prepared(name, tmp_path) for name in ("coco-stuff-164k", "coco-stuff-164k-182"))
    for index, wood, stop_sign in ((full, 170, 11), (paper, 181, 12)):
        train = index.statistics["train"]
        assert set(train.raw_ids) == {0, 12, 181, 255}
        assert train.pixels[0] == train.pixels[wood] == train.pixels[stop_sign] == train.ignored > 0
    assert full.root == paper.root


def test_a_class_that_no_image_shows_is_an_unknown_id(tmp_path: Path) -> None:
    coco_stuff_164k(tmp_path)
    write_pair(
        tmp_path / "images/train2017/000000000009.jpg",
        tmp_path / "annotations/train2017/000000000009.png",
        ids(0, 11),
    )
    refused(
        "coco-stuff-164k", tmp_path, "000000000009.png: unknown label id 11 on 96 pixels (known: 0-10, 12-24"
    )
    prepared("coco-stuff-164k-182", tmp_path)


def test_a_missing_half_of_coco_stuff_is_named(tmp_path: Path) -> None:
    coco_stuff_164k(tmp_path)
    refused(
        "coco-stuff-164k",
        tmp_path,
        "train: 3 pairs of image and label, 118287 are published",
        "val: 2 pairs of image and label, 5000 are published",
        partial=False,
    )
    (tmp_path / "annotations/train2017/000000000025.png").unlink()
    refused("coco-stuff-164k", tmp_path, "images/train2017/000000000025.jpg: has no label")


def test_coco_stuff_10k_is_read_from_its_matlab_files(tmp_path: Path) -> None:
    coco_stuff_10k(tmp_path / "cocostuff-10k-v1.1")
    index = prepared("coco-stuff-10k", tmp_path)
    assert {split: len(pairs) for split, pairs in index.splits.items()} == {"train": 3, "val": 1}
    stem = "COCO_train2014_000000000307"
    assert index.splits["val"][0] == (f"images/{stem}.jpg", f"annotations/{stem}.mat", 12, 16)
    val = index.statistics["val"]
    assert val.raw_ids == {0: 48, 1: 48, 13: 48, 182: 48}
    assert val.ignored == val.pixels[0] == val.pixels[11] == val.pixels[170] == 48
    label = SegmentationDataset(index, "val").read(0)[1]
    assert label[0, :4].tolist() == [255, 0, 11, 170]


def test_a_list_of_coco_stuff_10k_decides_its_split(tmp_path: Path) -> None:
    coco_stuff_10k(tmp_path)
    layout = DATASETS["coco-stuff-10k"]
    extra = "COCO_train2014_000000009999"
    write_image(tmp_path / f"images/{extra}.jpg")  # in no list: not part of it
    (tmp_path / "annotations/COCO_train2014_000000000077.mat").unlink()
    files = layout.list_files(tmp_path)
    assert len(paired(files["train"])) == 2
    refused("coco-stuff-10k", tmp_path, "images/COCO_train2014_000000000077.jpg: has no label")
    (tmp_path / "imageLists/test.txt").unlink()
    with pytest.raises(DataError, match=r"has no imageLists/test\.txt"):
        locate(layout, tmp_path)


def test_a_list_that_is_no_text_is_named(tmp_path: Path) -> None:
    coco_stuff_10k(tmp_path)
    (tmp_path / "imageLists/test.txt").write_bytes(b"\xff\xfe\x00")
    refused("coco-stuff-10k", tmp_path, "imageLists/test.txt: cannot be read as a list of names")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"MATLAB 7.3 MAT-file".ljust(600), "is HDF5, version 7.3"),
        (b"<html>404</html>", "cannot be read as a MATLAB file"),
        (sbd_mat(ids(0, size=(3, 4))), "label is 3x4, its image"),
        (sbd_mat(ids(0, 12)), "unknown label id 12 on 96 pixels"),
    ],
)
def test_a_damaged_matlab_label_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    coco_stuff_10k(tmp_path)
    (tmp_path / "annotations/COCO_train2014_000000000149.mat").write_bytes(content)
    refused("coco-stuff-10k", tmp_path, "annotations/COCO_train2014_000000000149.mat: ", words)


def test_the_palette_of_voc_is_the_one_that_everybody_knows() -> None:
    layout = DATASETS["voc-aug"]
    assert layout.palette[:5] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128))
    assert (layout.classes[15], layout.palette[15]) == ("person", (192, 128, 128))
    assert (layout.classes[20], layout.palette[20]) == ("tvmonitor", (0, 64, 128))
    assert bit_colour(255) == (224, 224, 192)  # the border
    assert len({bit_colour(index) for index in range(256)}) == 256


def test_voc_aug_is_voc_and_sbd_less_what_voc_validates_on(tmp_path: Path) -> None:
    index = prepared("voc-aug", sbd(voc2012(tmp_path)))
    voc, cls = "VOCdevkit/VOC2012", "benchmark_RELEASE/dataset/cls"
    assert [pair[:2] for pair in index.splits["train"]] == [
        (f"{voc}/JPEGImages/2007_000032.jpg", f"{voc}/SegmentationClass/2007_000032.png"),
        (f"{voc}/JPEGImages/2007_000039.jpg", f"{voc}/SegmentationClass/2007_000039.png"),
        (f"{voc}/JPEGImages/2008_000008.jpg", f"{cls}/2008_000008.mat"),
        (f"{voc}/JPEGImages/2008_000015.jpg", f"{cls}/2008_000015.mat"),
        (f"{voc}/JPEGImages/2008_000019.jpg", f"{cls}/2008_000019.mat"),
    ]
    assert [pair.label for pair in index.splits["val"]] == [
        f"{voc}/SegmentationClass/{stem}.png" for stem in ("2007_000033", "2007_000042")
    ]
    assert set(index.statistics["train"].raw_ids) == {0, 1, 5, 20, 255}
    dataset = SegmentationDataset(index, "train")
    # Palette indices, not the gray of their colours; and the matrix, not its transpose.
    assert dataset.read(0)[1][0, :4].tolist() == [0, 1, 20, 255]
    assert dataset.read(2)[1][0, :4].tolist() == [0, 5, 20, 0]


@pytest.mark.parametrize("move", [None, "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_aug_is_found_from_any_folder_that_holds_all_of_it(tmp_path: Path, move: str | None) -> None:
    sbd(voc2012(tmp_path))
    if move:
        (tmp_path / "benchmark_RELEASE").rename(tmp_path / move / "benchmark_RELEASE")
    source = tmp_path / (move or "")
    assert len(prepared("voc-aug", source).splits["train"]) == 5


def test_a_merged_folder_goes_before_sbd(tmp_path: Path) -> None:
    sbd(voc2012(tmp_path))
    voc = tmp_path / "VOCdevkit/VOC2012"
    for stem in ("2007_000032", "2007_000033", "2008_000008", "2008_000015"):
        write_pair(tmp_path / "scratch.png", voc / f"SegmentationClassAug/{stem}.png", ids(3))
    pairs = DATASETS["voc-aug"].list_pairs(tmp_path)
    merged = "VOCdevkit/VOC2012/SegmentationClassAug"
    assert [label for _, label in pairs["train"]] == [
        f"{merged}/2007_000032.png",
        "VOCdevkit/VOC2012/SegmentationClass/2007_000039.png",  # the merged folder lacks it
        f"{merged}/2008_000008.png",
        f"{merged}/2008_000015.png",
    ]
    assert all("SegmentationClass/" in label for _, label in pairs["val"])
    (voc / "ImageSets/Segmentation/trainaug.txt").write_text("2008_000015\n2007_000033\n\n")
    pairs = DATASETS["voc-aug"].list_pairs(tmp_path)
    assert [label for _, label in pairs["train"]] == [f"{merged}/2008_000015.png"]


def test_voc_without_sbd_is_told_what_it_lacks(tmp_path: Path) -> None:
    voc2012(tmp_path)
    words = ("has no benchmark_RELEASE/dataset/cls (or ", ", VOC2012/SegmentationClassAug, ")
    refused("voc-aug", tmp_path, *words, partial=False)
    sbd(tmp_path)
    (tmp_path / "benchmark_RELEASE/dataset/cls/2008_000019.mat").unlink()
    refused("voc-aug", tmp_path, "JPEGImages/2008_000019.jpg: has no label")
    refused("voc-aug", tmp_path, "train: 4 pairs of image and label, 10582 are published", partial=False)


@pytest.mark.parametrize("name", DATASETS)
def test_ids_to_write_lead_back_to_their_classes(name: str) -> None:
    layout = DATASETS[name]
    table = raw_ids(layout.label_map, classes=len(layout.classes))
    assert [layout.label_map[int(raw)] for raw in table] == list(range(len(layout.classes)))


def test_ids_to_write_are_the_lowest_that_a_png_can_hold() -> None:
    assert raw_ids(DATASETS["cityscapes"].label_map, classes=19)[[0, 13, 18]].tolist() == [7, 26, 33]
    assert raw_ids({9: 0, -1: 0, 4: 0, 70000: 1, 300: 1, 5: 255}, classes=2).tolist() == [4, 300]
    assert raw_ids(None, classes=3).tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="no id that a PNG can hold for class 1"):
        raw_ids({0: 0, -1: 1, 3: 2}, classes=3)


def test_the_columns_of_a_test_label_are_what_they_say() -> None:
    assert np.array_equal(ids(4, 9)[0, :4], [4, 9, 4, 9])
