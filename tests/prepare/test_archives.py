"""Unpacking downloads: hostile and damaged archives are refused, and a stopped run never looks complete."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from tiny_trees import kill_while_unpacking

from hwdkit.errors import DataError, EnvironmentFailure
from hwdkit.prepare import unpack as unpacking
from hwdkit.prepare.archives import reading
from hwdkit.prepare.unpack import PARTIAL, RECORD, is_unpacked, unfinished, unpack

CONTENT = {
    "set/images/a.jpg": b"first" * 100,
    "set/images/später & (1) 'x'.jpg": b"second",
    "set/empty.txt": b"",
}
WRITERS = ["pack.zip", "pack.tar", "pack.tar.gz", "pack.tgz", "pack.tar.xz", "pack.tar.bz2"]


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, members: list[tarfile.TarInfo | tuple[str, bytes]]) -> Path:
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz", ".bz2": "w:bz2"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def write(path: Path, files: dict[str, bytes]) -> Path:
    return write_zip(path, files) if path.suffix == ".zip" else write_tar(path, list(files.items()))


def unpacked(folder: Path) -> dict[str, bytes]:
    """Everything below a folder but the record."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != RECORD]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def assert_refused(archive: Path, into: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        unpack([archive], into)
    for word in (archive.name, *words):
        assert word in str(caught.value)
    assert unpacked(into) == {}, "a refused archive must leave nothing"
    assert not is_unpacked([archive], into)


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_archive_is_unpacked_with_its_names(tmp_path: Path, name: str) -> None:
    unpack([write(tmp_path / name, CONTENT)], tmp_path / "files")
    assert unpacked(tmp_path / "files") == CONTENT


@pytest.mark.parametrize("name", ["pack.zip", "pack.tar.gz"])
def test_the_kind_is_told_by_content_and_not_by_name(tmp_path: Path, name: str) -> None:
    misnamed = tmp_path / "download"
    write(tmp_path / name, CONTENT).rename(misnamed)
    unpack([misnamed], tmp_path / "files")
    assert unpacked(tmp_path / "files") == CONTENT


def test_several_archives_meet_in_one_folder_and_the_later_one_wins(tmp_path: Path) -> None:
    first = write(tmp_path / "a.zip", {"README": b"one", "left/1.png": b"l"})
    second = write(tmp_path / "b.tar", {"README": b"two", "right/1.png": b"r"})
    unpack([first, second], tmp_path / "files")
    assert unpacked(tmp_path / "files") == {"README": b"two", "left/1.png": b"l", "right/1.png": b"r"}


@pytest.mark.parametrize("later", ["b.zip", "b.tar"])
def test_the_later_archive_wins_though_the_earlier_one_was_touched(tmp_path: Path, later: str) -> None:
    first = write(tmp_path / "a.zip", {"README": b"one"})
    second = write(tmp_path / later, {"README": b"two"})
    unpack([first, second], tmp_path / "files")
    os.utime(first, (1, 1))
    unpack([first, second], tmp_path / "files")
    assert unpacked(tmp_path / "files") == {"README": b"two"}


