"""What `--source` names, archives and folders, brought into the one folder that a dataset is read from.

Everything is unpacked under a temporary name and moved at the end: a stopped run never looks complete, and
running it again begins again. What may come out of an archive is decided in `archives.py`.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hwdkit.data.parallel import Progress
from hwdkit.errors import DataError
from hwdkit.prepare.archives import RESERVED, Member, in_words, members, reading, require_archive

log = logging.getLogger("hwdkit")

FILES = "files"
"""Folder below `<data root>/<dataset>` that archives are unpacked to."""

RECORD, PARTIAL = f"{RESERVED}ed.json", f"{RESERVED}ing"
"""In the folder that is unpacked to: which archives it holds, and what is being unpacked."""

UNUSABLE_NAME = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}


class _Identity(NamedTuple):
    """What an archive is recognised by."""

    name: str
    size: int
    mtime_ns: int


def gather(
    sources: Sequence[Path],
    into: Path,
    *,
    parts: Iterable[str] = (),
    write: bool = True,
    again: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Return a folder in which everything lies. A single folder is returned as it is.

    Archives are unpacked into `into`; of several folders, links are put beside what was unpacked.

    Args:
        sources: archives and folders.
        into: where to unpack.
        parts: paths that the dataset consists of: a folder of that name is taken as it is, any other for the
            folder around them.
        write: False: only look whether everything is there already.
        again: unpack even if it is on record that these archives are.
        progress: told of what is being unpacked.

    Raises:
        DataError: a source does not exist, is not an archive, or has what another one has; `into` holds what
            came from another source; or nothing may be written and something would have to be.
    """
    for source in sources:
        if not source.exists():
            raise DataError(
                f"{source} does not exist", hint="--source takes what you downloaded: archives or a folder."
            )
    if len(sources) == 1 and sources[0].is_dir():
        return sources[0]
    archives = [source for source in sources if not source.is_dir()]
    links = _links([source for source in sources if source.is_dir()], parts)
    _refuse_leftovers(archives, links, into)
    if not write:
        if not is_unpacked(archives, into) or any(not (into / name).exists() for name in links):
            raise DataError(
                f"{(archives or sources)[0]} is not unpacked yet", hint="Run without --check first."
            )
        return into
    unpack(archives, into, again=again, progress=progress)
    for name, target in links.items():
        _link(into / name, target)
    return into


def unpack(
    archives: Sequence[Path], into: Path, *, again: bool = False, progress: Progress | None = None
) -> None:
    """Unpack archives into one folder; those that are unpacked already cost nothing.

    Args:
        archives: of two files with the same name, that of the later archive stays.
        into: created if needed. What it has under a name that an archive has, too, is replaced.
        again: unpack even if it is on record that these archives are.
        progress: told of MiB of the archive.

    Raises:
        DataError: not an archive, damaged, or with a name, link or size that must not be unpacked.
        EnvironmentFailure: not enough room on the disk.
    """
    if is_unpacked(archives, into) and not again:
        return
    for archive in archives:
        require_archive(archive)
    _require_ours(into)
    new, partial = not into.exists(), into / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir(parents=True)
    try:
        (partial / RECORD).write_text(
            json.dumps([_identity(archive) for archive in archives]), encoding="utf-8"
        )
        for archive in archives:
            _unpack_one(archive, partial, progress)
        entries = [entry for entry in partial.iterdir() if entry.name != RECORD]
        for entry in entries:
            if (into / entry.name).is_symlink():
                raise DataError(f"{into / entry.name} is a link, and {entry.name} would replace it")
    except BaseException:
        shutil.rmtree(into if new else partial, ignore_errors=True)
        raise
    # From here on a stopped run leaves the record in the temporary folder: see `unfinished`.
    (into / RECORD).unlink(missing_ok=True)
    for entry in entries:
        target = into / entry.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(entry, target)
    os.replace(partial / RECORD, into / RECORD)
    partial.rmdir()


