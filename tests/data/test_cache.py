"""The cache: the same pixels as decoding, never half a cache, never the cache of other data."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_trees import ids, write_pair

from hwdkit.data import cache, cache_files, parallel
from hwdkit.data.cache import cache_for
from hwdkit.data.cache_files import CachedSplit, open_cache
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.index import DatasetIndex, load_index, save_index
from hwdkit.data.stream import eval_pairs
from hwdkit.errors import DataError, EnvironmentFailure
from hwdkit.prepare.prepare import prepare


@pytest.fixture
def folder(tmp_path: Path, ade20k: Path) -> Path:
    """A prepared dataset with a label map and images of different sizes."""
    root = ade20k / "ADEChallengeData2016"
    for i, size in ((1, (7, 31)), (3, (40, 5))):
        stem = f"ADE_train_{i:08d}"
        label = root / "annotations/training" / f"{stem}.png"
        write_pair(root / "images/training" / f"{stem}.jpg", label, ids(150, 0, 7, size=size))
    prepare("ade20k", root=tmp_path / "data", source=ade20k, allow_partial=True)
    return tmp_path / "data" / "ade20k"


def usable(index: DatasetIndex) -> list[str]:
    return [split for split in index.splits if open_cache(index, split)]


@pytest.fixture(autouse=True)
def _fresh_warnings() -> None:
    cache_files._warn_once.cache_clear()


def decoding(index: DatasetIndex, split: str) -> SegmentationDataset:
    return SegmentationDataset(dataclasses.replace(index, folder=None), split)


def assert_equal_to_decoding(folder: Path) -> None:
    index = load_index(folder)
    for split in index.splits:
        cached, decoded = SegmentationDataset(index, split), decoding(index, split)
        assert cached.cached
        assert not decoded.cached
        for i in range(-1, len(decoded)):
            for view, pixels in zip(cached.open(i), decoded.open(i), strict=True):
                assert view.dtype == np.uint8
                assert np.array_equal(view, pixels)
            for one, other in zip(cached.read(i), decoded.read(i), strict=True):
                assert torch.equal(one, other)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_pair_is_what_decoding_gives(folder: Path) -> None:
    info = cache_for(load_index(folder), folder)
    assert_equal_to_decoding(folder)
    pixels = {
        split: sum(p.height * p.width for p in load_index(folder).splits[split]) for split in ("train", "val")
    }
    assert pixels == {"train": 12 * 16 + 7 * 31 + 40 * 5, "val": 2 * 12 * 16}
    assert (info.path, info.bytes, info.already_there) == (folder / "cache", 4 * sum(pixels.values()), False)
    assert info.bytes == sum(path.stat().st_size for path in info.path.iterdir() if path.suffix != ".json")
    assert len(names(info.path)) == 6, "a header and two files a split, nothing else"


def test_several_processes_write_what_one_writes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = load_index(folder)
    one = cache_for(index, folder, workers=1).path
    content = {path.name: path.read_bytes() for path in one.iterdir()}
    shutil.rmtree(one)
    monkeypatch.setattr(parallel, "FEW", 2)
    several = cache_for(index, folder, workers=2).path
    assert content == {path.name: path.read_bytes() for path in several.iterdir()}
    assert_equal_to_decoding(folder)


def test_opening_maps_without_reading_or_copying(folder: Path) -> None:
    index = load_index(folder)
    cache_for(index, folder)
    dataset = SegmentationDataset(index, "train")
    image, label = dataset.open(0)
    for view in (image, label):
        assert type(view) is np.ndarray
        assert not view.flags.owndata
        assert not view.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 0
    assert np.shares_memory(image, dataset.open(0)[0])
    descriptors = len(os.listdir("/dev/fd"))
    held = [dataset.open(i) for i in (0, 1, 2) * 5]
    assert len(os.listdir("/dev/fd")) == descriptors
    tensors = dataset.read(0)
    assert all(tensor.is_contiguous() for tensor in tensors)
    tensors[0].zero_()
    assert held[0][0].any(), "a tensor is a copy of its own"


def test_maps_are_not_pickled(folder: Path) -> None:
    index = load_index(folder)
    cache_for(index, folder)
    dataset = SegmentationDataset(index, "train")
    expected = [array.copy() for array in dataset.open(2)]
    size = len(pickle.dumps(SegmentationDataset(index, "train")))
    copy = pickle.dumps(dataset)
    assert len(copy) == size
    assert all(map(np.array_equal, pickle.loads(copy).open(2), expected))


@pytest.mark.parametrize("opened_before", [False, True])
def test_loader_processes_read_the_cache(folder: Path, opened_before: bool) -> None:
    index = load_index(folder)
    cache_for(index, folder)
    decoded = decoding(index, "train")
    expected = [decoded.read(i) for i in range(3)]
    shutil.rmtree(index.root / "images")  # what is read can only come from the cache
    dataset = SegmentationDataset(index, "train")
    if opened_before:
        dataset.open(0)
    for i, image, label in eval_pairs(dataset, workers=2):
        assert torch.equal(image, expected[i][0])
        assert torch.equal(label, expected[i][1].long())


def test_a_second_build_writes_nothing(folder: Path) -> None:
    index = load_index(folder)
    first = cache_for(index, folder)
    before = {path: path.stat().st_mtime_ns for path in first.path.iterdir()}
    told: list[object] = []
    second = cache_for(index, folder, progress=lambda *what: told.append(what))
    assert second.already_there
    assert second.bytes == first.bytes
    assert not told
    assert before == {path: path.stat().st_mtime_ns for path in first.path.iterdir()}


def test_one_split_alone_can_be_cached(folder: Path) -> None:
    index = load_index(folder)
    info = cache_for(index, folder, splits=["val"])
    assert info.bytes == 4 * 2 * 12 * 16
    assert usable(index) == ["val"]
    assert not SegmentationDataset(index, "train").cached
    assert cache_for(index, folder).bytes > info.bytes
    assert_equal_to_decoding(folder)
    with pytest.raises(DataError, match="no split 'test'; it has train, val"):
        cache_for(index, folder, splits=["test"])


def test_without_a_cache_pairs_are_decoded_in_silence(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    index = load_index(folder)
    assert usable(index) == []
    assert not SegmentationDataset(index, "train").cached
    assert not caplog.records


def relabelled(index: DatasetIndex) -> DatasetIndex:
    assert index.label_map is not None
    return dataclasses.replace(index, label_map={**index.label_map, 7: 255})


STALE: dict[str, Callable[[DatasetIndex], DatasetIndex]] = {
    "other files": lambda index: dataclasses.replace(index, fingerprint="f" * 64),
    "another label map": relabelled,
}


@pytest.mark.parametrize("change", STALE)
def test_the_cache_of_other_data_is_not_used_and_said_so_once(
    folder: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    cache_for(load_index(folder), folder)
    save_index(STALE[change](load_index(folder)), folder)
    index = load_index(folder)
    for _ in range(2):
        assert not SegmentationDataset(index, "val").cached
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "val.json: this cache is of other data (fingerprint " in warnings[0]
    assert f"Run: hwdkit prepare-data ade20k --data-root {folder.parent} --cache" in warnings[0]


def test_the_warning_names_the_command_for_own_data_too(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = folder.rename(folder.parent / "mine")
    cache_for(load_index(own), own)
    stale = dataclasses.replace(load_index(own), fingerprint="f" * 64)
    assert usable(stale) == []
    assert f"hwdkit prepare-data folder --name mine --data-root {own.parent} --cache" in caplog.text


def test_a_dataset_that_changed_gets_a_new_cache_and_loses_the_old_one(folder: Path) -> None:
    old = load_index(folder)
    cache_for(old, folder)
    stays = SegmentationDataset(old, "train")
    before = [array.copy() for array in stays.open(0)]
    root = old.root
    write_pair(
        root / "images/training/ADE_train_00000001.jpg",
        root / "annotations/training/ADE_train_00000001.png",
        ids(9, size=(7, 31)),
    )
    index = prepare("ade20k", root=folder.parent, allow_partial=True)
    assert index.fingerprint != old.fingerprint
    before_names = set(names(folder / "cache"))
    cache_for(index, folder)
    assert_equal_to_decoding(folder)
    assert len(names(folder / "cache")) == 6
    assert before_names & set(names(folder / "cache")) == {"train.json", "val.json"}
    assert all(map(np.array_equal, stays.open(0), before)), "who has opened the old one keeps it"


@pytest.mark.parametrize("suffix", [".images", ".labels"])
def test_a_truncated_file_is_not_used(folder: Path, caplog: pytest.LogCaptureFixture, suffix: str) -> None:
    index = load_index(folder)
    home = cache_for(index, folder).path
    path = next(home.glob(f"train-*{suffix}"))
    os.truncate(path, path.stat().st_size - 1)
    assert usable(index) == ["val"]
    assert (
        f"is damaged: {path.name} has {path.stat().st_size} bytes, not {path.stat().st_size + 1}"
        in caplog.text
    )
    cache_for(index, folder)
    assert_equal_to_decoding(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"key": 1}'])
def test_a_header_that_makes_no_sense_is_not_used(
    folder: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    index = load_index(folder)
    home = cache_for(index, folder).path
    (home / "train.json").write_text(content)
    assert usable(index) == ["val"]
    assert "train.json: this cache cannot be read" in caplog.text
    cache_for(index, folder)
    assert_equal_to_decoding(folder)


def test_a_cache_that_is_deleted_while_in_use_is_not_missed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = load_index(folder)
    cache_for(index, folder)
    opened, unopened = (SegmentationDataset(index, "train") for _ in range(2))
    opened.open(0)
    shutil.rmtree(folder / "cache")
    decoded = decoding(index, "train")
    for dataset in (opened, unopened):
        for _ in range(2):
            assert all(map(np.array_equal, dataset.open(1), decoded.open(1)))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [warning.split(" (")[0] for warning in warnings] == ["cache of ade20k deleted while in use"]


def test_a_stopped_build_leaves_nothing(folder: Path) -> None:
    def stop(doing: str, done: int, total: int) -> None:
        assert any(path.suffix == ".part" for path in (folder / "cache").iterdir())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_for(load_index(folder), folder, progress=stop)
    assert names(folder) == ["dataset.json"]


KILLED = """
import os, signal, sys
from pathlib import Path
from hwdkit.data.cache import cache_for
from hwdkit.data.index import load_index
folder = Path(sys.argv[1])
cache_for(load_index(folder), folder, progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_killed_build_leaves_nothing_that_counts(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, folder], check=False)
    assert killed.returncode == -signal.SIGKILL
    index = load_index(folder)
    assert len(names(folder / "cache")) == 4
    assert all(name.endswith(".part") for name in names(folder / "cache"))
    assert usable(index) == []
    assert not caplog.records
    (folder / "cache" / ".train-0123456789ab.images.part").touch()  # of another fingerprint
    usage = shutil.disk_usage
    litter: list[str] = []
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: litter.extend(names(path)) or usage(path))
    cache_for(index, folder)
    assert not litter, "it goes before room is asked for"
    assert len(names(folder / "cache")) == 6
    assert_equal_to_decoding(folder)