@pytest.mark.parametrize("name", ["pack.zip", "pack.tar"])
def test_of_two_members_with_one_name_the_later_stays(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x", b"old, longer")
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr("x", b"new")
    else:
        write_tar(path, [("x", b"old, longer"), ("x", b"new")])
    unpack([path], tmp_path / "files")
    assert unpacked(tmp_path / "files") == {"x": b"new"}


def test_litter_of_archivers_is_left_out(tmp_path: Path) -> None:
    litter = {"__MACOSX/set/._a.jpg": b"m", "set/._a.jpg": b"m", "set/.DS_Store": b"m"}
    for name in ("pack.zip", "pack.tar"):
        into = tmp_path / name.replace(".", "-")
        unpack([write(tmp_path / name, CONTENT | litter)], into)
        assert unpacked(into) == CONTENT


@pytest.mark.parametrize(
    "name", ["../out", "a/../../out", "/out", "C:\\out", "a\\..\\..\\out", "\\\\host\\out"]
)
@pytest.mark.parametrize("kind", ["pack.zip", "pack.tar.gz"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    archive = write(tmp_path / kind, {"fine.txt": b"", name: b"gotcha"})
    assert_refused(archive, tmp_path / "deep" / "files", repr(name), "leads out")
    assert list(tmp_path.rglob("*out")) == []


@pytest.mark.parametrize("name", [".unpacked.json", "./.Unpacking/x"])
@pytest.mark.parametrize("kind", ["pack.zip", "pack.tar"])
def test_a_name_of_our_own_records_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    archive = write(tmp_path / kind, {name: b"{}"})
    assert_refused(archive, tmp_path / "files", repr(name), "hwdkit's own record")


def header(kind: bytes, size: int, name: str = "x") -> bytes:
    """A header of 512 bytes; sizes below zero are written as GNU tar writes them."""
    info = tarfile.TarInfo(name)
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = (
        b"%011o\0" % size if 0 <= size < 8**11 else b"\xff" + size.to_bytes(11, "big", signed=True)
    )
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [(1 << 20) + 1, -600])
def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path, kind: bytes, size: int) -> None:
    archive = tmp_path / "pack.tar.gz"
    content = header(kind, size) + bytes(2 << 20) + header(tarfile.REGTYPE, 0) + bytes(1024)
    archive.write_bytes(gzip.compress(content, 1))
    assert_refused(archive, tmp_path / "files", "a header of ")


def test_a_long_name_is_refused_and_shortened_in_the_message(tmp_path: Path) -> None:
    archive = write(tmp_path / "pack.tar", {"x" * 5000: b""})
    assert_refused(archive, tmp_path / "files", f"'{'x' * 80}…' has a name of 5000 characters")
    archive = write(tmp_path / "pack.tar", {"../" + "x" * 3000: b""})
    with pytest.raises(DataError, match="leads out") as caught:
        unpack([archive], tmp_path / "files")
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("size", [-1024, 1 << 70])
def test_a_member_of_an_impossible_size_is_damage(tmp_path: Path, size: int) -> None:
    archive = tmp_path / "pack.tar"
    archive.write_bytes(header(tarfile.REGTYPE, 0) + header(tarfile.REGTYPE, size) + bytes(1024))
    with pytest.raises(DataError):
        unpack([archive], tmp_path / "files")
    assert unpacked(tmp_path / "files") == {}


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
        OverflowError("a"),
        IndexError("a"),
        RecursionError("a"),
        OSError(errno.EINVAL, "Invalid argument"),
    ],
)
def test_whatever_python_raises_for_damaged_bytes_names_the_archive(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(DataError, match=r"pack\.zip: is damaged") as caught, reading(tmp_path / "pack.zip"):
        raise error
    assert "run the command again with the new file" in caught.value.hint


def test_a_chain_of_headers_without_end_is_damage(tmp_path: Path) -> None:
    archive = tmp_path / "pack.tar"
    archive.write_bytes(header(tarfile.XHDTYPE, 0) * 3000 + bytes(1024))
    assert_refused(archive, tmp_path / "files", "is damaged")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "is a link to '../../etc'"),
        (tarfile.LNKTYPE, "is a link to '../../etc'"),
        (tarfile.CHRTYPE, "is a device or pipe"),
        (tarfile.BLKTYPE, "is a device or pipe"),
        (tarfile.FIFOTYPE, "is a device or pipe"),
    ],
)
def test_links_and_devices_in_a_tar_are_refused_by_name(tmp_path: Path, kind: bytes, words: str) -> None:
    member = tarfile.TarInfo("set/strange")
    member.type, member.linkname = kind, "../../etc"
    archive = write_tar(tmp_path / "pack.tar", [("a", b"1"), member])
    assert_refused(archive, tmp_path / "files", "'set/strange'", words)


@pytest.mark.parametrize(("mode", "words"), [(0o120777, "is a link"), (0o010644, "is a device or pipe")])
def test_links_and_pipes_in_a_zip_are_refused_by_name(tmp_path: Path, mode: int, words: str) -> None:
    info = zipfile.ZipInfo("set/strange")
    info.create_system, info.external_attr = 3, mode << 16
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as archive:
        archive.writestr(info, "../../etc")
    assert_refused(tmp_path / "pack.zip", tmp_path / "files", "'set/strange'", words)


