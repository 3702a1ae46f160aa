"""Takes the files out of one archive from the internet, or refuses it.

Only the content of plain files is taken: neither a link nor a permission of the archive reaches the disk, and
no name leads out of the target. Which archives go into which folder, and when, is `unpack.py`.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import logging
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rich.filesize import decimal

from hwdkit.data.parallel import Progress
from hwdkit.errors import DataError, EnvironmentFailure

log = logging.getLogger("hwdkit")

RESERVED = ".unpack"
"""Start of the names of hwdkit's own records in the target; no member may have it."""

MEMBERS_MAX = 2_000_000
"""More than any dataset of images has; an archive of empty files could otherwise fill the memory."""

NAME_MAX, NAME_SHOWN = 4096, 80
"""Characters of a member's name, and of a name in a message."""

HEADER_MAX = 1 << 20
"""More than the header of a file needs. tarfile reads a header whole, whatever size it declares."""

DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, OverflowError, IndexError, RecursionError),
)
"""What Python's readers raise for damaged bytes. bz2 raises a plain OSError."""

UNUSABLE_NAME = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}
OTHER_FILES = {
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive, which hwdkit cannot read: unpack it and pass the folder",
    b"Rar!": "a RAR archive, which hwdkit cannot read: unpack it and pass the folder",
    b"\x28\xb5\x2f\xfd": "compressed with zstd, which hwdkit cannot read: unpack it and pass the folder",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself: run git lfs pull",
    b"%PDF": "a PDF, not an archive",
    b"\xff\xd8\xff": "a JPEG image, not an archive",
    b"\x89PNG": "a PNG image, not an archive",
}
COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"BZh": bz2.open,
}
ZIP_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
ENCRYPTED = 0x1
BLOCK = 512

Member = tuple[str, int, IO[bytes], int]
"""A file's path below the target, bytes as declared (there are no more), content (to be read before the next
member is asked for), and how many bytes of the archive were read to get here."""


def extract(archive: Path, into: Path, progress: Progress | None = None) -> None:
    """Write the files of an archive below a folder. Of two members with one name the later one counts.

    Args:
        archive: .zip, .tar, .tar.gz, .tar.xz or .tar.bz2, recognised by content.
        into: an empty folder, or one that earlier archives were extracted to.
        progress: called with MiB of the archive.

    Raises:
        DataError: not an archive, damaged, cut off, encrypted, or with a member that must not be unpacked.
        EnvironmentFailure: more than the disk has room for; of a zip archive before anything is written.
    """
    members = _zip_members if require_archive(archive) == "zip" else _tar_members
    count = total = 0
    mebibytes = max(1, archive.stat().st_size >> 20)
    with reading(archive):
        for name, size, content, position in members(archive, shutil.disk_usage(into).free):
            _write(content, into, name, archive)
            count, total = count + 1, total + size
            if progress is not None:
                progress(f"unpacking {archive.name}, MiB", min(position >> 20, mebibytes), mebibytes)
    log.info("%s: %d files, %s when unpacked", archive.name, count, decimal(total))


