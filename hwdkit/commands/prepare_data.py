"""`hwdkit prepare-data`: check a dataset, index it, and say what is in it."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from hwdkit.data.cache import cache_for
from hwdkit.data.index import FILE_NAME, DatasetIndex, SplitStatistics
from hwdkit.data.parallel import Progress
from hwdkit.errors import EnvironmentFailure, UsageError
from hwdkit.prepare.archives import in_words
from hwdkit.prepare.own.folder import FolderOptions
from hwdkit.prepare.prepare import prepare
from hwdkit.prepare.scenes import SceneOptions
from hwdkit.report.palette import hex_colour
from hwdkit.report.table import Cell, Column, Table
from hwdkit.terminal.console import logger, shows_progress, stderr
from hwdkit.types import IGNORE

IDS_SHOWN = 6
CANNOT_WRITE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
}


def run(
    name: str,
    *,
    root: Path,
    source: Path | Sequence[Path] | None = None,
    own: FolderOptions | None = None,
    check: bool = False,
    allow_partial: bool = False,
    overwrite: bool = False,
    cache: bool = False,
    scenes: dict[str, Any] | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Prepare one dataset.

    Args:
        name: key in `DATASETS`, or with `own` what the user's data is called.
        root: data root; the index goes to `root/name/dataset.json`.
        source: what was downloaded: archives, or a folder; None = `root/name`, or wherever it was before.
        own: the user's own data.
        check: verify only.
        allow_partial: accept a subset.
        overwrite: do it again even if nothing changed.
        cache: also decode everything, for training to read.
        scenes: fields of `SceneOptions`; for `scenes` only.
        workers: processes; None = one a core.

    Returns:
        What `describe` says of the dataset, `already_prepared`, and `cache`.

    Raises:
        UsageError: options of scenes for something else.
        DataError: whatever is wrong with the data.
        EnvironmentFailure: no room or no permission to write.
    """
    if scenes and name != "scenes":
        raise UsageError(
            f"{', '.join(f'--{key}' for key in scenes)} only means something for scenes, not for {name}"
        )
    written_before = _identity(root / name / FILE_NAME)
    try:
        with _progress() as progress:
            index = prepare(
                name,
                root=root,
                source=source,
                own=own,
                check=check,
                allow_partial=allow_partial,
                overwrite=overwrite,
                scenes=SceneOptions(**(scenes or {})),
                workers=workers,
                progress=progress,
            )
            cached = _cache(index, root / name, workers, progress) if cache and not check else None
    except OSError as error:
        if error.errno in CANNOT_WRITE:
            raise EnvironmentFailure(f"cannot write below {root}: {error.strerror}") from error
        raise
    same = written_before is not None and written_before == _identity(root / name / FILE_NAME)
    return {
        **describe(index),
        "data_root": str(root),
        "checked_only": check,
        "already_prepared": same and not check,
        "cache": cached,
    }


