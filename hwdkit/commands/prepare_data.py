"""`hwdkit prepare-data`: check a dataset, index it, and say what is in it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from hwdkit.commands.console import logger, stderr
from hwdkit.data.generate import SceneOptions
from hwdkit.data.index import DatasetIndex, SplitStatistics
from hwdkit.data.parallel import Progress
from hwdkit.data.prepare import is_prepared, prepare
from hwdkit.errors import DataError, EnvironmentFailure

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def run(
    name: str,
    *,
    root: Path,
    source: Path | None = None,
    check: bool = False,
    allow_partial: bool = False,
    overwrite: bool = False,
    train: int | None = None,
    val: int | None = None,
    size: tuple[int, int] | None = None,
    seed: int | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Prepare one dataset.

    Args:
        name: key in `DATASETS`.
        root: data root; the index goes to `root/name/dataset.json`.
        source: the unpacked download; None = `root/name`, or wherever it was prepared from before.
        check: verify only.
        allow_partial: accept a subset.
        overwrite: do it again even if nothing changed.
        train, val, size, seed: what to draw; for `scenes` only, None = its default.
        workers: processes; None = one a core.

    Returns:
        What `describe` says of the dataset, and `already_prepared`.

    Raises:
        DataError: whatever is wrong with the data.
        EnvironmentFailure: no room or no permission to write.
    """
    asked = {"train": train, "val": val, "size": size, "seed": seed}
    given = {key: value for key, value in asked.items() if value is not None}
    if given and name != "scenes":
        raise DataError(
            f"{', '.join(f'--{key}' for key in given)} only means something for scenes, not for {name}"
        )
    options = SceneOptions(**given)  # type: ignore[arg-type]  # the keys are its fields
    before = is_prepared(name, root=root, source=source, allow_partial=allow_partial)
    try:
        with _progress() as progress:
            index = prepare(
                name,
                root=root,
                source=source,
                check=check,
                allow_partial=allow_partial,
                overwrite=overwrite,
                scenes=options,
                workers=workers,
                progress=progress,
            )
    except OSError as error:
        if error.errno in NO_ROOM:
            raise EnvironmentFailure(f"cannot write below {root}: {error.strerror}") from error
        raise
    unchanged = before and not (check or overwrite)
    return {**describe(index), "data_root": str(root), "checked_only": check, "already_prepared": unchanged}


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
    }


def render(result: dict[str, Any]) -> Group:
    """Show a result of `run` to people: the class table, then one line each on counts, ignored and state."""
    splits = list(result["images"])
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", justify="right", style="dim")
    table.add_column("class")
    table.add_column("")
    for split in splits:
        table.add_column(f"{split} %", justify="right")
    for entry in result["classes"]:
        red, green, blue = entry["colour"]
        table.add_row(
            str(entry["index"]),
            entry["name"],
            Text("   ", style=f"on rgb({red},{green},{blue})"),
            *(_percent(entry["share"][split]) for split in splits),
        )
    counts = ", ".join(f"{result['images'][split]} {split}" for split in splits)
    ignored = ", ".join(f"{_percent(result['ignored'][split])} % of {split}" for split in splits)
    state = "checked, nothing written" if result["checked_only"] else "prepared"
    state = "already prepared" if result["already_prepared"] else state
    lines = [
        f"{result['dataset']}: {state}: {counts}{' (partial)' if result['partial'] else ''}",
        f"files        {result['files_root']}",
        f"ignored      {ignored}",
        f"fingerprint  {result['fingerprint']}",
        f"licence      {result['licence']}",
    ]
    return Group(table, "", *(Text(line) for line in lines))


def _ignored_share(of: SplitStatistics) -> float:
    return of.ignored / max(of.ignored + sum(of.pixels), 1)


def _percent(share: float) -> str:
    # A class that never occurs must not look like one that is rare.
    return "-" if share == 0 else f"{100 * share:.2f}" if share >= 5e-5 else "<0.01"


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar at a terminal; elsewhere a log line for every tenth of a long job."""
    if not (stderr.is_terminal and logger.isEnabledFor(logging.INFO)):
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
