"""What `--source` names, archives and folders, brought into the one folder that a dataset is read from.

Everything is unpacked under a temporary name and moved at the end: a stopped run never looks complete, and
running it again begins again. What may come out of an archive is decided in `archives.py`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hwdkit.data.parallel import Progress
from hwdkit.errors import DataError
from hwdkit.prepare.archives import RESERVED, extract, require_archive

FILES = "files"
"""Folder below `<data root>/<dataset>` that archives are unpacked to."""

RECORD, PARTIAL = f"{RESERVED}ed.json", f"{RESERVED}ing"
"""In the folder that is unpacked to: which archives it holds, and what is being unpacked."""

Identity = tuple[str, int, int]
"""What an archive is recognised by: name, size, modification time in ns."""


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
        progress: called with what is being unpacked.

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
    if write:
        unpack(archives, into, again=again, progress=progress)
        for name, target in links.items():
            _link(into / name, target)
    elif not is_unpacked(archives, into) or any(not (into / name).exists() for name in links):
        raise DataError(f"{(archives or sources)[0]} is not unpacked yet", hint="Run without --check first.")
    return into


def unpack(
    archives: Sequence[Path], into: Path, *, again: bool = False, progress: Progress | None = None
) -> None:
    """Unpack archives into one folder; those that are unpacked already cost nothing.

    Args:
        archives: of two files with the same name, that of the later archive stays.
        into: created if needed. What it has under a name that an archive has, too, is replaced.
        again: unpack even if it is on record that these archives are.
        progress: as of `archives.extract`.

    Raises:
        DataError, EnvironmentFailure: as `archives.extract`; or files or links are in the way.
    """
    for archive in archives:
        require_archive(archive)
    if is_unpacked(archives, into) and not again:
        return
    _require_ours(into)
    new, partial = not into.exists(), into / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir(parents=True)
    try:
        record = json.dumps([_identity(archive) for archive in archives])
        (partial / RECORD).write_text(record, encoding="utf-8")
        for archive in archives:
            extract(archive, partial, progress)
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
    return [name for name, _, _ in _read_record(into / PARTIAL)]


def _identity(archive: Path) -> Identity:
    status = archive.stat()
    return archive.name, status.st_size, status.st_mtime_ns


def _read_record(folder: Path) -> list[Identity]:
    """The archives that were unpacked here; none if there is no record that can be read."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return [(str(name), int(size), int(mtime)) for name, size, mtime in record]
    except (OSError, ValueError, TypeError):
        return []


def _require_ours(into: Path) -> None:
    """Refuse to replace files that no archive on record has brought."""
    entries = sorted(into.iterdir()) if into.is_dir() else []
    others = [path.name for path in entries if not path.is_symlink()]
    if others and not any(name.startswith(RESERVED) for name in others):
        raise DataError(
            f"{into} holds {others[0]}, and no record of the archive that it came from",
            hint=f"Delete {into}, or leave --source out to use what is in it.",
        )


def _links(folders: Sequence[Path], parts: Iterable[str]) -> dict[str, Path]:
    tops = {path.split("/")[0] for part in parts for path in part.split("|")}
    links: dict[str, Path] = {}
    for folder in folders:
        for entry in [folder] if folder.resolve().name in tops else sorted(folder.iterdir()):
            name = entry.resolve().name if entry == folder else entry.name
            if name in links and not name.startswith("."):
                raise DataError(
                    f"{links[name]} and {entry} have the same name",
                    hint="Merge them, and pass the merged folder.",
                )
            if not name.startswith("."):
                links[name] = entry.resolve()
    return links


def _refuse_leftovers(archives: Sequence[Path], links: Mapping[str, Path], into: Path) -> None:
    """Refuse a folder with files of an earlier source: they would be taken for part of this one.

    An archive that was downloaded again, or touched, has its name and size still, and is the same one.
    """
    entries = sorted(into.iterdir()) if into.is_dir() else []
    left = [f"a link {path.name}" for path in entries if path.is_symlink() and path.name not in links]
    sizes = {archive.name: archive.stat().st_size for archive in archives}
    for name, size, _ in [*_read_record(into), *_read_record(into / PARTIAL)]:
        if sizes.get(name) != size:
            left.append(f"an earlier {name}" if name in sizes else name)
    if left:
        raise DataError(
            f"{into} also holds {', '.join(left)}, which --source does not name",
            hint=f"Delete {into} and run the command again, or name both with --source.",
        )


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.resolve() != target:
        link.unlink()
    elif link.exists() and not link.is_symlink():
        raise DataError(
            f"{target} and {link} have the same name, and the latter was unpacked",
            hint="Unpack everything into one folder yourself, and pass that.",
        )
    if not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
