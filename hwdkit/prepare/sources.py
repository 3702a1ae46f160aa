"""What `--source` names, archives and folders, brought into the one folder that a dataset is read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hwdkit.data.parallel import Progress
from hwdkit.errors import DataError
from hwdkit.prepare.archives import unpack
from hwdkit.prepare.unpack_records import forget_others, is_unpacked, others

FILES = "files"
"""Folder below `<data root>/<dataset>` that archives are unpacked to."""


def gather(
    sources: Sequence[Path],
    into: Path,
    *,
    wanted: Sequence[str] = (),
    write: bool = True,
    again: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return a folder in which everything lies. A single folder is returned as it is.

    Archives are unpacked into `into`; of several folders, links are put beside what was unpacked.

    Args:
        sources: archives and folders.
        into: where to unpack.
        wanted: paths that the dataset consists of: a folder of that name is taken as it is, any other for the
            folder around them.
        write: False: only look whether everything is there already.
        again: look at every file even if an archive is on record as unpacked.
        workers: processes; None = one a core.
        progress: told of what is being unpacked.

    Raises:
        DataError: a source does not exist, is no archive, or has what another one has; `into` holds what
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
    links = _links([source for source in sources if source.is_dir()], wanted)
    _refuse_leftovers(archives, links, into)
    if not write:
        waiting = [archive for archive in archives if not is_unpacked(archive, into)]
        if waiting or any(not (into / name).exists() for name in links):
            raise DataError(
                f"{(waiting or sources)[0]} is not unpacked yet", hint="Run without --check first."
            )
        return into
    unpack(archives, into, again=again, workers=workers, progress=progress)
    forget_others(archives, into)
    for name, target in links.items():
        _link(into / name, target)
    return into


def _links(folders: Sequence[Path], wanted: Sequence[str]) -> dict[str, Path]:
    tops = {path.split("/")[0] for entry in wanted for path in entry.split("|")}
    links: dict[str, Path] = {}
    for folder in folders:
        parts = [folder] if folder.resolve().name in tops else sorted(folder.iterdir())
        for part in parts:
            name = part.resolve().name if part == folder else part.name
            if name.startswith("."):
                continue
            if name in links:
                raise DataError(
                    f"{links[name]} and {part} have the same name",
                    hint="Merge them, and give the merged folder.",
                )
            links[name] = part.resolve()
    return links


def _refuse_leftovers(archives: Sequence[Path], links: Mapping[str, Path], into: Path) -> None:
    """What an earlier source brought would be taken for part of this one."""
    linked = [path.name for path in into.iterdir() if path.is_symlink()] if into.is_dir() else []
    left = [f"a link {name}" for name in sorted(linked) if name not in links]
    left += [
        f"an earlier {name}" if name in {archive.name for archive in archives} else name
        for name in others(archives, into)
    ]
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
