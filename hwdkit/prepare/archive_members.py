"""What is in an archive that came from the internet: its kind by content, and which members may be unpacked.

Nothing is written here; that is `archives.py`. Every name is taken for hostile until it has been looked at.
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
from typing import IO, Any, Literal, NamedTuple

from hwdkit.errors import DataError
from hwdkit.prepare.unpack_records import PARTS, RECORDS

Kind = Literal["zip", "tar"]

MEMBERS_MAX = 2_000_000
"""More than any dataset of images has; an archive of empty files could otherwise fill the memory."""

NAME_MAX, NAME_SHOWN = 4096, 80
"""Characters of a name that any system can take, and of one in a message."""

HEADER_MAX = 1 << 20
"""More than the header of a file needs. tarfile reads a header whole, whatever size it declares."""

DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    struct.error,
    ValueError,
    OverflowError,
    IndexError,
    RecursionError,
)
"""What Python's readers raise for bytes that are not what they should be. bz2 raises a plain OSError."""

FOREIGN = {
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive, which hwdkit cannot read: unpack it and give the folder",
    b"Rar!": "a RAR archive, which hwdkit cannot read: unpack it and give the folder",
    b"\x28\xb5\x2f\xfd": "compressed with zstd, which hwdkit cannot read: unpack it and give the folder",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself: run git lfs pull",
    b"%PDF": "a PDF",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
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
        position: its number in the archive, litter and folders counted.
        name: path below the target, with forward slashes.
        size: bytes, as the archive declares them.
        crc: CRC-32 of the content; None where the format has none.
    """

    position: int
    name: str
    size: int
    crc: int | None


def kind_of(archive: Path) -> Kind:
    """Say what an archive is by its first bytes, whatever its name says.

    Raises:
        DataError: it is none that can be read; says what it is instead.
    """
    try:
        with archive.open("rb") as file:
            head = file.read(2 * BLOCK)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(archive)) from error
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return "zip"
    if head.startswith(tuple(COMPRESSED)) or head[257:262] == b"ustar" or _is_old_tar(head):
        return "tar"
    raise DataError(f"is no archive, but {_description(head)}", where=str(archive))


def zip_members(archive: Path) -> list[Member]:
    """List what a zip archive would unpack to; of two members with one name the later.

    Raises:
        DataError: cut off, encrypted, or with a member that must not be unpacked.
    """
    found: dict[str, Member] = {}
    with reading(archive), zipfile.ZipFile(archive) as opened:
        for position, info in enumerate(opened.infolist()):
            name = safe_name(info.filename, archive)
            mode = stat.S_IFMT(info.external_attr >> 16)
            if stat.S_ISLNK(mode):
                raise _refused(archive, info.filename, "is a link; links are not unpacked")
            if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise _refused(archive, info.filename, "is a device or pipe; it is not unpacked")
            if info.is_dir() or is_litter(name):
                continue
            if info.flag_bits & ENCRYPTED:
                raise _refused(archive, info.filename, "is encrypted; unpack the archive yourself")
            if info.compress_type not in ZIP_METHODS:
                raise _refused(
                    archive, info.filename, f"uses zip method {info.compress_type}; unpack it yourself"
                )
            found[name] = Member(position, name, info.file_size, info.CRC)
            _bounded(archive, position)
    return sorted(found.values())


def tar_members(
    archive: Path, *, limit: int | None = None, advance: Callable[[int], None] | None = None
) -> Iterator[tuple[Member, IO[bytes]]]:
    """Read a tar archive from beginning to end, compressed or not.

    Args:
        archive: which file.
        limit: bytes that all members together may declare; reading stops there. None: any number.
        advance: told how many bytes of the archive have been read.

    Yields:
        Each file that may be unpacked, and its content, to be read before the next one is asked for.

    Raises:
        DataError: cut off, damaged, more than the limit, or with a member that must not be unpacked.
    """
    total = 0
    with reading(archive), archive.open("rb") as raw:
        head = raw.read(BLOCK)
        raw.seek(0)
        opener = next((opener for magic, opener in COMPRESSED.items() if head.startswith(magic)), None)
        blocks = _LastRead(opener(raw) if opener else raw)
        with _tar_in(blocks, archive) as opened:
            for position, info in enumerate(opened):
                # All headers would stay in memory to the end.
                opened.members.clear()  # type: ignore[attr-defined]  # documented nowhere, and in typeshed neither
                name = safe_name(info.name, archive)
                if info.size < 0:
                    raise tarfile.ReadError(f"a member of {info.size} bytes")
                if info.issym() or info.islnk():
                    raise _refused(
                        archive, info.name, f"is a link to {_short(info.linkname)}; links are not unpacked"
                    )
                if not (info.isreg() or info.isdir()):
                    raise _refused(archive, info.name, "is a device or pipe; it is not unpacked")
                _bounded(archive, position)
                if info.isdir() or is_litter(name):
                    continue
                total += info.size
                if limit is not None and total > limit:
                    raise DataError(
                        f"unpacks to more than {limit} bytes, which is more than there is room for",
                        where=str(archive),
                    )
                content = opened.extractfile(info)
                assert content is not None  # only links and folders have none
                yield Member(position, name, info.size, None), content
                if advance is not None:
                    advance(raw.tell())
            # tarfile takes a damaged header, or none at all, for the end. A tar archive ends with zeros.
            if blocks.last != bytes(BLOCK):
                raise tarfile.ReadError("no end of archive where its last member ends")
            while blocks.read(1 << 20):  # decompress to the end: a cut or a wrong checksum shows only there
                pass


def safe_name(name: str, archive: Path) -> str:
    """Turn a member's name into a path below the target, its odd characters kept.

    Raises:
        DataError: absolute, with '..', with a NUL, endless, or where hwdkit keeps its own records.
    """
    if len(name) > NAME_MAX:
        raise _refused(archive, name, f"has a name of {len(name)} characters")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    # A Windows path is an ordinary name here, but not on every file system that may lie below us.
    dangerous = name.startswith(("/", "\\")) or name[1:3] in (":\\", ":/") or "\0" in name
    if dangerous or any(".." in part.split("\\") for part in parts):
        raise _refused(archive, name, "leads out of the folder that it is unpacked to")
    if parts and parts[0].lower() in (RECORDS, PARTS):
        raise _refused(archive, name, "has the name of hwdkit's own record of what is unpacked")
    return "/".join(parts)


def is_litter(name: str) -> bool:
    """Say whether this is what archivers leave behind, never data; the archive's own folder is nothing."""
    parts = name.split("/")
    return not name or "__MACOSX" in parts or parts[-1].startswith("._") or parts[-1] == ".DS_Store"


@contextmanager
def reading(archive: Path) -> Iterator[None]:
    """Turn every way in which Python's readers fail over damaged bytes into one error with the name."""
    try:
        yield
    except DAMAGED as error:
        raise _broken(archive, error) from error
    except NotImplementedError as error:  # zipfile, of features that it does not have
        raise DataError(f"cannot be unpacked ({error}); unpack it yourself", where=str(archive)) from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # a seek to where a damaged header points
            raise
        raise _broken(archive, error) from error


def _tar_in(blocks: _LastRead, archive: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=blocks, mode="r:")  # to list and to read: this creates no file, no link
    except tarfile.ReadError as error:
        message = f"is no tar archive ({error}), whatever it is that is compressed in it"
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


def _broken(archive: Path, error: Exception) -> DataError:
    return DataError(
        f"is damaged or was cut off ({_cut(str(error))})",
        where=str(archive),
        hint="Download it again, and run the command again with the new file.",
    )


def _refused(archive: Path, name: str, why: str) -> DataError:
    return DataError(f"member {_short(name)} {why}", where=str(archive), hint="Nothing was unpacked.")


def _short(name: str) -> str:
    return repr(_cut(name))


def _cut(text: str) -> str:
    return text if len(text) <= NAME_SHOWN else f"{text[:NAME_SHOWN]}…"


def _bounded(archive: Path, position: int) -> None:
    if position >= MEMBERS_MAX:
        raise DataError(f"has more than {MEMBERS_MAX} members", where=str(archive))


def _is_old_tar(head: bytes) -> bool:
    """Tar from before `ustar` has no mark, but a checksum."""
    try:
        tarfile.TarInfo.frombuf(head[:BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _description(head: bytes) -> str:
    if not head:
        return "an empty file"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")) or b"<html" in text:
        return "a web page: the server sent a login or error page instead of the download"
    known = next((what for magic, what in FOREIGN.items() if head.startswith(magic)), None)
    if known is not None:
        return known
    if text.startswith((b"{", b"[")):
        return "JSON text: perhaps an answer of the server instead of the download"
    return f"a file that begins with {head[:8]!r}"
