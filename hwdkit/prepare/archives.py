"""What is in an archive from the internet: its kind by content, and the files that may be unpacked.

Nothing is written here; `unpack.py` does that. Only contents of plain files are taken from an archive:
neither a link nor a permission of its choice reaches the disk, and no name leads out of the target.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from hwdkit.errors import DataError, EnvironmentFailure

RESERVED = ".unpack"
"""What hwdkit's own names in the folder that is unpacked to begin with; no member's may."""

MEMBERS_MAX = 2_000_000
"""More than any dataset of images has; an archive of empty files could otherwise fill the memory."""

NAME_MAX, NAME_SHOWN = 4096, 80
"""Characters of a name that any system can take, and of one in a message."""

HEADER_MAX = 1 << 20
"""More than the header of a file needs. tarfile reads a header whole, whatever size it declares."""

DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, OverflowError, IndexError, RecursionError),
)
"""What Python's readers raise for bytes that are not what they should be. bz2 raises a plain OSError."""

OTHER_FILES = {
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive, which hwdkit cannot read: unpack it and give the folder",
    b"Rar!": "a RAR archive, which hwdkit cannot read: unpack it and give the folder",
    b"\x28\xb5\x2f\xfd": "compressed with zstd, which hwdkit cannot read: unpack it and give the folder",
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


class Member(NamedTuple):
    """A file that is to be unpacked.

    Attributes:
        name: path below the target, with forward slashes.
        size: bytes, as the archive declares them; the content has no more.
        content: to be read before the next member is asked for.
        position: bytes of the archive that were read to get here.
    """

    name: str
    size: int
    content: IO[bytes]
    position: int


def members(archive: Path, *, free: int) -> Iterator[Member]:
    """Read what an archive would unpack to, inside `reading`.

    Of two members with one name the later one counts.

    Args:
        archive: .zip, .tar, .tar.gz, .tar.xz or .tar.bz2, recognised by content.
        free: bytes that all members together may have.

    Raises:
        DataError: not an archive, damaged, cut off, encrypted, or with a member that must not be unpacked.
        EnvironmentFailure: more than `free` bytes. For a zip archive before the first member.
    """
    read = _zip_members if require_archive(archive) == "zip" else _tar_members
    yield from read(archive, free)


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
    if head.startswith(tuple(COMPRESSED)) or head[257:262] == b"ustar" or _is_old_tar(head):
        return "tar"
    raise DataError(f"is {_description(head)}", where=str(path))


def _zip_members(archive: Path, free: int) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        infos = [info for info in opened.infolist() if _is_wanted_from_zip(info, archive)]
        if len(infos) > MEMBERS_MAX:
            raise DataError(f"has more than {MEMBERS_MAX} members", where=str(archive))
        _require_room(archive, sum(info.file_size for info in infos), free)
        position = 0
        for info in infos:
            position += info.compress_size
            with opened.open(info) as content:
                yield Member(_safe_name(info.filename, archive), info.file_size, content, position)


def _is_wanted_from_zip(info: zipfile.ZipInfo, archive: Path) -> bool:
    mode = stat.S_IFMT(info.external_attr >> 16)
    if stat.S_ISLNK(mode):
        raise _refused(archive, info.filename, "is a link; links are not unpacked")
    if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise _refused(archive, info.filename, "is a device or pipe; it is not unpacked")
    if info.is_dir() or _is_litter(_safe_name(info.filename, archive)):
        return False
    if info.flag_bits & ENCRYPTED:
        raise _refused(archive, info.filename, "is encrypted; unpack the archive yourself")
    if info.compress_type not in ZIP_METHODS:
        raise _refused(archive, info.filename, f"uses zip method {info.compress_type}; unpack it yourself")
    return True


def _tar_members(archive: Path, free: int) -> Iterator[Member]:
    total = 0
    with archive.open("rb") as raw:
        head = raw.read(BLOCK)
        raw.seek(0)
        opener = next((opener for magic, opener in COMPRESSED.items() if head.startswith(magic)), None)
        blocks = _LastRead(opener(raw) if opener else raw)
        with _tar_in(blocks, archive) as opened:
            for count, info in enumerate(opened):
                opened.members.clear()  # type: ignore[attr-defined]  # all headers would stay in memory
                if count >= MEMBERS_MAX:
                    raise DataError(f"has more than {MEMBERS_MAX} members", where=str(archive))
                if not _is_wanted_from_tar(info, archive):
                    continue
                total += info.size
                _require_room(archive, total, free)
                content = opened.extractfile(info)
                assert content is not None  # only links and folders have none
                yield Member(_safe_name(info.name, archive), info.size, content, raw.tell())
            # tarfile takes a damaged header, or none at all, for the end. A tar archive ends with zeros.
            if blocks.last != bytes(BLOCK):
                raise tarfile.ReadError("no end of archive where its last member ends")
            while blocks.read(1 << 20):  # decompress to the end: a cut or a wrong checksum shows only there
                pass


def _is_wanted_from_tar(info: tarfile.TarInfo, archive: Path) -> bool:
    name = _safe_name(info.name, archive)
    if info.size < 0:
        raise tarfile.ReadError(f"a member of {info.size} bytes")
    if info.issym() or info.islnk():
        raise _refused(archive, info.name, f"is a link to {_short(info.linkname)}; links are not unpacked")
    if not (info.isreg() or info.isdir()):
        raise _refused(archive, info.name, "is a device or pipe; it is not unpacked")
    return not (info.isdir() or _is_litter(name))


def _tar_in(blocks: _LastRead, archive: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=blocks, mode="r:")  # to list and to read: this creates no file, no link
    except tarfile.ReadError as error:
        message = f"is compressed, but what is in it is not a tar archive ({error})"
        raise DataError(message, where=str(archive)) from error


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


def _safe_name(name: str, archive: Path) -> str:
    """Turn a member's name into a path below the target, its odd characters kept.

    `tarfile.data_filter` knows neither Windows paths nor hwdkit's records, and zipfile silently renames.
    """
    if len(name) > NAME_MAX:
        raise _refused(archive, name, f"has a name of {len(name)} characters")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    # A Windows path is an ordinary name here, but not on every file system that may be mounted below.
    dangerous = name.startswith(("/", "\\")) or name[1:3] in (":\\", ":/") or "\0" in name
    if dangerous or any(".." in part.split("\\") for part in parts):
        raise _refused(archive, name, "leads out of the folder that it is unpacked to")
    if parts and parts[0].lower().startswith(RESERVED):
        raise _refused(archive, name, "has the name of hwdkit's own record of what is unpacked")
    return "/".join(parts)


def _is_litter(name: str) -> bool:
    """Say whether this is what archivers leave behind, never data; the archive's own folder is nothing."""
    parts = name.split("/")
    return not name or "__MACOSX" in parts or parts[-1].startswith("._") or parts[-1] == ".DS_Store"


@contextmanager
def reading(archive: Path) -> Iterator[None]:
    """Turn every way in which Python's readers fail over damaged bytes into one error with the name."""
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


def _require_room(archive: Path, size: int, free: int) -> None:
    if size > free:
        raise EnvironmentFailure(
            f"{archive.name} unpacks to {in_words(size)} or more, {in_words(free)} are free",
            hint="Make room, or choose another folder with --data-root.",
        )


def in_words(size: int) -> str:
    """Write a number of bytes as people do."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def _refused(archive: Path, name: str, why: str) -> DataError:
    return DataError(f"member {_short(name)} {why}", where=str(archive), hint="Nothing was unpacked.")


def _short(name: str) -> str:
    return repr(_cut(name))


def _cut(text: str) -> str:
    return text if len(text) <= NAME_SHOWN else f"{text[:NAME_SHOWN]}…"


def _is_old_tar(head: bytes) -> bool:
    """Tar from before `ustar` has no mark, but a checksum."""
    try:
        tarfile.TarInfo.frombuf(head[:BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _description(head: bytes) -> str:
    if not head:
        return "an empty file, not an archive"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")) or b"<html" in text:
        return "a web page, not an archive: the server sent a login or error page instead of the download"
    if text.startswith((b"{", b"[")):
        return "JSON text, not an archive: perhaps an answer of the server instead of the download"
    known = (what for magic, what in OTHER_FILES.items() if head.startswith(magic))
    return next(known, f"not an archive; it begins with {head[:8]!r}")