def is_unpacked(archives: Sequence[Path], into: Path) -> bool:
    """Say whether these very files (by name, size and time), in this order, are unpacked into this folder."""
    return not unfinished(into) and _read_record(into) == [_identity(archive) for archive in archives]


def unfinished(into: Path) -> list[str]:
    """Name the archives that a stopped run has begun to unpack into this folder."""
    return [archive.name for archive in _read_record(into / PARTIAL)]


def _unpack_one(archive: Path, into: Path, progress: Progress | None) -> None:
    files = size = 0
    total = max(1, archive.stat().st_size >> 20)
    with reading(archive):
        for member in members(archive, free=shutil.disk_usage(into).free):
            _write(member, into / member.name, archive)
            files, size = files + 1, size + member.size
            if progress is not None:
                progress(f"unpacking {archive.name}, MiB", min(member.position >> 20, total), total)
    log.info("%s: %d files, %s when unpacked", archive.name, files, in_words(size))


def _write(member: Member, target: Path, archive: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            shutil.copyfileobj(member.content, file, 1 << 20)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise DataError(f"{member.name} is both a file and a folder", where=str(archive)) from error
    except FileNotFoundError as error:
        raise DataError(f"{target.parent} has vanished; is another hwdkit unpacking there?") from error
    except OSError as error:
        if error.errno in UNUSABLE_NAME:
            raise DataError(f"{member.name!r}: {error.strerror}", where=str(archive)) from error
        raise


def _identity(archive: Path) -> _Identity:
    try:
        status = archive.stat()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(archive)) from error
    return _Identity(archive.name, status.st_size, status.st_mtime_ns)


def _read_record(folder: Path) -> list[_Identity]:
    """The archives that were unpacked here; none if there is no record that can be read."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return [_Identity(str(name), int(size), int(mtime)) for name, size, mtime in record]
    except (OSError, ValueError, TypeError):
        return []


def _require_ours(into: Path) -> None:
    """Refuse to replace files that no archive on record has brought."""
    entries = sorted(into.iterdir()) if into.is_dir() else []
    others = [path for path in entries if not path.is_symlink()]
    if others and not any(path.name.startswith(RESERVED) for path in others):
        raise DataError(
            f"{into} holds {others[0].name}, and no record of the archive that it came from",
            hint=f"Delete {into}, or leave --source out to use what is in it.",
        )


def _links(folders: Sequence[Path], parts: Iterable[str]) -> dict[str, Path]:
    tops = {path.split("/")[0] for part in parts for path in part.split("|")}
    links: dict[str, Path] = {}
    for folder in folders:
        for entry in [folder] if folder.resolve().name in tops else sorted(folder.iterdir()):
            name = entry.resolve().name if entry == folder else entry.name
            if name.startswith("."):
                continue
            if name in links:
                raise DataError(
                    f"{links[name]} and {entry} have the same name",
                    hint="Merge them, and give the merged folder.",
                )
            links[name] = entry.resolve()
    return links


def _refuse_leftovers(archives: Sequence[Path], links: Mapping[str, Path], into: Path) -> None:
    """What an earlier source brought would be taken for part of this one.

    An archive that was fetched again, or touched, has its name and size still, and is the same one.
    """
    entries = sorted(into.iterdir()) if into.is_dir() else []
    left = [f"a link {path.name}" for path in entries if path.is_symlink() and path.name not in links]
    sizes = {archive.name: archive.stat().st_size for archive in archives}
    for name, size, _ in [*_read_record(into), *_read_record(into / PARTIAL)]:
        if sizes.get(name) != size:
            left.append(f"an earlier {name}" if name in sizes else name)
    if left:
        raise DataError(
            f"{into} holds {', '.join(left)} too, which is not among what --source names",
            hint=f"Delete {into} and run the command again, or give both with --source.",
        )


def _link(link: Path, target: Path) -> None:
    if link.is_symlink():
        if link.resolve() == target:
            return
        link.unlink()
    elif link.exists():
        raise DataError(
            f"{target} and {link} have the same name, and that one was unpacked",
            hint="Unpack everything into one folder yourself, and give that.",
        )
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
