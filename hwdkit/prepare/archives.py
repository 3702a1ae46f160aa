"""Unpacks what a user downloaded, so that it can be stopped at any time and taken up again.

Archives come from the internet: names and sizes are checked before the first byte is written
(`archive_members.py`). tarfile's own `filter="data"` would not do: it lets links inside the target pass,
bounds no sizes, overwrites in place, and leaves half a file when it is stopped. So only the contents of
plain files are taken from an archive; their place, size and permissions are decided here.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from hwdkit.data.parallel import Progress, on_all_cores
from hwdkit.errors import DataError, EnvironmentFailure
from hwdkit.prepare.archive_members import Kind, Member, kind_of, reading, tar_members, zip_members
from hwdkit.prepare.unpack_records import PARTS, is_begun, is_unpacked, write_record

log = logging.getLogger("hwdkit")

CHUNK = 1 << 20
UNUSABLE_NAME = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}


def unpack(
    archives: Sequence[Path],
    into: Path,
    *,
    again: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Unpack archives into one folder; an archive that is unpacked already costs nothing.

    A small record in `into/.unpacked` says of an archive (name, size, time) that it is complete. Without
    it, a file that is there already is kept: from a zip archive if size and CRC are right, from a tar
    archive if its size is, this very archive was begun before, and no other came first. Files appear only
    when they are whole.

    Args:
        archives: .zip, .tar, .tar.gz, .tar.xz, .tar.bz2, told apart by content. Of two files with the same
            name, that of the later archive stays: after one that is unpacked, all later ones are too.
        into: created if needed.
        again: look at every file even if the record says that it is complete.
        workers: processes for zip archives; None = one a core. Tar can only be read in order.
        progress: told of files, and for tar of MiB of the archive.

    Raises:
        DataError: no archive, damaged, or with a name, link or size that must not be unpacked. All that
            the listings of the archives show is found before the first file is written.
        EnvironmentFailure: not enough room on the disk.
    """
    ready = 0 if again else _leading(archives, into)
    waiting = archives[ready:]
    plans = [_survey(archive, into, progress) for archive in waiting]
    needed = sum(_missing_bytes(plan, into) for plan in plans)
    free = _free_bytes(into)
    for plan in plans:
        log.info("%s: %d files, %s when unpacked", plan.archive.name, len(plan.members), in_words(plan.size))
    if needed > free:
        raise EnvironmentFailure(
            f"unpacking needs {in_words(needed)}, {in_words(free)} are free below {into}",
            hint="Make room, or choose another place with --data-root.",
        )
    for plan in plans:
        _require_inside(plan, into)
    parts = into / PARTS
    # Of a tar archive only the size of a file is known, which a file of an earlier archive may have too.
    resumed = plans[0] if plans and ready == 0 and is_begun(plans[0].archive, into) else None
    for plan in plans:
        _note(plan, into, complete=False)  # all before the first: what comes later has to be unpacked again
    for plan in plans:
        shutil.rmtree(parts, ignore_errors=True)  # of a run that was killed
        parts.mkdir(parents=True)
        try:
            if plan.kind == "zip":
                _unpack_zip(plan, into, workers, progress)
            else:
                _unpack_tar(plan, into, progress, keep=plan is resumed)
        finally:
            shutil.rmtree(parts, ignore_errors=True)
        _note(plan, into, complete=True)


