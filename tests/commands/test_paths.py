"""Where a command may write is known before it reads anything."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tiny_runs import hwdkit

from hwdkit.errors import EnvironmentFailure, UsageError
from hwdkit.terminal import paths

WRITERS = {
    "visualize": "visualize panels --student none -o {}/e.png",
    "per-class-report": "per-class-report --student none --teacher none -o {}",
    "masks": "evaluate -c none --save-masks {}",
    "overlays": "evaluate -c none --save-overlays {}",
    "predictions": "evaluate -c none --save-predictions {}",
    "compare": "compare none -o {}",
    "export": "export -c none -o {}/a.onnx",
    "predict": "predict none.png -c none -o {}",
    "strip": "checkpoint strip none -o {}/a.safetensors",
    "card": "checkpoint card none -o {}/a.md",
    "copy": "recipes copy scenes-r10-hwd {}",
    "copy of one file": "recipes copy scenes-r10-hwd {}/mine.yaml --resolved",
}


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that the system says nobody may write to: root may write to all others."""
    folder, ask = tmp_path / "closed", os.access
    folder.mkdir()

    def asked(path: str | Path, mode: int) -> bool:
        return ask(path, mode) and not (Path(path) == folder and mode & os.W_OK)

    monkeypatch.setattr(os, "access", asked)
    return folder


@pytest.mark.parametrize("line", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("below", ["", "/new/er"])
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_read(
    closed: Path, line: str, below: str
) -> None:
    done = hwdkit(*line.format(f"{closed}{below}").split())
    assert done.code == 6, done.err
    assert done.err.startswith(f"error[environment]: {closed}{below}")
    assert "cannot write: Permission denied" in done.err
    assert list(closed.iterdir()) == []


@pytest.mark.parametrize("line", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("place", ["file", "file/new", "nowhere", "nowhere/new"])
def test_a_file_or_a_dead_link_in_the_way_of_a_folder_is_a_usage_error(line: str, place: str) -> None:
    Path("file").touch()
    Path("nowhere").symlink_to("gone")
    done = hwdkit(*line.format(place).split())
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    assert sorted(path.name for path in Path().iterdir()) == ["file", "nowhere"]


def test_the_table_alone_needs_no_folder(closed: Path) -> None:
    line = ["per-class-report", "--student", "none", "--teacher", "none", "-o", closed, "--format", "table"]
    assert hwdkit(*line).code == 5


def test_a_read_only_file_system_is_called_so(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = os.statvfs(closed)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*seen[:8], os.ST_RDONLY, seen[9])))
    with pytest.raises(EnvironmentFailure, match=os.strerror(errno.EROFS)) as caught:
        paths.require_writable("--out", closed / "a" / "b")
    assert caught.value.where == str(closed / "a" / "b")


def test_a_folder_that_is_open_or_can_be_made_is_handed_back(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "a" / "b", Path("c"), Path()):
        assert paths.require_writable("--out", folder) == folder
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named() -> None:
    Path("file").touch()
    with pytest.raises(UsageError, match="file is a file, not a folder"):
        paths.require_writable("--out", Path("file/a/b"))