def _identity(path: Path) -> tuple[int, int] | None:
    """An index is replaced, never changed: the same file means that nothing was done."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _cache(index: DatasetIndex, folder: Path, workers: int | None, progress: Progress) -> dict[str, Any]:
    info = cache_for(index, folder, workers=workers, progress=progress)
    return {
        "path": str(info.path),
        "bytes": info.bytes,
        "seconds": info.seconds,
        "already_there": info.already_there,
    }


def describe(index: DatasetIndex) -> dict[str, Any]:
    """Sum an index up as JSON-able values. Shares are of the labelled pixels; `ignored` is of all pixels."""
    statistics = index.statistics
    return {
        "dataset": index.name,
        "files_root": str(index.root),
        "images": {split: of.images for split, of in statistics.items()},
        "partial": index.partial,
        "fingerprint": index.fingerprint,
        "licence": index.licence,
        "options": index.options,
        "labels": "ids" if index.label_colours is None else "colours",
        "ignored": {split: _ignored_share(of) for split, of in statistics.items()},
        "classes": [
            {
                "index": c,
                "name": index.classes[c],
                "colour": list(index.palette[c]),
                "share": {split: of.pixels[c] / max(sum(of.pixels), 1) for split, of in statistics.items()},
            }
            for c in range(len(index.classes))
        ],
        "raw_ids": {
            split: {str(raw): of.raw_ids[raw] for raw in sorted(of.raw_ids)}
            for split, of in statistics.items()
        },
        "ignored_ids": _ignored_ids(index),
    }


def _ignored_ids(index: DatasetIndex) -> list[int]:
    """Name the ids that occur in the files and are mapped to ignore, the most frequent first."""
    known = {IGNORE: IGNORE} if index.label_map is None else index.label_map
    counts: Counter[int] = Counter()
    for of in index.statistics.values():
        counts.update({raw: count for raw, count in of.raw_ids.items() if known.get(raw) == IGNORE})
    return sorted(counts, key=lambda raw: (-counts[raw], raw))


def render(result: dict[str, Any]) -> Group:
    """Show a result of `run` to people: the class table, then one line each on counts, ignored and state."""
    splits = list(result["images"])
    table = Table(
        [Column(""), Column("class", left=True), *(f"{split} %" for split in splits)],
        (
            (
                str(entry["index"]),
                Cell(entry["name"], colour=hex_colour(entry["colour"])),
                *(_percent(entry["share"][split]) for split in splits),
            )
            for entry in result["classes"]
        ),
    )
    counts = ", ".join(f"{result['images'][split]} {split}" for split in splits)
    ignored = ", ".join(f"{_percent(result['ignored'][split], none='0.00')} % of {split}" for split in splits)
    state = "checked, nothing written" if result["checked_only"] else "prepared"
    state = "already prepared" if result["already_prepared"] else state
    lines = [
        f"{result['dataset']}: {state}: {counts}{' (partial)' if result['partial'] else ''}",
        f"files        {result['files_root']}",
        f"ignored      {ignored}",
        f"ignored ids  {_ids_line(result)}",
        f"fingerprint  {result['fingerprint']}",
        f"licence      {result['licence']}",
    ]
    if result["cache"]:
        cached = result["cache"]
        how = "was there" if cached["already_there"] else f"written in {cached['seconds']:.0f} s"
        lines.append(f"cache        {in_words(cached['bytes'])} in {cached['path']}, {how}")
    return Group(table, "", *(Text(line) for line in lines))


def _ids_line(result: dict[str, Any]) -> str:
    """Say which ids of the files count nowhere, the most frequent first, and how frequent they are."""
    counts, ignored = result["raw_ids"], result["ignored_ids"]
    total = {split: sum(counts[split].values()) for split in counts}
    listed = [
        f"{raw} ({', '.join(f'{_percent(counts[s].get(str(raw), 0) / total[s])} % of {s}' for s in counts)})"
        for raw in ignored[:IDS_SHOWN]
    ]
    more = f" and {len(ignored) - IDS_SHOWN} more" if len(ignored) > IDS_SHOWN else ""
    return f"{', '.join(listed) or 'none'}{more}"


def _ignored_share(of: SplitStatistics) -> float:
    return of.ignored / max(of.ignored + sum(of.pixels), 1)


def _percent(share: float, *, none: str = "-") -> str:
    # A class that never occurs must not look like one that is rare.
    return none if share == 0 else f"{100 * share:.2f}" if share >= 5e-5 else "<0.01"


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar at a terminal; elsewhere a log line for every tenth of a long job."""
    if not shows_progress():
        told: dict[str, int] = {}

        def tell(doing: str, done: int, total: int) -> None:
            tenth = 10 * done // total
            if total >= 200 and tenth > told.get(doing, 0):
                told[doing] = tenth
                logger.info("%s: %d of %d", doing, done, total)

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=stderr, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def draw(doing: str, done: int, total: int) -> None:
            if doing not in tasks:
                tasks[doing] = bars.add_task(doing, total=total)
            bars.update(tasks[doing], completed=done)

        yield draw