def require_archive(path: Path) -> str:
    """Return "zip" or "tar", by the first bytes.

    Raises:
        DataError: it is neither; says what it is instead.
    """
    try:
        with path.open("rb") as file:
            head = file.read(2 * BLOCK)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path)) from error
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return "zip"
    if head.startswith(tuple(COMPRESSED)) or head[257:262] == b"ustar":
        return "tar"
    try:  # tar from before `ustar` has no mark, but a checksum
        tarfile.TarInfo.frombuf(head[:BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        raise DataError(f"is {_description(head)}", where=str(path)) from None
    return "tar"


@contextmanager
def reading(archive: Path) -> Iterator[None]:
    """Turn whatever Python's readers raise over damaged bytes into one error that names the archive."""
    try:
        yield
    except NotImplementedError as error:  # zipfile, of features that it does not have
        raise DataError(f"cannot be unpacked ({error}); unpack it yourself", where=str(archive)) from error
    except (*DAMAGED, OSError) as error:
        # EINVAL: a seek to where a damaged header points.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise DataError(
            f"is damaged or was cut off ({_cut(str(error))})",
            where=str(archive),
            hint="Download it again, and run the command again with the new file.",
        ) from error


def _zip_members(archive: Path, free: int) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        names = [_zip_name(info, archive) for info in opened.infolist()]
        files = [(name, info) for name, info in zip(names, opened.infolist(), strict=True) if name]
        _require_few(archive, len(files))
        _require_room(archive, sum(info.file_size for _, info in files), free)
        position = 0
        for name, info in files:
            position += info.compress_size
            with opened.open(info) as content:
                yield name, info.file_size, content, position


def _zip_name(info: zipfile.ZipInfo, archive: Path) -> str:
    mode = stat.S_IFMT(info.external_attr >> 16)
    if stat.S_ISLNK(mode):
        raise _refusal(archive, info.filename, "is a link; links are not unpacked")
    if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise _refusal(archive, info.filename, "is a device or pipe; it is not unpacked")
    name = "" if info.is_dir() else _path_below(info.filename, archive)
    if name and info.flag_bits & ENCRYPTED:
        raise _refusal(archive, name, "is encrypted; unpack the archive yourself")
    if name and info.compress_type not in ZIP_METHODS:
        raise _refusal(archive, name, f"uses zip method {info.compress_type}; unpack it yourself")
    return name


def _tar_members(archive: Path, free: int) -> Iterator[Member]:
    total = 0
    with archive.open("rb") as raw:
        head = raw.read(BLOCK)
        raw.seek(0)
        opener = next((opener for magic, opener in COMPRESSED.items() if head.startswith(magic)), None)
        blocks = _LastRead(opener(raw) if opener else raw)
        with _tar_in(blocks, archive) as opened:
            for count, info in enumerate(opened, 1):
                opened.members.clear()  # type: ignore[attr-defined]  # all headers would stay in memory
                _require_few(archive, count)
                name = _tar_name(info, archive)
                if name:
                    total += info.size
                    _require_room(archive, total, free)
                    content = opened.extractfile(info)
                    assert content is not None  # only links and folders have none
                    yield name, info.size, content, raw.tell()
            # tarfile takes a damaged header, or none at all, for the end. A tar archive ends with zeros.
            if blocks.last != bytes(BLOCK):
                raise tarfile.ReadError("no end of archive where its last member ends")
            while blocks.read(1 << 20):  # decompress to the end: a cut or a wrong checksum shows only there
                pass


def _tar_in(blocks: _LastRead, archive: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=blocks, mode="r:")
    except tarfile.ReadError as error:
        message = f"is compressed, but what is in it is not a tar archive ({error})"
        raise DataError(message, where=str(archive)) from error


def _tar_name(info: tarfile.TarInfo, archive: Path) -> str:
    name = _path_below(info.name, archive)
    if info.size < 0:
        raise tarfile.ReadError(f"a member of {info.size} bytes")
    if info.issym() or info.islnk():
        target = repr(_cut(info.linkname))
        raise _refusal(archive, info.name, f"is a link to {target}; links are not unpacked")
    if not (info.isreg() or info.isdir()):
        raise _refusal(archive, info.name, "is a device or pipe; it is not unpacked")
    return "" if info.isdir() else name


class _LastRead(io.RawIOBase):
    """A file that remembers what was last read from it, and reads only so much at a time."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.last = b""

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= HEADER_MAX:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self.last = self._file.read(size)
        return self.last

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _path_below(name: str, archive: Path) -> str:
    """Turn a member's name into a path below the target; empty for the files that archivers add, never data.

    `tarfile.data_filter` knows neither Windows paths nor hwdkit's records, and zipfile silently renames.
    """
    if len(name) > NAME_MAX:
        raise _refusal(archive, name, f"has a name of {len(name)} characters")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    # A Windows path is an ordinary name here, but not on every file system that may be mounted below.
    dangerous = name.startswith(("/", "\\")) or name[1:3] in (":\\", ":/") or "\0" in name
    if dangerous or any(".." in part.split("\\") for part in parts):
        raise _refusal(archive, name, "leads out of the folder that it is unpacked to")
    if parts and parts[0].lower().startswith(RESERVED):
        raise _refusal(archive, name, "has the name of hwdkit's own record of what is unpacked")
    is_litter = "__MACOSX" in parts or parts[-1:] == [".DS_Store"] or (parts and parts[-1].startswith("._"))
    return "" if is_litter else "/".join(parts)


def _write(content: IO[bytes], into: Path, name: str, archive: Path) -> None:
    target = into / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise _refusal(archive, name, "is both a file and a folder") from error
    except FileNotFoundError as error:
        raise DataError(f"{target.parent} was deleted; is another hwdkit unpacking there?") from error
    except OSError as error:
        if error.errno in UNUSABLE_NAME:
            raise _refusal(archive, name, f"cannot be written: {error.strerror}") from error
        raise


def _require_few(archive: Path, count: int) -> None:
    if count > MEMBERS_MAX:
        raise DataError(f"has more than {MEMBERS_MAX} members", where=str(archive))


def _require_room(archive: Path, size: int, free: int) -> None:
    if size > free:
        raise EnvironmentFailure(
            f"{archive.name} unpacks to {decimal(size)} or more, {decimal(free)} are free",
            hint="Free some space, or choose another folder with --data-root.",
        )


def _refusal(archive: Path, name: str, reason: str) -> DataError:
    return DataError(f"member {_cut(name)!r} {reason}", where=str(archive), hint="Nothing was unpacked.")


def _cut(text: str) -> str:
    return text if len(text) <= NAME_SHOWN else f"{text[:NAME_SHOWN]}…"


def _description(head: bytes) -> str:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head:
        return "an empty file, not an archive"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")) or b"<html" in text:
        return "a web page, not an archive: the server sent a login or error page instead of the download"
    if text.startswith((b"{", b"[")):
        return "JSON text, not an archive: perhaps an answer of the server instead of the download"
    names = (name for magic, name in OTHER_FILES.items() if head.startswith(magic))
    return next(names, f"not an archive; it begins with {head[:8]!r}")