def test_a_damaged_file_stops_the_build(folder: Path) -> None:
    index = load_index(folder)
    path = index.root / index.splits["val"][1].image
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"{path.name}: cannot be decoded"):
        cache_for(index, folder)
    assert names(folder) == ["dataset.json"]


@pytest.mark.parametrize(("size", "named"), [((12, 17), "ADE_val_00000002.jpg"), ((12, 16), "split val")])
def test_files_that_are_not_those_that_were_indexed_stop_the_build(
    folder: Path, size: tuple[int, int], named: str
) -> None:
    index = load_index(folder)
    pair = index.splits["val"][1]
    write_pair(index.root / pair.image, index.root / pair.label, ids(5, size=size))
    with pytest.raises(DataError, match=rf"{named}: changed since the dataset was prepared") as caught:
        cache_for(index, folder)
    assert "--overwrite" in caught.value.hint
    assert names(folder) == ["dataset.json"]


def test_too_little_room_is_said_before_anything_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = load_index(folder)
    free = cache.MARGIN + 4 * (12 * 16 * 3 + 7 * 31 + 40 * 5) - 1
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage(10**12, 0, free))
    with pytest.raises(EnvironmentFailure) as caught:
        cache_for(index, folder)
    assert caught.value.exit_code == 6
    home = folder / "cache"
    assert caught.value.message == (
        f"the cache of ade20k takes 4.0 kB and must leave 268.4 MB free, but {home} has 268.4 MB free"
    )
    assert names(folder) == ["dataset.json"]
    free += 1
    assert not cache_for(index, folder).already_there


