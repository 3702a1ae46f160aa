"""Checking a dataset and writing its index: every way that data can be wrong, and what the user is told."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_trees import ids, kill_while_unpacking, write_pair

from hwdkit.data.index import DatasetIndex, load_index, save_index
from hwdkit.data.parallel import FEW, on_all_cores
from hwdkit.errors import DataError
from hwdkit.prepare.prepare import prepare
from hwdkit.prepare.scenes import SceneOptions


def prepare_camvid(tmp_path: Path, source: Path, **options: bool) -> DatasetIndex:
    return prepare("camvid", root=tmp_path / "data", source=source, allow_partial=True, **options)


def assert_refused(tmp_path: Path, source: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        prepare_camvid(tmp_path, source)
    assert caught.value.exit_code == 4
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "data" / "camvid").exists(), "a failing check must write nothing"


def test_an_index_says_what_is_in_the_files(tmp_path: Path, camvid: Path) -> None:
    index = prepare_camvid(tmp_path, camvid)
    assert index == load_index(tmp_path / "data" / "camvid")
    assert index.root == camvid
    assert index.partial
    assert index.splits["train"][0] == (
        "images/train/0001TP_train_000000.jpg", "labels/train/0001TP_train_000000.png", 12, 16,
    )  # fmt: skip
    train = index.statistics["train"]
    quarter = 5 * 12 * 4
    assert train.images == 5
    assert train.ignored == quarter
    assert train.pixels == (quarter, 0, 0, quarter, 0, 0, 0, 0, 0, 0, quarter)
    assert train.raw_ids == {0: quarter, 3: quarter, 10: quarter, 255: quarter}


def test_ade20k_ids_are_counted_after_the_map(tmp_path: Path, ade20k: Path) -> None:
    index = prepare("ade20k", root=tmp_path / "data", source=ade20k, allow_partial=True)
    train = index.statistics["train"]
    assert train.raw_ids[0] == train.ignored
    assert train.raw_ids[150] == train.pixels[149]


def test_cityscapes_in_the_data_root_needs_no_source(tmp_path: Path, cityscapes: Path) -> None:
    folder = tmp_path / "data" / "cityscapes"
    folder.parent.mkdir()
    cityscapes.rename(folder)
    index = prepare("cityscapes", root=tmp_path / "data", allow_partial=True)
    assert json.loads((folder / "dataset.json").read_text())["files_root"] == "."
    assert {split: len(pairs) for split, pairs in index.splits.items()} == {"train": 3, "val": 1}
    moved = tmp_path / "moved" / "cityscapes"
    moved.parent.mkdir()
    folder.rename(moved)
    assert load_index(moved).root == moved, "an index that lies with its files may move with them"


def test_a_second_run_finds_nothing_to_do(tmp_path: Path, camvid: Path) -> None:
    first = prepare_camvid(tmp_path, camvid)
    path = tmp_path / "data" / "camvid" / "dataset.json"
    before = path.stat()
    assert prepare("camvid", root=tmp_path / "data", allow_partial=True) == first, "it remembers the source"
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_partial_index_does_not_pass_for_a_complete_one(tmp_path: Path, camvid: Path) -> None:
    prepare_camvid(tmp_path, camvid)
    with pytest.raises(DataError, match="367 are published"):
        prepare("camvid", root=tmp_path / "data")


def test_a_touched_file_is_checked_again(tmp_path: Path, camvid: Path) -> None:
    before = prepare_camvid(tmp_path, camvid)
    write_pair(camvid / "images/val/new.jpg", camvid / "labels/val/new.png", ids(2))
    after = prepare_camvid(tmp_path, camvid)
    assert len(after.splits["val"]) == 3
    assert after.fingerprint != before.fingerprint


def test_the_fingerprint_follows_content_and_not_place_or_time(tmp_path: Path, camvid: Path) -> None:
    before = prepare_camvid(tmp_path, camvid)
    other = tmp_path / "elsewhere"
    camvid.rename(other)
    for path in other.rglob("*.png"):
        os.utime(path, (1, 1))
    after = prepare_camvid(tmp_path, other)
    assert after.fingerprint == before.fingerprint
    assert after.root != before.root


def test_counts_other_than_the_published_ones_need_permission(tmp_path: Path, ade20k: Path) -> None:
    with pytest.raises(DataError) as caught:
        prepare("ade20k", root=tmp_path / "data", source=ade20k)
    assert "train: 3 pairs of image and label, 20210 are published" in str(caught.value)
    assert "--allow-partial" in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_an_unknown_id_is_named_with_file_and_count(tmp_path: Path, camvid: Path) -> None:
    label = ids(0, 1)
    label[2, :3] = 42
    write_pair(camvid / "images/train/bad.jpg", camvid / "labels/train/bad.png", label)
    assert_refused(
        tmp_path, camvid, "labels/train/bad.png: unknown label id 42 on 3 pixels (known: 0-11, 255)"
    )


def test_a_truncated_jpeg_is_named(tmp_path: Path, camvid: Path) -> None:
    path = camvid / "images/train/0001TP_train_000001.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    assert_refused(tmp_path, camvid, f"images/train/{path.name}: cannot be decoded", "truncated")


def test_a_truncated_label_is_named(tmp_path: Path, camvid: Path) -> None:
    path = camvid / "labels/val/0001TP_val_000001.png"
    path.write_bytes(path.read_bytes()[:50])
    assert_refused(tmp_path, camvid, f"labels/val/{path.name}: cannot be decoded")


def test_a_web_page_saved_as_an_image_is_named(tmp_path: Path, camvid: Path) -> None:
    (camvid / "images/train/0001TP_train_000001.jpg").write_text("<html>404</html>")
    assert_refused(tmp_path, camvid, "0001TP_train_000001.jpg: cannot be decoded (not an image)")


def test_an_image_without_label_and_a_label_without_image_are_named(tmp_path: Path, camvid: Path) -> None:
    (camvid / "labels/train/0001TP_train_000001.png").unlink()
    (camvid / "images/val/0001TP_val_000000.jpg").unlink()
    assert_refused(
        tmp_path,
        camvid,
        "2 problems",
        "images/train/0001TP_train_000001.jpg: has no label",
        "labels/val/0001TP_val_000000.png: has no image",
    )


def test_a_size_mismatch_is_named_with_both_sizes(tmp_path: Path, camvid: Path) -> None:
    Image.fromarray(ids(0, size=(8, 9))).save(camvid / "labels/train/0001TP_train_000001.png")
    assert_refused(tmp_path, camvid, "labels/train/0001TP_train_000001.png: label is 8x9, its image", "12x16")


def test_a_coloured_label_is_named_as_such(tmp_path: Path, camvid: Path) -> None:
    Image.new("RGB", (16, 12)).save(camvid / "labels/train/0001TP_train_000001.png")
    assert_refused(tmp_path, camvid, "0001TP_train_000001.png: label has colours (mode RGB), not class ids")


def test_a_dangling_link_is_named(tmp_path: Path, camvid: Path) -> None:
    path = camvid / "images/train/0001TP_train_000001.jpg"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    assert_refused(tmp_path, camvid, f"{path.name}: cannot be read (No such file or directory)")


def test_a_long_list_of_problems_is_cut_and_counted(tmp_path: Path, camvid: Path) -> None:
    for i in range(30):
        (camvid / f"images/train/lonely_{i:02d}.jpg").touch()
    assert_refused(tmp_path, camvid, "30 problems", "lonely_19.jpg: has no label", "and 10 more")


def test_empty_folders_are_no_dataset(tmp_path: Path) -> None:
    for folder in ("images/train", "labels/train", "images/val", "labels/val"):
        (tmp_path / "empty" / folder).mkdir(parents=True)
    assert_refused(tmp_path, tmp_path / "empty", "no pair of image and label found")


def test_a_missing_dataset_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        prepare("cityscapes", root=tmp_path)
    assert caught.value.exit_code == 4
    text = str(caught.value)
    assert "https://www.cityscapes-dataset.com/downloads" in text
    assert "gtFine/{train,val}/CITY/*_gtFine_labelIds.png" in text
    assert "hwdkit prepare-data cityscapes --source FOLDER" in text


def test_a_failing_run_leaves_the_old_index_as_it_was(tmp_path: Path, camvid: Path) -> None:
    prepare_camvid(tmp_path, camvid)
    folder = tmp_path / "data" / "camvid"
    before = (folder / "dataset.json").read_bytes()
    (camvid / "labels/train/0001TP_train_000001.png").write_bytes(b"")
    with pytest.raises(DataError):
        prepare_camvid(tmp_path, camvid)
    assert [path.name for path in folder.iterdir()] == ["dataset.json"]
    assert (folder / "dataset.json").read_bytes() == before


def test_an_index_that_cannot_be_written_leaves_no_half(tmp_path: Path, camvid: Path) -> None:
    index = prepare_camvid(tmp_path, camvid)
    folder = tmp_path / "data" / "camvid"
    before = (folder / "dataset.json").read_bytes()
    with pytest.raises(TypeError):
        save_index(dataclasses.replace(index, options={"not": object()}), folder)
    assert [path.name for path in folder.iterdir()] == ["dataset.json"]
    assert (folder / "dataset.json").read_bytes() == before


def test_check_writes_nothing(tmp_path: Path, camvid: Path) -> None:
    assert prepare_camvid(tmp_path, camvid, check=True).statistics["val"].images == 2
    assert not (tmp_path / "data").exists()


def test_check_notices_content_that_changed_behind_the_index(tmp_path: Path, camvid: Path) -> None:
    prepare_camvid(tmp_path, camvid)
    prepare_camvid(tmp_path, camvid, check=True)
    label = camvid / "labels/train/0001TP_train_000001.png"
    Image.fromarray(ids(5)).save(label)
    with pytest.raises(DataError, match=r"is not what .*dataset\.json describes"):
        prepare_camvid(tmp_path, camvid, check=True)


def test_loading_an_unprepared_dataset_gives_the_command_to_type(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_index(tmp_path / "ade20k")
    assert "no prepared dataset at" in str(caught.value)
    assert "hwdkit prepare-data ade20k" in caught.value.hint
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": 99}'])
def test_a_damaged_index_is_a_data_error(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "camvid"
    folder.mkdir()
    (folder / "dataset.json").write_text(content)
    with pytest.raises(DataError, match="not a dataset index of this version"):
        load_index(folder)


@pytest.mark.parametrize("name", ["scenes", "camvid", "mine"])
def test_a_damaged_index_names_the_command_that_mends_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "dataset.json").write_text("{")
    with pytest.raises(DataError) as caught:
        load_index(tmp_path / name)
    kind = "folder --name mine" if name == "mine" else name
    assert caught.value.hint.startswith(f"Run: hwdkit prepare-data {kind} --data-root {tmp_path} --overwrite")
    assert ("--source" in caught.value.hint) is (name != "scenes")
    assert ("--images" in caught.value.hint) is (name == "mine")


def test_the_command_that_a_damaged_index_names_mends_it(tmp_path: Path, camvid: Path) -> None:
    drawn = {"root": tmp_path, "scenes": SceneOptions(train=2, val=1, size=(32, 64)), "workers": 1}
    prepare("scenes", **drawn)
    (tmp_path / "scenes" / "dataset.json").write_text("{")
    with pytest.raises(DataError) as caught:
        prepare("scenes", **drawn)
    assert caught.value.hint.endswith("--overwrite")
    prepare("scenes", **drawn, overwrite=True)
    assert load_index(tmp_path / "scenes").statistics["train"].images == 2
    prepare_camvid(tmp_path, camvid)
    (tmp_path / "data/camvid/dataset.json").write_text("{")
    prepare_camvid(tmp_path, camvid, overwrite=True)
    assert load_index(tmp_path / "data/camvid").statistics["val"].images == 2


def test_files_that_moved_away_are_missed_when_the_index_is_loaded(tmp_path: Path, camvid: Path) -> None:
    prepare_camvid(tmp_path, camvid)
    camvid.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="are gone"):
        load_index(tmp_path / "data" / "camvid")


SMALL = SceneOptions(train=3, val=2, size=(32, 48), seed=5)


def test_scenes_are_drawn_to_disk_with_their_options(tmp_path: Path) -> None:
    index = prepare("scenes", root=tmp_path, scenes=SMALL)
    assert index.options == {"train": 3, "val": 2, "size": [32, 48], "seed": 5}
    assert not index.partial
    assert index.splits["train"][2] == ("images/train/000002.png", "labels/train/000002.png", 32, 48)
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]
    assert prepare("scenes", root=tmp_path, scenes=SMALL) == index
    assert prepare("scenes", root=tmp_path, check=True).fingerprint == index.fingerprint


def test_scenes_of_val_do_not_depend_on_the_number_of_train_scenes(tmp_path: Path) -> None:
    few = prepare("scenes", root=tmp_path / "few", scenes=SMALL)
    more = prepare("scenes", root=tmp_path / "more", scenes=dataclasses.replace(SMALL, train=4))
    for pair in few.splits["val"]:
        assert (few.root / pair.image).read_bytes() == (more.root / pair.image).read_bytes()
    first = [(few.root / few.splits[split][0].label).read_bytes() for split in ("train", "val")]
    assert first[0] != first[1]


def test_scenes_with_other_options_need_overwrite(tmp_path: Path) -> None:
    before = prepare("scenes", root=tmp_path, scenes=SMALL)
    other = dataclasses.replace(SMALL, seed=6)
    with pytest.raises(DataError, match="drawn with seed 5, not 6") as caught:
        prepare("scenes", root=tmp_path, scenes=other)
    assert "--overwrite" in caught.value.hint
    assert "--data-root" in caught.value.hint
    after = prepare("scenes", root=tmp_path, scenes=other, overwrite=True)
    assert after.options["seed"] == 6
    assert after.fingerprint != before.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]


def test_scenes_that_were_damaged_are_not_passed_off_as_prepared(tmp_path: Path) -> None:
    index = prepare("scenes", root=tmp_path, scenes=SMALL)
    (index.root / index.splits["train"][1].label).unlink()
    with pytest.raises(DataError, match="have changed since they were drawn"):
        prepare("scenes", root=tmp_path, scenes=SMALL)
    assert prepare("scenes", root=tmp_path, scenes=SMALL, overwrite=True) is not None


def test_scenes_do_not_delete_a_folder_that_is_not_theirs(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "holiday.jpg").touch()
    for overwrite in (False, True):
        with pytest.raises(DataError, match="not made by hwdkit"):
            prepare("scenes", root=tmp_path, scenes=SMALL, overwrite=overwrite)
    assert [path.name for path in (tmp_path / "scenes").iterdir()] == ["holiday.jpg"]


def test_a_stopped_drawing_leaves_nothing(tmp_path: Path) -> None:
    def stop(doing: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("scenes", root=tmp_path, scenes=SMALL, progress=stop)
    assert list(tmp_path.iterdir()) == []


def zipped(folder: Path, archive: Path, *, below: str = "", **more: bytes) -> Path:
    """Pack what lies in `folder/below`, under its path from the folder."""
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted((folder / below).rglob("*")):
            opened.write(path, path.relative_to(folder))
        for name, content in more.items():
            opened.writestr(name, content)
    return archive


def test_an_archive_is_prepared_like_the_folder_that_it_unpacks_to(tmp_path: Path, ade20k: Path) -> None:
    expected = prepare("ade20k", root=tmp_path / "by-folder", source=ade20k, allow_partial=True)
    archive = zipped(ade20k, tmp_path / "ADEChallengeData2016.zip")
    index = prepare("ade20k", root=tmp_path / "data", source=archive, allow_partial=True)
    assert index.fingerprint == expected.fingerprint
    assert index.root == tmp_path / "data/ade20k/files/ADEChallengeData2016"
    assert json.loads((tmp_path / "data/ade20k/dataset.json").read_text())["files_root"].startswith("files/")
    inode = (tmp_path / "data/ade20k/dataset.json").stat().st_ino
    assert prepare("ade20k", root=tmp_path / "data", source=[archive], allow_partial=True) == index
    archive.unlink()
    assert prepare("ade20k", root=tmp_path / "data", allow_partial=True) == index
    assert (tmp_path / "data/ade20k/dataset.json").stat().st_ino == inode, "nothing was to be done"


def test_two_archives_and_two_folders_make_one_dataset(tmp_path: Path, cityscapes: Path) -> None:
    expected = prepare("cityscapes", root=tmp_path / "whole", source=cityscapes, allow_partial=True)
    parts = [
        zipped(cityscapes, tmp_path / f"{part}.zip", below=part, README=part.encode())
        for part in ("leftImg8bit", "gtFine")
    ]
    index = prepare("cityscapes", root=tmp_path / "zips", source=parts, allow_partial=True)
    assert index.fingerprint == expected.fingerprint
    for name, sources in {
        "the folders": [cityscapes / "leftImg8bit", cityscapes / "gtFine"],
        "one of each": [parts[0], cityscapes / "gtFine"],
    }.items():
        root = tmp_path / name
        index = prepare("cityscapes", root=root, source=sources, allow_partial=True)
        assert index.fingerprint == expected.fingerprint
        assert prepare("cityscapes", root=root, source=sources, allow_partial=True) == index
    (tmp_path / "around").mkdir()
    (cityscapes / "gtFine").rename(tmp_path / "around" / "gtFine")
    around = [tmp_path / "around", cityscapes]
    index = prepare("cityscapes", root=tmp_path / "both", source=around, allow_partial=True)
    assert index.fingerprint == expected.fingerprint


def test_a_link_to_a_folder_is_not_unpacked_through(tmp_path: Path, cityscapes: Path) -> None:
    archive = zipped(cityscapes, tmp_path / "gtFine.zip", below="gtFine")
    sources = [cityscapes / "leftImg8bit", cityscapes / "gtFine"]
    prepare("cityscapes", root=tmp_path / "data", source=sources, allow_partial=True)
    with pytest.raises(DataError, match="files also holds a link gtFine"):
        prepare("cityscapes", root=tmp_path / "data", source=[sources[0], archive], allow_partial=True)
    twins = [cityscapes, cityscapes]
    with pytest.raises(DataError, match="have the same name"):
        prepare("cityscapes", root=tmp_path / "twins", source=twins, allow_partial=True)


def test_an_unpacking_that_was_killed_is_not_taken_for_the_dataset(tmp_path: Path, ade20k: Path) -> None:
    archive = zipped(ade20k, tmp_path / "ade.zip")
    kill_while_unpacking(archive, tmp_path / "data/ade20k/files")
    with pytest.raises(DataError, match=r"ade\.zip was not unpacked to the end"):
        prepare("ade20k", root=tmp_path / "data", allow_partial=True)
    index = prepare("ade20k", root=tmp_path / "data", source=archive, allow_partial=True)
    assert index.statistics["val"].images == 2


def test_an_archive_is_not_mixed_with_an_earlier_one(tmp_path: Path, ade20k: Path) -> None:
    old = zipped(ade20k, tmp_path / "v1.zip")
    root, files = tmp_path / "data", tmp_path / "data/ade20k/files"
    prepare("ade20k", root=root, source=old, allow_partial=True)
    for path in ade20k.rglob("ADE_val_00000002.*"):
        path.unlink()
    new = zipped(ade20k, tmp_path / "v2.zip")
    for check in (False, True):
        with pytest.raises(DataError, match=r"files also holds v1\.zip") as caught:
            prepare("ade20k", root=root, source=new, allow_partial=True, check=check)
        assert f"Delete {files}" in caught.value.hint
    new.rename(old)
    with pytest.raises(DataError, match=r"files also holds an earlier v1\.zip"):
        prepare("ade20k", root=root, source=old, allow_partial=True)
    shutil.rmtree(files)
    assert prepare("ade20k", root=root, source=old, allow_partial=True).statistics["val"].images == 1


def test_a_damaged_archive_is_replaced_by_a_new_download(tmp_path: Path, ade20k: Path) -> None:
    archive = zipped(ade20k, tmp_path / "ade.zip")
    good = archive.read_bytes()
    with zipfile.ZipFile(archive) as opened:
        last = max(opened.infolist(), key=lambda info: info.header_offset)
    at = last.header_offset + 30 + len(last.filename.encode())
    archive.write_bytes(good[:at] + bytes([good[at] ^ 255]) + good[at + 1 :])
    with pytest.raises(DataError, match="damaged"):
        prepare("ade20k", root=tmp_path / "data", source=archive, allow_partial=True)
    archive.write_bytes(good)
    os.utime(archive, (1, 1))
    index = prepare("ade20k", root=tmp_path / "data", source=archive, allow_partial=True)
    assert prepare("ade20k", root=tmp_path / "data", allow_partial=True) == index


def test_check_does_not_unpack(tmp_path: Path, ade20k: Path) -> None:
    archive = zipped(ade20k, tmp_path / "ade.zip")
    with pytest.raises(DataError, match="is not unpacked yet"):
        prepare("ade20k", root=tmp_path / "data", source=archive, allow_partial=True, check=True)
    assert not (tmp_path / "data").exists()
    prepare("ade20k", root=tmp_path / "data", source=archive, allow_partial=True)
    prepare("ade20k", root=tmp_path / "data", source=archive, allow_partial=True, check=True)


def test_overwrite_mends_what_was_damaged_after_unpacking(tmp_path: Path, ade20k: Path) -> None:
    archive = zipped(ade20k, tmp_path / "ade.zip")
    index = prepare("ade20k", root=tmp_path / "data", source=archive, allow_partial=True)
    (index.root / index.splits["train"][0].label).write_bytes(b"")
    with pytest.raises(DataError, match="cannot be decoded"):
        prepare("ade20k", root=tmp_path / "data", source=archive, allow_partial=True)
    mended = prepare("ade20k", root=tmp_path / "data", source=archive, allow_partial=True, overwrite=True)
    assert mended.fingerprint == index.fingerprint


def test_a_source_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.zip does not exist"):
        prepare("ade20k", root=tmp_path / "data", source=tmp_path / "nowhere.zip")
    assert not (tmp_path / "data").exists()


def test_a_web_page_saved_as_an_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "gtFine_trainvaltest.zip").write_text("<!DOCTYPE html><html>Log in</html>")
    with pytest.raises(DataError, match="is a web page, not an archive"):
        prepare("cityscapes", root=tmp_path / "data", source=tmp_path / "gtFine_trainvaltest.zip")


def test_processes_give_the_results_in_order() -> None:
    told = []
    numbers = list(range(-FEW, 0))
    results = on_all_cores(abs, numbers, workers=2, doing="abs", progress=lambda *what: told.append(what))
    assert results == [abs(n) for n in numbers]
    assert told[-1] == ("abs", FEW, FEW)
    assert np.all(np.diff([done for _, done, _ in told]) > 0)