def test_a_link_that_lies_in_the_target_is_not_followed_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "set").symlink_to(tmp_path / "mine")
    with pytest.raises(DataError, match="files/set is a link, and set would replace it"):
        unpack([write(tmp_path / "pack.zip", CONTENT)], tmp_path / "files")
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xef\xbb\xbf \n<!DOCTYPE html><html>Please sign in", "web page"),
        (b"<HTML>404", "is a web page, not an archive"),
        (b"", "is an empty file, not an archive"),
        (b'{"error": "denied"}', "JSON text"),
        (b"7z\xbc\xaf\x27\x1c....", "7-Zip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG image, not an archive"),
        (b"%PDF-1.7", "is a PDF, not an archive"),
        (b"0123456789" * 100, "begins with b'01234567'"),
    ],
)
def test_what_is_not_an_archive_is_named_as_what_it_is(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "ADEChallengeData2016.zip"
    path.write_bytes(content)
    assert_refused(path, tmp_path / "files", words)


def test_a_compressed_file_without_a_tar_in_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.tar.gz"
    path.write_bytes(gzip.compress(b"no tar" * 300))
    assert_refused(path, tmp_path / "files", "not a tar archive")


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_download_that_was_cut_off_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, share: float
) -> None:
    noise = random.Random(0)
    archive = write(tmp_path / name, {f"{i}.bin": noise.randbytes(1000 + i) for i in range(40)})
    whole = archive.read_bytes().rstrip(b"\0") if archive.suffix == ".tar" else archive.read_bytes()
    archive.write_bytes(whole[: int(share * len(whole))])
    assert_refused(archive, tmp_path / "files", "is damaged or was cut off", "Download it again")


def test_a_tar_that_was_cut_between_two_members_is_refused(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "pack.tar", [("a", b"1"), ("b", b"2")])
    archive.write_bytes(archive.read_bytes()[:1024])
    assert_refused(archive, tmp_path / "files", "is damaged or was cut off")


def test_a_damaged_header_inside_a_tar_is_not_taken_for_its_end(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "pack.tar", [("a", b"1"), ("b", b"2"), ("c", b"3")])
    data = bytearray(archive.read_bytes())
    data[1024:1034] = b"x" * 10
    archive.write_bytes(data)
    assert_refused(archive, tmp_path / "files", "is damaged or was cut off")


def test_damaged_content_in_a_zip_is_named_and_leaves_no_half_file(tmp_path: Path) -> None:
    archive = tmp_path / "pack.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("a.bin", b"A" * 5000)
    archive.write_bytes(archive.read_bytes().replace(b"A" * 10, b"B" * 10, 1))
    assert_refused(archive, tmp_path / "files", "is damaged or was cut off", "CRC")


def test_a_member_that_unpacks_to_more_than_it_declares_is_stopped(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "pack.zip", {"bomb": b"\0" * 100_000})
    data = archive.read_bytes()
    archive.write_bytes(data.replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    assert_refused(archive, tmp_path / "files")


def test_more_than_the_disk_has_room_for_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(1, 1, 99_999)
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda _: usage)
    zipped = write_zip(tmp_path / "pack.zip", {"bomb": b"\0" * 100_000})
    tarred = write_tar(tmp_path / "pack.tar.gz", [("bomb", b"\0" * 100_000)])
    for bomb in (zipped, tarred):
        assert bomb.stat().st_size < 1000
        with pytest.raises(EnvironmentFailure, match=r"unpacks to 100\.0 kB or more, 100\.0 kB are free"):
            unpack([bomb], tmp_path / "files")
        assert not (tmp_path / "files").exists()


def test_an_encrypted_zip_is_named(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "pack.zip", {"secret": b"x"})
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    assert_refused(archive, tmp_path / "files", "'secret' is encrypted")


def test_a_file_that_is_also_a_folder_is_a_data_error(tmp_path: Path) -> None:
    archive = write(tmp_path / "pack.tar", {"a": b"1", "a/b": b"2"})
    with pytest.raises(DataError, match="'a/b' is both a file and a folder"):
        unpack([archive], tmp_path / "files")
    assert not is_unpacked([archive], tmp_path / "files")


def times(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in unpacked(folder)}


@pytest.mark.parametrize("name", ["pack.zip", "pack.tar.gz"])
def test_unpacking_twice_does_nothing(tmp_path: Path, name: str) -> None:
    archive, files = write(tmp_path / name, CONTENT), tmp_path / "files"
    unpack([archive], files)
    before = times(files)
    assert is_unpacked([archive], files)
    unpack([archive], files)
    assert times(files) == before
    (files / "set/empty.txt").unlink()
    unpack([archive], files)
    assert not (files / "set/empty.txt").exists(), "the record is believed"
    unpack([archive], files, again=True)
    assert unpacked(files) == CONTENT


@pytest.mark.parametrize("name", ["pack.zip", "pack.tar.gz"])
def test_another_archive_of_the_same_name_is_unpacked_anew(tmp_path: Path, name: str) -> None:
    files = tmp_path / "files"
    unpack([write(tmp_path / name, {"x": b"old"})], files)
    (tmp_path / name).unlink()
    unpack([write(tmp_path / name, {"x": b"new", "y": b""})], files)
    assert unpacked(files) == {"x": b"new", "y": b""}


