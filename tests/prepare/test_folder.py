"""A user's own images and masks: found, paired, divided, described; every way in which they may not fit."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_runs import hwdkit
from tiny_trees import ids, kill_while_unpacking, write_pair

from hwdkit.data.colours import PaintedLabels, label_reader
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.index import DatasetIndex, load_index
from hwdkit.datasets.table import DATASETS
from hwdkit.errors import DataError, UsageError
from hwdkit.prepare.own.class_table import read_class_table
from hwdkit.prepare.own.folder import FolderOptions, require_name
from hwdkit.prepare.own.splits import SplitRule, divide
from hwdkit.prepare.prepare import prepare

CLASSES = """
classes:
  - {name: road, colour: [128, 64, 128]}
  - {name: sky, colour: "#4682b4"}
  - {name: car, colour: [0, 0, 142]}
ignore: [[0, 0, 0]]
"""
COLOURS = np.array([(128, 64, 128), (70, 130, 180), (0, 0, 142), (0, 0, 0)], dtype=np.uint8)
USUAL = {"images": "photos/**/*.jpg", "labels": "masks/{stem}.png"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten photos in two folders, their masks of ids 0 to 2 and 255, and a classes file."""
    root = tmp_path / "mine"
    for i in range(10):
        photo = root / "photos" / ("day" if i < 5 else "night/late") / f"{i:02d}.jpg"
        write_pair(photo, root / "masks" / f"{i:02d}.png", ids(0, 1, 2, 255, size=(40, 48)))
    (root / "classes.yaml").write_text(CLASSES)
    return root


def prepared(photos: Path, *, splits: SplitRule | None = None, **more: Any) -> DatasetIndex:
    asked = FolderOptions(**USUAL, classes=photos / "classes.yaml", splits=splits or SplitRule())
    return prepare("mine", root=photos.parent / "data", source=photos, own=asked, **more)


def assert_refused(photos: Path, *words: str, **more: Any) -> None:
    with pytest.raises(DataError) as caught:
        prepared(photos, **more)
    for word in words:
        assert word in str(caught.value)
    assert not (photos.parent / "data").exists(), "a failing check must write nothing"


def paint(photos: Path, *, mode: str = "RGB") -> None:
    """Turn the masks of ids into masks of colours."""
    for path in (photos / "masks").glob("*.png"):
        classes = np.array(Image.open(path))
        Image.fromarray(COLOURS[np.where(classes == 255, 3, classes)]).convert(mode).save(path)


# --- what an index says


def test_own_data_is_indexed_like_a_published_dataset(photos: Path) -> None:
    index = prepared(photos)
    assert (index.name, index.classes) == ("mine", ("road", "sky", "car"))
    assert index.palette == ((128, 64, 128), (70, 130, 180), (0, 0, 142))
    assert {split: len(pairs) for split, pairs in index.splits.items()} == {"train": 9, "val": 1}
    quarter = 40 * 48 // 4
    assert index.statistics["val"].pixels == (quarter,) * 3
    assert index.statistics["val"].raw_ids == dict.fromkeys((0, 1, 2, 255), quarter)
    assert index.splits["train"][0].label.startswith("masks/")
    assert index == load_index(photos.parent / "data" / "mine")
    assert not index.partial


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_masks_of_colours_and_masks_of_ids_give_the_same_classes(photos: Path, mode: str) -> None:
    by_id = SegmentationDataset(prepared(photos), "train")
    expected = [by_id.read(i) for i in range(len(by_id))]
    paint(photos, mode=mode)
    index = prepared(photos)
    painted = SegmentationDataset(index, "train")
    assert index.options["label_encoding"] == "colours"
    for i, (image, label) in enumerate(expected):
        assert (painted.read(i)[0] == image).all()
        assert (painted.read(i)[1] == label).all()