def test_a_disk_that_fills_up_is_an_environment_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(EnvironmentFailure, match="No space left on device"):
        cache_for(load_index(folder), folder)
    assert names(folder) == ["dataset.json"]


def test_a_file_system_that_cannot_allocate_is_written_to_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    cache_for(load_index(folder), folder)
    assert_equal_to_decoding(folder)


def test_a_write_that_is_cut_short_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: pwrite(file, data[:100], offset))
    cache_for(load_index(folder), folder)
    assert_equal_to_decoding(folder)


def test_two_builds_at_once_are_refused(folder: Path) -> None:
    home = folder / "cache"
    home.mkdir()
    other = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(EnvironmentFailure, match="another process is writing"):
            cache_for(load_index(folder), folder)
    finally:
        os.close(other)
    cache_for(load_index(folder), folder)
    assert_equal_to_decoding(folder)


def test_a_build_deletes_nothing_that_is_not_its_own(folder: Path) -> None:
    home = folder / "cache"
    home.mkdir()
    for name in ("notes.json", "holiday.images", ".part"):
        (home / name).touch()
    cache_for(load_index(folder), folder)
    assert {"notes.json", "holiday.images", ".part"} < set(names(home))


def test_a_header_says_what_lies_beside_it(folder: Path) -> None:
    index = load_index(folder)
    home = cache_for(index, folder).path
    cached = CachedSplit(index, home, "val")
    assert json.loads((home / "val.json").read_text()) == {
        "version": 1,
        "key": cached.key,
        "fingerprint": index.fingerprint,
        "split": "val",
        "pairs": 2,
        "bytes": {cached.images.name: 3 * 2 * 12 * 16, cached.labels.name: 2 * 12 * 16},
    }
