"""What `hwdkit prepare-data` says of a dataset once it is prepared: classes, shares, ids, cache."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from hwdkit.commands.prepare_data import FOLDER, PrepareData
from hwdkit.data.cache import cache_for
from hwdkit.data.index import FILE_NAME, DatasetIndex, SplitStatistics
from hwdkit.data.parallel import Progress
from hwdkit.datasets.table import DATASETS
from hwdkit.errors import EnvironmentFailure
from hwdkit.prepare.archives import in_words
from hwdkit.prepare.own.folder import FolderOptions, require_name
from hwdkit.prepare.own.splits import SplitRule
from hwdkit.prepare.prepare import prepare
from hwdkit.prepare.scenes import SceneOptions
from hwdkit.report.palette import hex_colour
from hwdkit.report.table import Cell, Column, Table
from hwdkit.terminal.console import progress_of_jobs
from hwdkit.types import IGNORE

IDS_SHOWN = 6
CANNOT_WRITE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)
}


def run(options: PrepareData) -> dict[str, Any]:
    """Prepare one dataset.

    Returns:
        What `describe` says of the dataset, `already_prepared`, and `cache`.

    Raises:
        DataError: whatever is wrong with the data.
        EnvironmentFailure: no room or no permission to write.
    """
    folder = _folder_options(options) if options.dataset == FOLDER else None
    name = options.dataset if folder is None else require_name(options.name, DATASETS)
    sizes = {"train": options.train, "val": options.val, "seed": options.seed}
    drawn: dict[str, Any] = {key: value for key, value in sizes.items() if value is not None}
    home = options.data_root / name
    identity = _identity(home / FILE_NAME)
    with _writing_below(options.data_root), progress_of_jobs() as progress:
        index = prepare(
            name,
            root=options.data_root,
            source=options.source,
            own=folder,
            check=options.check,
            allow_partial=options.allow_partial,
            overwrite=options.overwrite,
            scenes=SceneOptions(**drawn),
            workers=options.workers,
            progress=progress,
        )
        caches = options.cache and not options.check
        cached = _cache(index, home, options.workers, progress) if caches else None
    unchanged = identity is not None and identity == _identity(home / FILE_NAME)
    return {
        **describe(index),
        "data_root": str(options.data_root),
        "checked_only": options.check,
        "already_prepared": unchanged and not options.check,
        "cache": cached,
    }


@contextmanager
def _writing_below(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in CANNOT_WRITE:
            raise EnvironmentFailure(f"cannot write below {root}: {error.strerror}") from error
        raise


def _folder_options(options: PrepareData) -> FolderOptions:
    rule = SplitRule(
        train=options.train_split,
        val=options.val_split,
        val_fraction=options.val_fraction,
        seed=options.seed,
    )
    return FolderOptions(
        images=options.images,
        labels=options.labels,
        classes=options.classes,
        encoding=options.label_encoding,
        splits=rule,
    )


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