def test_a_palette_mask_holds_ids_unless_its_colours_are_asked_for(photos: Path) -> None:
    for path in (photos / "masks").glob("*.png"):
        classes = np.array(Image.open(path))
        picture = Image.fromarray(np.where(classes == 255, 0, 1 + classes % 3).astype(np.uint8))
        picture.putpalette([0, 0, 0, *COLOURS[:3].ravel()])
        picture.save(path)
    asked = FolderOptions(**USUAL, classes=photos / "classes.yaml", encoding="colours")
    root = photos.parent / "data"
    index = prepare("mine", root=root, source=photos, own=asked)
    assert index.statistics["val"].pixels == (480, 480, 480)
    held = prepare("ids", root=root, source=photos, own=FolderOptions(**USUAL, classes=_four(photos)))
    assert held.statistics["val"].pixels == (480, 480, 480, 480)


def _four(photos: Path) -> Path:
    (photos / "four.txt").write_text("void\nroad\nsky\ncar\n")
    return photos / "four.txt"


def test_an_index_without_painted_labels_reads_as_before(photos: Path) -> None:
    prepared(photos)
    path = photos.parent / "data" / "mine" / "dataset.json"
    document = json.loads(path.read_text())
    del document["label_colours"]
    path.write_text(json.dumps(document))
    index = load_index(path.parent)
    assert index.label_colours is None
    raw = (photos / index.splits["val"][0].label).read_bytes()
    assert label_reader(index.label_colours)(raw, "x").shape == (40, 48)


# --- a second run


def test_a_second_run_and_a_check_need_no_options(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "val.txt").write_text("03\n07.jpg\n")
    monkeypatch.chdir(photos)
    first = prepared(photos, splits=SplitRule(val="val.txt"))
    assert [Path(pair.image).stem for pair in first.splits["val"]] == ["03", "07"]
    path = photos.parent / "data" / "mine" / "dataset.json"
    before = path.stat().st_ino
    monkeypatch.chdir(photos.parent)
    (photos / "val.txt").unlink()
    (photos / "classes.yaml").unlink()
    again = prepare("mine", root=photos.parent / "data", own=FolderOptions())
    assert (again, path.stat().st_ino) == (first, before)
    checked = prepare("mine", root=photos.parent / "data", own=FolderOptions(), check=True)
    assert checked.fingerprint == first.fingerprint


@pytest.mark.parametrize(
    "other",
    [
        {"splits": SplitRule(seed=1)},
        {"splits": SplitRule(val_fraction=0.5)},
        {"images": "photos/day/*.jpg"},
    ],
)
def test_another_option_changes_that_alone(photos: Path, other: dict[str, Any]) -> None:
    first = prepared(photos)
    root = photos.parent / "data"
    changed = prepare("mine", root=root, own=FolderOptions(**other), allow_partial=True)
    assert changed.splits != first.splits
    assert changed.classes == first.classes
    assert changed.options["labels"] == first.options["labels"]


def test_a_changed_list_is_noticed_though_no_image_changed(photos: Path) -> None:
    (photos / "val.txt").write_text("03\n")
    rule = SplitRule(val=str(photos / "val.txt"))
    first = prepared(photos, splits=rule)
    (photos / "val.txt").write_text("04\n")
    second = prepare("mine", root=photos.parent / "data", own=FolderOptions())
    assert [Path(pair.image).stem for pair in second.splits["val"]] == ["04"]
    assert second.fingerprint != first.fingerprint


def test_data_that_moved_keeps_its_options(photos: Path) -> None:
    (photos / "val.txt").write_text("03\n")
    first = prepared(photos, splits=SplitRule(val=str(photos / "val.txt")))
    root, moved = photos.parent / "data", photos.parent / "moved"
    photos.rename(moved)
    with pytest.raises(DataError, match="the files of mine are gone"):
        prepare("mine", root=root, own=FolderOptions())
    index = prepare("mine", root=root, source=moved, own=FolderOptions())
    assert (index.fingerprint, index.root) == (first.fingerprint, moved)


def test_one_list_leaves_the_other_as_it_was(photos: Path) -> None:
    (photos / "train.txt").write_text("00\n01\n")
    (photos / "val.txt").write_text("05\n")
    prepared(photos, splits=SplitRule(train=str(photos / "train.txt"), val="photos/night"))
    rule = FolderOptions(splits=SplitRule(val=str(photos / "val.txt")))
    index = prepare("mine", root=photos.parent / "data", own=rule)
    assert {split: len(pairs) for split, pairs in index.splits.items()} == {"train": 2, "val": 1}