def in_words(size: int) -> str:
    """Write a number of bytes as people do."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


@dataclass(frozen=True)
class _Plan:
    archive: Path
    kind: Kind
    members: list[Member]

    @property
    def size(self) -> int:
        return sum(member.size for member in self.members)


def _leading(archives: Sequence[Path], into: Path) -> int:
    """Count the archives, from the first one on, that are unpacked already."""
    return next((i for i, archive in enumerate(archives) if not is_unpacked(archive, into)), len(archives))


def _note(plan: _Plan, into: Path, *, complete: bool) -> None:
    write_record(plan.archive, into, files=len(plan.members), size=plan.size, complete=complete)


def _survey(archive: Path, into: Path, progress: Progress | None) -> _Plan:
    if kind_of(archive) == "zip":
        return _Plan(archive, "zip", zip_members(archive))
    advance = _told_in_mib(archive, f"reading {archive.name}", progress)
    listed = {
        member.name: member
        for member, _ in tar_members(archive, limit=_free_bytes(into) + _taken_bytes(into), advance=advance)
    }
    return _Plan(archive, "tar", sorted(listed.values()))


def _unpack_zip(plan: _Plan, into: Path, workers: int | None, progress: Progress | None) -> None:
    write = _FromZip(plan.archive, into, plan.archive.stat().st_mtime_ns)
    doing = f"unpacking {plan.archive.name}"
    try:
        on_all_cores(write, plan.members, workers=workers, doing=doing, progress=progress)
    finally:
        _opened.cache_clear()


@dataclass(frozen=True)
class _FromZip:
    """Unpacks one member; an object, so that it travels to other processes with its paths."""

    archive: Path
    into: Path
    mtime_ns: int

    def __call__(self, member: Member) -> None:
        if _is_whole(self.into / member.name, member):
            return
        with reading(self.archive):
            opened = _opened(self.archive, self.mtime_ns)
            with opened.open(opened.infolist()[member.position]) as content:
                _write(content, member, self.archive, self.into)


@lru_cache(maxsize=1)
def _opened(archive: Path, _mtime_ns: int) -> zipfile.ZipFile:
    # Once a process: the directory of a large archive takes a second to read.
    return zipfile.ZipFile(archive)


def _unpack_tar(plan: _Plan, into: Path, progress: Progress | None, *, keep: bool) -> None:
    wanted = {member.position: member for member in plan.members}
    advance = _told_in_mib(plan.archive, f"unpacking {plan.archive.name}", progress)
    for member, content in tar_members(plan.archive, advance=advance):
        if member.position not in wanted:
            continue  # a later member has its name
        if wanted[member.position] != member:
            raise DataError("has changed while it was being unpacked", where=str(plan.archive))
        if not (keep and _is_whole(into / member.name, member)):
            with reading(plan.archive):
                _write(content, member, plan.archive, into)


def _write(content: IO[bytes], member: Member, archive: Path, into: Path) -> None:
    """Copy a member's content under a temporary name, and rename it when it is whole."""
    target, part = into / member.name, into / PARTS / f"{member.position}-{os.getpid()}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            left = member.size
            while chunk := content.read(min(CHUNK, left + 1)):
                left -= len(chunk)
                if left < 0:
                    raise DataError(f"{member.name} unpacks to more than it declares", where=str(archive))
                file.write(chunk)
        if left:
            raise DataError(f"{member.name} ends {left} bytes early", where=str(archive))
        os.replace(part, target)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise DataError(
            f"{member.name} is a file in one place and a folder in another", where=str(archive)
        ) from error
    except FileNotFoundError as error:
        raise DataError(f"{into / PARTS} has vanished; is another hwdkit unpacking there?") from error
    except OSError as error:
        if error.errno in UNUSABLE_NAME:
            raise DataError(f"{member.name!r}: {error.strerror}", where=str(archive)) from error
        raise


def _is_whole(path: Path, member: Member) -> bool:
    try:
        if path.is_symlink() or path.stat().st_size != member.size:
            return False
        if member.crc is None:
            return True
        crc = 0
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                crc = zlib.crc32(chunk, crc)
    except OSError:
        return False
    return crc == member.crc


def _require_inside(plan: _Plan, into: Path) -> None:
    """A link that already lies in the target would lead a harmless name out of it."""
    home = into.resolve()
    for folder in {member.name.rpartition("/")[0] for member in plan.members}:
        if not (into / folder).resolve().is_relative_to(home):
            raise DataError(
                f"would be unpacked through the link {into / folder}, out of {into}", where=str(plan.archive)
            )


def _missing_bytes(plan: _Plan, into: Path) -> int:
    return sum(member.size for member in plan.members if not _has_size(into / member.name, member.size))


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _free_bytes(into: Path) -> int:
    existing = next(folder for folder in (into.absolute(), *into.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


def _taken_bytes(into: Path) -> int:
    """Bytes that an earlier, interrupted run has already written."""
    return sum(path.stat().st_size for path in into.rglob("*") if path.is_file() and not path.is_symlink())


def _told_in_mib(archive: Path, doing: str, progress: Progress | None) -> Callable[[int], None] | None:
    total = max(1, archive.stat().st_size >> 20)
    if progress is None:
        return None
    return lambda position: progress(f"{doing}, MiB", min(position >> 20, total), total)
