"""What `hwdkit prepare-data` returns and shows."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from hwdkit.commands import prepare_data
from hwdkit.errors import DataError, EnvironmentFailure


def draw(root: Path, **options: bool) -> dict[str, object]:
    return prepare_data.run("scenes", root=root, train=3, val=2, size=(32, 32), **options)


def test_the_result_is_json_and_its_shares_add_up(tmp_path: Path) -> None:
    result = json.loads(json.dumps(draw(tmp_path)))
    assert result["images"] == {"train": 3, "val": 2}
    assert result["already_prepared"] is False
    assert result["files_root"] == str(tmp_path / "scenes")
    for split in ("train", "val"):
        assert sum(entry["share"][split] for entry in result["classes"]) == pytest.approx(1)
        assert 0 <= result["ignored"][split] < 1
        assert sum(result["raw_ids"][split].values()) == result["images"][split] * 32 * 32


def test_a_second_run_says_so(tmp_path: Path) -> None:
    first, second = draw(tmp_path), draw(tmp_path)
    assert second == {**first, "already_prepared": True}
    checked = prepare_data.run("scenes", root=tmp_path, check=True)
    assert checked["checked_only"] is True
    assert checked["fingerprint"] == first["fingerprint"]


def test_the_table_names_every_class_and_marks_the_absent_ones(tmp_path: Path) -> None:
    result = draw(tmp_path)
    result["classes"][0]["share"]["train"] = 0.0  # type: ignore[index]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(prepare_data.render(result))
    text = console.export_text()
    for entry in result["classes"]:  # type: ignore[attr-defined]
        assert entry["name"] in text
    assert "scenes: prepared: 3 train, 2 val" in text
    assert str(result["fingerprint"]) in text
    row = next(line for line in text.splitlines() if "road" in line)
    assert "-" in row.split()


def test_options_of_scenes_mean_nothing_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--train, --seed only means something for scenes"):
        prepare_data.run("camvid", root=tmp_path, train=3, seed=1)


def test_scenes_take_no_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="takes no --source"):
        prepare_data.run("scenes", root=tmp_path, source=tmp_path)


def test_a_full_disk_is_the_machines_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("PIL.Image.Image.save", full)
    with pytest.raises(EnvironmentFailure, match="No space left on device") as caught:
        draw(tmp_path)
    assert caught.value.exit_code == 6
    assert list(tmp_path.iterdir()) == []