def test_a_list_may_begin_with_a_byte_order_mark(photos: Path) -> None:
    (photos / "val.txt").write_text("\ufeff03\n", encoding="utf-8")
    index = prepared(photos, splits=SplitRule(val=str(photos / "val.txt")))
    assert [Path(pair.image).stem for pair in index.splits["val"]] == ["03"]


def test_another_colour_that_means_nothing_is_another_dataset(photos: Path) -> None:
    paint(photos)
    first = prepared(photos)
    (photos / "classes.yaml").write_text(CLASSES.replace("[[0, 0, 0]]", "[[0, 0, 0], [9, 9, 9]]"))
    second = prepared(photos)
    assert second.label_colours is not None
    assert (9, 9, 9) in second.label_colours
    assert second.fingerprint != first.fingerprint


# --- splits


def test_the_split_depends_on_paths_and_seed_alone_and_hardly_on_new_images() -> None:
    images = [f"{i:03d}.jpg" for i in range(100)]
    rule = SplitRule(val_fraction=0.2, seed=3)
    chosen = divide(images, rule, root=Path())
    assert (len(chosen["train"]), len(chosen["val"])) == (80, 20)
    assert sorted(chosen["train"] + chosen["val"]) == images
    assert divide(images, SplitRule(val_fraction=0.2, seed=4), root=Path()) != chosen
    more = divide([*images, "new.jpg"], rule, root=Path())
    assert len(set(chosen["val"]) - set(more["val"])) <= 1


def test_folders_are_splits_too(photos: Path) -> None:
    index = prepared(photos, splits=SplitRule(train="photos/day", val="photos/night"))
    assert [Path(pair.image).stem for pair in index.splits["val"]] == ["05", "06", "07", "08", "09"]
    assert index.options["splits"] == {"train": "photos/day", "val": "photos/night"}


@pytest.mark.parametrize(
    ("train", "val", "words"),
    [
        ("00\n01\n", "01\n", "1 images are in train and in val, the first is photos/day/01.jpg"),
        ("00\n", "99\nno\n03\n", "2 of 3 lines name no image: '99', 'no'"),
        ("00\n", "", "leave none for split val"),
    ],
)
def test_lists_that_cannot_be_meant_are_refused(photos: Path, train: str, val: str, words: str) -> None:
    (photos / "train.txt").write_text(train)
    (photos / "val.txt").write_text(val)
    assert_refused(photos, words, splits=SplitRule(train="train.txt", val="val.txt"))


def test_a_name_that_two_images_have_must_be_a_path(photos: Path) -> None:
    images = ["a/1.jpg", "b/1.jpg", "b/2.jpg"]
    (photos / "val.txt").write_text("1\n")
    with pytest.raises(DataError, match=r"'1' may be a/1\.jpg or b/1\.jpg"):
        divide(images, SplitRule(val="val.txt"), root=photos)
    (photos / "val.txt").write_text("./b/1.jpg\n")
    assert divide(images, SplitRule(val="val.txt"), root=photos)["val"] == ["b/1.jpg"]


def test_lists_and_a_fraction_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="--val-fraction and --seed have no effect"):
        SplitRule(val="val.txt", val_fraction=0.1)
    with pytest.raises(UsageError, match="must lie between 0 and 1"):
        SplitRule(val_fraction=1.0)


# --- what does not fit


def test_an_unknown_colour_is_named_with_file_and_count(photos: Path) -> None:
    paint(photos)
    mask = np.array(Image.open(photos / "masks" / "04.png"))
    mask[0, :7] = (1, 2, 3)
    Image.fromarray(mask).save(photos / "masks" / "04.png")
    assert_refused(photos, "masks/04.png: unknown colour (1, 2, 3) on 7 pixels")


