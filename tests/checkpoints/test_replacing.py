"""Files appear whole, or not at all; what was there stays until then, and for good where it must."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hwdkit.checkpoints.files import read_state_dict, replacing, save_tensors
from hwdkit.errors import EnvironmentFailure, UsageError


def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    """A real failure: the kernel refuses to let the file grow, as it does on a full disk."""
    program = """
import resource, signal, sys, torch
from pathlib import Path
from hwdkit.checkpoints.files import save_model, save_tensors
from hwdkit.errors import HwdkitError
old, big = {"w": torch.zeros(3)}, {"w": torch.ones(100_000)}
saves = [
    lambda state: save_model(Path("model"), state, {"format": 1}),
    lambda state: save_tensors(Path("state"), state),
]
for save in saves:
    save(old)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
for save in saves:
    try:
        save(big)
    except HwdkitError as error:
        print(error.exit_code, error)
"""
    source = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    for name in ("model", "state"):
        assert f"6 {name}: cannot write: File too large" in done.stdout
        assert torch.equal(read_state_dict(tmp_path / name)["w"], torch.zeros(3))
    assert done.stdout.count("free some space and try again") == 2
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model", "state"]


def test_an_error_while_writing_leaves_no_temporary_file(tmp_path: Path) -> None:
    def write_half() -> None:
        with replacing(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_failure_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EnvironmentFailure, match="cannot write"):
        save_tensors(tmp_path / "file" / "state.pt", {})


def test_a_folder_that_cannot_be_written_is_noticed_before_the_work() -> None:
    if not Path("/proc/self").exists():
        pytest.skip("needs a folder in which not even root can make a file")
    worked = False
    with pytest.raises(EnvironmentFailure, match="cannot write"), replacing(Path("/proc/hwdkit.onnx")):
        worked = True
    assert not worked


def test_folders_made_for_a_write_that_fails_are_gone_again(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for path in (tmp_path / "new" / "deeper" / "file", tmp_path / "mine" / "new" / "file"):
        with pytest.raises(ZeroDivisionError), replacing(path):
            raise ZeroDivisionError
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_never_takes_the_place_of_one_that_came_meanwhile(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"

    def without_links(*_: object) -> None:
        raise PermissionError

    if not links:  # as on FAT
        monkeypatch.setattr(os, "link", without_links)
    with replacing(path, new=True) as temporary:
        temporary.write_text("first")
    assert path.read_text() == "first"
    with pytest.raises(UsageError, match="exists by now"), replacing(path, new=True) as temporary:
        temporary.write_text("second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
    with replacing(path) as temporary:
        temporary.write_text("third")
    assert path.read_text() == "third"