def test_files_that_no_archive_on_record_has_brought_are_not_replaced(tmp_path: Path) -> None:
    archive, files = write(tmp_path / "pack.zip", CONTENT), tmp_path / "files"
    (files / "set").mkdir(parents=True)
    (files / "set" / "mine.txt").write_bytes(b"mine")
    with pytest.raises(DataError, match="holds set, and no record of the archive"):
        unpack([archive], files)
    assert unpacked(files) == {"set/mine.txt": b"mine"}


def test_what_hwdkit_0_1_unpacked_is_unpacked_again(tmp_path: Path) -> None:
    archive, files = write(tmp_path / "pack.zip", {"set/a": b"1"}), tmp_path / "files"
    (files / ".unpacked").mkdir(parents=True)  # its records were files in this folder
    (files / "set").mkdir()
    unpack([archive], files)
    assert unpacked(files) == {"set/a": b"1"}
    assert is_unpacked([archive], files)


@pytest.mark.parametrize("name", ["pack.zip", "pack.tar"])
@pytest.mark.parametrize("earlier", [False, True])
def test_an_interrupted_run_leaves_what_was_there_before(tmp_path: Path, name: str, earlier: bool) -> None:
    archive, files = write(tmp_path / name, {"set/a": b"1", "set/b": b"2"}), tmp_path / "files"
    if earlier:
        unpack([archive], files)

    def stop(doing: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack([archive], files, again=True, progress=stop)
    assert files.exists() is earlier
    assert unpacked(files) == ({"set/a": b"1", "set/b": b"2"} if earlier else {})
    assert is_unpacked([archive], files) is earlier
    assert unfinished(files) == []


@pytest.mark.parametrize("name", ["pack.zip", "pack.tar.gz"])
def test_a_killed_run_does_not_look_complete_and_the_next_one_finishes(tmp_path: Path, name: str) -> None:
    archive, files = write(tmp_path / name, {"a": b"1", "b": b"2"}), tmp_path / "files"
    kill_while_unpacking(archive, files)
    assert unfinished(files) == [name]
    assert not is_unpacked([archive], files)
    assert [path.name for path in files.iterdir()] == [PARTIAL], "nothing has its own name yet"
    unpack([archive], files)
    assert unpacked(files) == {"a": b"1", "b": b"2"}
    assert unfinished(files) == []


@pytest.mark.parametrize("moved", [1, 2])
def test_a_run_that_was_killed_while_moving_does_not_look_complete(tmp_path: Path, moved: int) -> None:
    archive, files = write(tmp_path / "pack.zip", {"a": b"1", "b": b"2"}), tmp_path / "files"
    unpack([archive], files)
    program = f"""if True:
        import os, signal, sys
        from pathlib import Path
        from hwdkit.prepare.unpack import unpack
        replace, moved = os.replace, []
        def replace_or_die(part, target):
            if len(moved) == {moved}:
                os.kill(os.getpid(), signal.SIGKILL)
            moved.append(replace(part, target))
        os.replace = replace_or_die
        unpack([Path(sys.argv[1])], Path(sys.argv[2]), again=True)
    """
    line = [sys.executable, "-c", program, str(archive), str(files)]
    assert subprocess.run(line, cwd=Path(__file__).parents[2]).returncode == -signal.SIGKILL
    assert unfinished(files) == ["pack.zip"]
    assert not is_unpacked([archive], files)
    unpack([archive], files)
    assert unpacked(files) == {"a": b"1", "b": b"2"}
    assert unfinished(files) == []


def test_progress_is_told_in_bytes_of_the_archive(tmp_path: Path) -> None:
    archive = write(tmp_path / "pack.tar", {f"{i}.bin": bytes(700_000) for i in range(4)})
    calls: list[tuple[str, int, int]] = []
    unpack([archive], tmp_path / "files", progress=lambda *call: calls.append(call))
    assert {(doing, total) for doing, _, total in calls} == {("unpacking pack.tar, MiB", 2)}
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


def test_a_missing_archive_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pack\.zip: cannot be read"):
        unpack([tmp_path / "pack.zip"], tmp_path / "files")


def test_a_name_that_is_no_utf_8_is_kept(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "pack.tar", [("caf\udce9.txt", b"x")])
    with contextlib.suppress(OSError):  # some file systems refuse it
        unpack([archive], tmp_path / "files")
        assert os.listdir(os.fsencode(tmp_path / "files"))[0] in (b"caf\xe9.txt", b".unpacked.json")