def test_colours_that_a_jpeg_has_smeared_are_explained(photos: Path) -> None:
    paint(photos)
    Image.open(photos / "masks" / "04.png").save(photos / "masks" / "04.jpg")
    with pytest.raises(DataError, match="more colours; a JPEG smears colours"):
        PaintedLabels({(0, 0, 142): 0})((photos / "masks" / "04.jpg").read_bytes(), "x")


def test_painted_masks_need_colours_in_the_classes_file(photos: Path) -> None:
    paint(photos)
    (photos / "classes.yaml").write_text("[road, sky, car]")
    assert_refused(photos, "classes.yaml", "painted in colours (RGB)", "Give each class its colour")


def test_one_painted_mask_among_ids_is_named(photos: Path) -> None:
    Image.new("RGB", (48, 40)).save(photos / "masks" / "07.png")
    assert_refused(photos, "masks/07.png: label has colours")


def test_unknown_ids_and_sizes_are_named(photos: Path) -> None:
    Image.new("L", (48, 40), 7).save(photos / "masks" / "07.png")
    Image.new("L", (48, 41), 1).save(photos / "masks" / "08.png")
    assert_refused(photos, "2 problems", "unknown label id 7 on 1920 pixels", "label is 41x48")


def test_files_without_a_partner_are_faults_or_left_out_and_recorded(photos: Path) -> None:
    (photos / "masks" / "07.png").unlink()
    Image.new("L", (4, 4)).save(photos / "masks" / "lonely.png")
    assert_refused(
        photos, "photos/night/late/07.jpg: has no label", "masks/lonely.png: has no image", "--allow-partial"
    )
    index = prepared(photos, allow_partial=True)
    assert index.partial
    assert sum(len(pairs) for pairs in index.splits.values()) == 9
    root = photos.parent / "data"
    assert prepare("mine", root=root, own=FolderOptions(), allow_partial=True) == index
    with pytest.raises(DataError, match=r"07\.jpg: has no label"):
        prepare("mine", root=root, own=FolderOptions())
    write_pair(photos / "photos/night/late/07.jpg", photos / "masks/07.png", ids(0, 1, size=(40, 48)))
    (photos / "masks" / "lonely.png").unlink()
    complete = prepare("mine", root=root, own=FolderOptions())
    assert not complete.partial
    assert sum(len(pairs) for pairs in complete.splits.values()) == 10


def test_permission_to_leave_out_is_not_remembered(photos: Path) -> None:
    index = prepared(photos, allow_partial=True)
    assert (index.partial, index.options["left_out"]) == (False, False)
    shutil.copy(photos / "photos/day/00.jpg", photos / "photos/day/new.jpg")
    with pytest.raises(DataError, match=r"new\.jpg: has no label"):
        prepare("mine", root=photos.parent / "data", own=FolderOptions())
    assert prepare("mine", root=photos.parent / "data", own=FolderOptions(), allow_partial=True).partial


def test_images_in_neither_split_need_no_mask(photos: Path) -> None:
    (photos / "masks" / "07.png").unlink()
    (photos / "val.txt").write_text("08\n")
    rule = SplitRule(train="photos/day", val=str(photos / "val.txt"))
    index = prepared(photos, splits=rule)
    before = (photos.parent / "data/mine/dataset.json").stat().st_ino
    assert prepare("mine", root=photos.parent / "data", own=FolderOptions()) == index
    assert (photos.parent / "data/mine/dataset.json").stat().st_ino == before


def test_a_template_that_finds_nothing_says_where_it_looked(photos: Path) -> None:
    asked = FolderOptions(
        images="photos/day/*.jpg", labels="mask/{stem}.png", classes=photos / "classes.yaml"
    )
    with pytest.raises(DataError, match=r"mask/00\.png does not exist.* gives for photos/day/00\.jpg"):
        prepare("mine", root=photos.parent / "data", source=photos, own=asked)


def test_a_pattern_that_finds_nothing_says_what_is_there(photos: Path) -> None:
    asked = FolderOptions(images="*.jpeg", labels="{stem}.png", classes=photos / "classes.yaml")
    with pytest.raises(DataError, match=r"no image matches '\*\.jpeg'") as caught:
        prepare("mine", root=photos.parent / "data", source=photos, own=asked)
    assert "classes.yaml, masks/, photos/" in caught.value.hint


