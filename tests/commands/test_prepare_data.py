"""What `hwdkit prepare-data` returns and shows."""

from __future__ import annotations

import errno
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from hwdkit.commands.prepare_data import PrepareData
from hwdkit.commands.prepare_data.summary import render, run
from hwdkit.errors import DataError, EnvironmentFailure, UsageError

PIXELS = 128 * 128


def prepare(dataset: str, root: Path, **options: Any) -> dict[str, Any]:
    return run(PrepareData(dataset=dataset, data_root=root, **options))


def draw(root: Path, **options: bool) -> dict[str, Any]:
    return prepare("scenes", root, train=3, val=2, **options)


def test_the_result_is_json_and_its_shares_add_up(tmp_path: Path) -> None:
    result = json.loads(json.dumps(draw(tmp_path)))
    assert result["images"] == {"train": 3, "val": 2}
    assert result["already_prepared"] is False
    assert result["files_root"] == str(tmp_path / "scenes")
    for split in ("train", "val"):
        assert sum(entry["share"][split] for entry in result["classes"]) == pytest.approx(1)
        assert 0 <= result["ignored"][split] < 1
        assert sum(result["raw_ids"][split].values()) == result["images"][split] * PIXELS


def test_a_second_run_says_so(tmp_path: Path) -> None:
    first, second = draw(tmp_path), draw(tmp_path)
    assert second == {**first, "already_prepared": True}
    checked = prepare("scenes", tmp_path, check=True)
    assert checked["checked_only"] is True
    assert checked["fingerprint"] == first["fingerprint"]


def test_the_table_names_every_class_and_marks_the_absent_ones(tmp_path: Path) -> None:
    result = draw(tmp_path)
    result["classes"][0]["share"]["train"] = 0.0
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render(result))
    text = console.export_text()
    for entry in result["classes"]:
        assert entry["name"] in text
    assert "scenes: prepared: 3 train, 2 val" in text
    assert str(result["fingerprint"]) in text
    row = next(line for line in text.splitlines() if "road" in line)
    assert "-" in row.split()


def test_data_without_an_ignored_pixel_has_a_share_of_zero(tmp_path: Path) -> None:
    result = draw(tmp_path)
    result["ignored"] = {"train": 0.0, "val": 1e-6}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render(result))
    assert "ignored      0.00 % of train, <0.01 % of val" in console.export_text()


def test_options_of_scenes_mean_nothing_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--train, --seed: only for scenes"):
        PrepareData(dataset="camvid", train=3, seed=1)


def test_scenes_take_no_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leave --source out"):
        prepare("scenes", tmp_path, source=[tmp_path])


def test_a_full_disk_is_the_machines_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("PIL.Image.Image.save", full)
    with pytest.raises(EnvironmentFailure, match="No space left on device") as caught:
        draw(tmp_path)
    assert caught.value.exit_code == 6
    assert list(tmp_path.iterdir()) == []


def test_a_data_root_that_is_a_file_is_named(tmp_path: Path) -> None:
    write_camvid(tmp_path / "in", 3)
    (tmp_path / "data").touch()
    options = {"source": [tmp_path / "in"], "allow_partial": True}
    for name, more in (("camvid", options), ("scenes", {"train": 3, "val": 2})):
        with pytest.raises(EnvironmentFailure, match=r"cannot write below .*data"):
            prepare(name, tmp_path / "data", **more)


def test_the_name_of_a_class_is_no_markup(tmp_path: Path) -> None:
    result = draw(tmp_path)
    result["classes"][0]["name"] = "[bold]road[/x]"
    assert "[bold]road[/x]" in shown(result)


def shown(result: dict[str, Any]) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render(result))
    return console.export_text()


def write_camvid(root: Path, *ids: int) -> None:
    """One pair a split, in whose label each of these ids has the same share."""
    label = Image.fromarray(np.array([ids] * 8, dtype=np.uint8))
    for split in ("train", "val"):
        for kind, picture in (("images", Image.new("RGB", label.size)), ("labels", label)):
            path = root / kind / split / "a.png"
            path.parent.mkdir(parents=True)
            picture.save(path)


def test_ids_that_count_nowhere_are_named_with_their_share(tmp_path: Path) -> None:
    write_camvid(tmp_path / "in", 3, 11, 11, 255)
    result = prepare("camvid", tmp_path, source=[tmp_path / "in"], allow_partial=True)
    assert result["ignored_ids"] == [11, 255]
    line = "ignored ids  11 (50.00 % of train, 50.00 % of val), 255 (25.00 % of train, 25.00 % of val)"
    assert line in shown(result)
    assert "camvid: prepared: 1 train, 1 val (partial)" in shown(result)
    assert "licence      Non-commercial research" in shown(result)


def test_the_cache_is_announced_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = draw(tmp_path)
    assert plain["cache"] is None
    with caplog.at_level("INFO", "hwdkit"):
        result = draw(tmp_path, cache=True)
    pixels = 5 * PIXELS
    assert "the cache of scenes takes" in caplog.text
    assert result["cache"]["bytes"] == 4 * pixels
    assert result["already_prepared"] is True
    assert f"cache        {4 * pixels / 1000:.1f} kB in {tmp_path / 'scenes' / 'cache'}, written" in shown(
        result
    )
    assert "already there" in " ".join(shown(draw(tmp_path, cache=True)).split())


def test_archives_announce_their_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_camvid(tmp_path / "in", 3)
    shutil.make_archive(str(tmp_path / "pack"), "gztar", tmp_path / "in")
    with caplog.at_level("INFO", "hwdkit"):
        prepare("camvid", tmp_path, source=[tmp_path / "pack.tar.gz"], allow_partial=True)
    assert "pack.tar.gz: 4 files, " in caplog.text
