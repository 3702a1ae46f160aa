"""What `hwdkit prepare-data` does and reports: classes, their shares of the pixels, ids, cache."""

from __future__ import annotations

import errno
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.filesize import decimal
from rich.text import Text

from hwdkit.commands.prepare_data import FOLDER, PrepareData
from hwdkit.data.cache import NO_ROOM, NOT_WRITABLE, cache_for
from hwdkit.data.index import FILE_NAME, DatasetIndex
from hwdkit.datasets.table import DATASETS
from hwdkit.errors import EnvironmentFailure
from hwdkit.prepare.own.folder import FolderOptions, require_name
from hwdkit.prepare.own.splits import SplitRule
from hwdkit.prepare.prepare import prepare
from hwdkit.prepare.scenes import SceneOptions
from hwdkit.report.palette import hex_colour
from hwdkit.report.table import Cell, Column, Table
from hwdkit.terminal.console import progress_of_jobs
from hwdkit.types import IGNORE

IDS_SHOWN = 6
CANNOT_WRITE = NO_ROOM | NOT_WRITABLE | {errno.ENOTDIR, errno.EEXIST}


def run(options: PrepareData) -> dict[str, Any]:
    """Prepare one dataset.

    Returns:
        What `describe` says of the dataset, `already_prepared`, and `cache`.

    Raises:
        DataError: whatever is wrong with the data.
        EnvironmentFailure: no room or no permission to write.
    """
    own, name = None, options.dataset
    if options.dataset == FOLDER:
        own, name = _folder_options(options), require_name(options.name, DATASETS)
    drawn: dict[str, Any] = {"train": options.train, "val": options.val, "seed": options.seed}
    folder = options.data_root / name
    identity = _identity(folder / FILE_NAME)
    cached: dict[str, Any] | None = None
    try:
        with progress_of_jobs() as progress:
            index = prepare(
                name,
                root=options.data_root,
                source=options.source,
                own=own,
                check=options.check,
                allow_partial=options.allow_partial,
                overwrite=options.overwrite,
                scenes=SceneOptions(**{key: value for key, value in drawn.items() if value is not None}),
                workers=options.workers,
                progress=progress,
            )
            if options.cache and not options.check:
                info = cache_for(index, folder, workers=options.workers, progress=progress)
                cached = {**info._asdict(), "path": str(info.path)}
    except OSError as error:
        if error.errno in CANNOT_WRITE:
            raise EnvironmentFailure(f"cannot write below {options.data_root}: {error.strerror}") from error
        raise
    unchanged = identity is not None and identity == _identity(folder / FILE_NAME)
    return {
        **describe(index),
        "data_root": str(options.data_root),
        "checked_only": options.check,
        "already_prepared": unchanged and not options.check,
        "cache": cached,
    }


def _folder_options(options: PrepareData) -> FolderOptions:
    return FolderOptions(
        images=options.images,
        labels=options.labels,
        classes=options.classes,
        encoding=options.label_encoding,
        splits=SplitRule(
            train=options.train_split,
            val=options.val_split,
            val_fraction=options.val_fraction,
            seed=options.seed,
        ),
    )


def _identity(path: Path) -> tuple[int, int] | None:
    """An index is replaced, never changed: the same file means that nothing was done."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def describe(index: DatasetIndex) -> dict[str, Any]:
    """Sum an index up as JSON-able values. Shares are of the labelled pixels; `ignored` is of all pixels."""
    splits = index.statistics.items()
    labelled = {split: sum(contents.pixels) for split, contents in splits}
    return {
        "dataset": index.name,
        "files_root": str(index.root),
        "images": {split: contents.images for split, contents in splits},
        "partial": index.partial,
        "fingerprint": index.fingerprint,
        "licence": index.licence,
        "options": index.options,
        "labels": "ids" if index.label_colours is None else "colours",
        "ignored": {
            split: contents.ignored / max(contents.ignored + labelled[split], 1) for split, contents in splits
        },
        "classes": [
            {
                "index": c,
                "name": name,
                "colour": list(colour),
                "share": {split: contents.pixels[c] / max(labelled[split], 1) for split, contents in splits},
            }
            for c, (name, colour) in enumerate(zip(index.classes, index.palette, strict=True))
        ],
        "raw_ids": {
            split: {str(raw): count for raw, count in sorted(contents.raw_ids.items())}
            for split, contents in splits
        },
        "ignored_ids": _ignored_ids(index),
    }


def _ignored_ids(index: DatasetIndex) -> list[int]:
    """Name the ids that occur in the files and are mapped to ignore, the most frequent first."""
    label_map = {IGNORE: IGNORE} if index.label_map is None else index.label_map
    counts: Counter[int] = Counter()
    for contents in index.statistics.values():
        counts.update(contents.raw_ids)
    ignored = (raw for raw in counts if label_map.get(raw) == IGNORE)
    return sorted(ignored, key=lambda raw: (-counts[raw], raw))


def render(result: dict[str, Any]) -> Group:
    """Show a result of `run`: a table of classes, then one line each on state, files, ids and cache."""
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
        how = "already there" if cached["already_there"] else f"written in {cached['seconds']:.0f} s"
        lines.append(f"cache        {decimal(cached['bytes'])} in {cached['path']}, {how}")
    return Group(table, "", *(Text(line) for line in lines))


def _ids_line(result: dict[str, Any]) -> str:
    """Say which ids of the files are ignored, the most frequent first, and how frequent they are."""
    counts, ignored = result["raw_ids"], result["ignored_ids"]
    total = {split: sum(counts[split].values()) for split in counts}
    listed = [
        f"{raw} ({', '.join(f'{_percent(counts[s].get(str(raw), 0) / total[s])} % of {s}' for s in counts)})"
        for raw in ignored[:IDS_SHOWN]
    ]
    more = f" and {len(ignored) - IDS_SHOWN} more" if len(ignored) > IDS_SHOWN else ""
    return f"{', '.join(listed) or 'none'}{more}"


def _percent(share: float, *, none: str = "-") -> str:
    # A class that never occurs must not look like one that is rare.
    return none if share == 0 else f"{100 * share:.2f}" if share >= 5e-5 else "<0.01"