def test_two_images_with_one_label_are_named(photos: Path) -> None:
    twin = photos / "photos" / "night" / "03.jpg"
    twin.write_bytes((photos / "photos" / "day" / "03.jpg").read_bytes())
    assert_refused(
        photos, "photos/day/03.jpg and photos/night/03.jpg the same label masks/03.png", "{parent}"
    )


def test_a_tree_of_masks_may_mirror_the_tree_of_images(tmp_path: Path) -> None:
    for place in ("a", "b/c"):
        write_pair(tmp_path / f"in/{place}/1.jpg", tmp_path / f"out/{place}/1_m.png", ids(0, 1))
    (tmp_path / "classes.txt").write_text("no\nyes\n")
    asked = FolderOptions("in/**/*.jpg", "out/{folder}/{stem}_m.png", tmp_path / "classes.txt")
    index = prepare("mine", root=tmp_path / "data", source=tmp_path, own=asked)
    pairs = sorted(pair[:2] for pairs in index.splits.values() for pair in pairs)
    assert pairs == [("in/a/1.jpg", "out/a/1_m.png"), ("in/b/c/1.jpg", "out/b/c/1_m.png")]


def test_an_image_without_a_folder_has_its_mask_below_the_source_too(tmp_path: Path) -> None:
    for place in ("a/", ""):
        write_pair(tmp_path / f"{place}1.jpg", tmp_path / f"{place}1.png", ids(0, 1))
    (tmp_path / "classes.txt").write_text("no\nyes\n")
    asked = FolderOptions("**/*.jpg", "{parent}/{stem}.png", tmp_path / "classes.txt")
    index = prepare("mine", root=tmp_path / "data", source=tmp_path, own=asked)
    pairs = sorted(pair[:2] for pairs in index.splits.values() for pair in pairs)
    assert pairs == [("1.jpg", "1.png"), ("a/1.jpg", "a/1.png")]


def test_masks_beside_their_images_are_not_taken_for_images(tmp_path: Path) -> None:
    for i in range(3):
        write_pair(tmp_path / f"{i}.png", tmp_path / f"{i}_mask.png", ids(0, 1))
    (tmp_path / "classes.txt").write_text("no\nyes\n")
    asked = FolderOptions("*.png", "{stem}_mask.png", tmp_path / "classes.txt")
    index = prepare("mine", root=tmp_path / "data", source=tmp_path, own=asked)
    assert sum(len(pairs) for pairs in index.splits.values()) == 3


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "needs --images"),
        ({"images": "*.jpg"}, "needs --labels"),
        (USUAL, "needs --classes"),
        ({"images": "/abs/*.jpg", "labels": "x"}, "must lie below --source"),
        ({"images": "*.jpg", "labels": "../{stem}.png"}, "must lie below --source"),
        ({"images": "*.jpg", "labels": "{steem}.png"}, "no field {steem}"),
        ({"images": "*.jpg", "labels": "{parent}/mask.png"}, "one label"),
    ],
)
def test_options_that_are_missing_or_cannot_be_meant(photos: Path, asked: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        prepare("mine", root=photos.parent / "data", source=photos, own=FolderOptions(**asked))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (None, "needs --name"),
        ("ade20k", "hwdkit uses this name itself"),
        ("CamVid", "hwdkit uses this name itself"),
        ("folder", "hwdkit uses this name itself"),
        ("a/b", "names a folder"),
        ("..", "names a folder"),
        (".hidden", "names a folder"),
        ("", "needs --name"),
        ("x" * 200, "names a folder"),
    ],
)
def test_a_name_must_be_a_folder_and_free(name: str | None, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        require_name(name, DATASETS)
    assert words in str(caught.value)


# --- classes files


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("c.txt", "road\n\n sky \ncar\n"),
        ("c.yaml", "[road, sky, car]"),
        ("c.yaml", "classes: [road, sky, car]"),
        ("c.yaml", "names: {0: road, 1: sky, 2: car}\npath: ../x\n"),
        ("c.json", '{"num_classes": 3, "names": ["road", "sky", "car"], "ignore_index": 255}'),
        ("c.yaml", "[{name: road}, {name: sky}, car]"),
    ],
)
def test_classes_can_be_written_in_several_ways(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    table = read_class_table(tmp_path / file)
    assert table.names == ("road", "sky", "car")
    assert table.label_map == {0: 0, 1: 1, 2: 2, 255: 255}
    assert table.label_colours is None
    assert len(set(table.palette)) == 3


def test_ids_colours_and_what_is_ignored_come_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("names: {7: road, 255: sky}\ncolors: [[1, 2, 3], '#ffffff']\nignore: [0, [9, 9, 9]]\n")
    table = read_class_table(path)
    assert table.label_map == {7: 0, 255: 1, 0: 255}
    assert table.label_colours == {(1, 2, 3): 7, (255, 255, 255): 255, (9, 9, 9): 0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[road, road]", "name road occurs twice"),
        ("classes: [{name: a, id: 1}, {name: b, id: 1}]", "id 1 occurs twice"),
        ("classes: [{name: a, id: 1}, {name: b}]", "class 2 has no id"),
        (
            "classes: [{name: a, colour: [1,2,3]}, {name: b, color: [1,2,3]}]",
            "colour (1, 2, 3) occurs twice",
        ),
        ("classes: [{name: a, colour: [1,2]}, {name: b, colour: [1,2,3]}]", "[1, 2] is not a colour"),
        ("classes: [{name: a, colur: [1,2,3]}, {name: b}]", "Did you mean 'colour'?"),
        ("class: [a, b]", "Did you mean 'classes'?"),
        ("classes: [no, yes]", "False is not a class name; put it in quotes"),
        ("{classes: [a, b], names: [a, b]}", "both `names` and `classes`"),
        ("{names: [a, b], ids: [1]}", "`ids` is not a list of 2"),
        ("{names: [a, b], ignore: [1]}", "id 1 occurs twice"),
        ("{names: [a, b], ignore: [[1, 2, 3]]}", "ignores a colour, but its classes have none"),
        ("{names: [a, b], ids: [1, -2]}", "-2 is not an id"),
        ("[a]", "has 1 classes"),
        ("just text", "is not a list of classes"),
        ("{}", "has no list `classes`"),
        ("[a, ", "neither YAML nor JSON"),
        ("names: [2024-13-45, b]", "neither YAML nor JSON"),
        ("[" * 3000, "neither YAML nor JSON"),
    ],
)
def test_a_classes_file_that_cannot_be_meant_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(DataError) as caught:
        read_class_table(tmp_path / "c.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'c.yaml'}: ")
    assert words in str(caught.value)


# --- the command line


RECIPE = """
data: {dataset: DATASET, crop: [32, 32], scales: [1.0], workers: 0}
student:
  backbone: resnet18
  backbone_options: {layers: [1, 1, 1, 1], channels: [8, 16, 24, 32]}
  head: fcn
  head_channels: 8
  aux: false
losses: {ce: {}}
optimizer: {lr: 0.01, warmup: 0}
train: {iterations: 3, batch_size: 2, log_every: 1}
"""


def options(photos: Path, *more: object) -> list[object]:
    line = [
        "prepare-data",
        "folder",
        "--name",
        "mine",
        "--images",
        USUAL["images"],
        "--labels",
        USUAL["labels"],
    ]
    return [*line, "--classes", photos / "classes.yaml", "--source", photos, *more]


def test_own_data_is_trained_on_and_evaluated(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    paint(photos)
    made = hwdkit(*options(photos, "--val-fraction", 0.3, "--seed", 2, "--cache", "--json", "-q"))
    assert made.code == 0, made.err
    assert made.document["images"] == {"train": 7, "val": 3}
    assert made.document["labels"] == "colours"
    assert made.document["cache"]["bytes"] == 10 * 40 * 48 * 4
    assert hwdkit("prepare-data", "folder", "--name", "mine", "--json").document["already_prepared"] is True
    Path("mine.yaml").write_text(RECIPE.replace("DATASET", "mine"))
    trained = hwdkit("distill", "-r", "mine.yaml", "--out", "run", "--gpus", 0, "-q")
    assert trained.code == 0, trained.err
    scored = hwdkit("evaluate", "-c", "run", "--gpus", 0, "--json", "-q")
    assert scored.code == 0, scored.err
    assert (scored.document["dataset"], scored.document["images"]) == ("mine", 3)
    assert [row["name"] for row in scored.document["per_class"]] == ["road", "sky", "car"]
    assert hwdkit("profile", "-r", "mine.yaml", "--gpus", 0, "--input", "64x64", "--json").code == 0


def test_an_unknown_dataset_is_found_when_its_index_is_looked_for(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    assert hwdkit(*options(photos, "-q")).code == 0
    Path("typo.yaml").write_text(RECIPE.replace("DATASET", "mime"))
    line = ("-r", "typo.yaml", "--gpus", 0, "-q")
    for command in (("distill", *line), ("distill", *line, "--dry-run"), ("profile", *line)):
        outcome = hwdkit(*command)
        assert outcome.code == 4, command
        assert "unknown dataset 'mime'" in outcome.err
        assert "Did you mean 'mine'? Prepared in data: mine. hwdkit knows ade20k, " in outcome.err
        assert "hwdkit prepare-data folder --name mime" in outcome.err
    Path("up.yaml").write_text(RECIPE.replace("DATASET", "../mine"))
    refused = hwdkit("distill", "-r", "up.yaml", "--gpus", 0)
    assert refused.code == 3
    assert "up.yaml:2: data.dataset = '../mine': must be the name of a folder in the data root" in refused.err


def test_own_data_may_come_in_an_archive(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    expected = prepared(photos).fingerprint
    with zipfile.ZipFile("mine.zip", "w") as archive:
        for path in photos.rglob("*"):
            archive.write(path, Path("export", path.relative_to(photos)))
    line = [word if word != photos else "mine.zip" for word in options(photos, "--data-root", "other")]
    made = hwdkit(*line, "--json", "-q")
    assert made.code == 0, made.err
    assert made.document["fingerprint"] == expected
    assert made.document["files_root"].endswith("other/mine/files/export")
    again = hwdkit("prepare-data", "folder", "--name", "mine", "--data-root", "other", "--json", "-q")
    assert again.document["already_prepared"] is True


@pytest.mark.parametrize("indexed", [False, True])
def test_own_data_that_was_not_unpacked_to_the_end_is_no_dataset(photos: Path, indexed: bool) -> None:
    archive, root = photos.parent / "mine.zip", photos.parent / "data"
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(photos.rglob("*")):
            opened.write(path, path.relative_to(photos))
    options = FolderOptions(**USUAL, classes=photos / "classes.yaml")
    if indexed:
        prepare("mine", root=root, source=archive, own=options)
    kill_while_unpacking(archive, root / "mine/files")
    for more in ({}, {"source": root / "mine/files"}, {"check": True}):
        with pytest.raises(DataError, match=r"mine\.zip was not unpacked to the end"):
            prepare("mine", root=root, own=options, allow_partial=True, **more)
    index = prepare("mine", root=root, source=archive, own=options)
    assert prepare("mine", root=root, own=FolderOptions()) == index


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("camvid --name mine --classes c.txt", "--name, --classes: only for folder"),
        ("folder --images *.jpg", "folder needs --name"),
        ("folder --name cityscapes --images *.jpg", "hwdkit uses this name itself"),
        ("folder --name mine --label-encoding rgb", "'rgb' is not one of"),
        ("folder --name t1 --train 5", "--train: only for scenes"),
        ("mine", "your own data: hwdkit prepare-data folder --name mine"),
    ],
)
def test_a_command_line_that_cannot_be_meant_exits_2(tmp_path: Path, line: str, words: str) -> None:
    outcome = hwdkit("prepare-data", *line.split(), "--data-root", tmp_path)
    assert outcome.code == 2
    assert words in outcome.err
