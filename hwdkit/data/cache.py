"""Decodes a prepared dataset once, into files that training maps into memory: `hwdkit prepare-data --cache`.

Decoding a PNG costs a hundred times what cutting a crop out of its pixels costs. Nothing is lost on the way:
uint8 in, uint8 out. What the files are and how they are read is `cache_files.py`. Free of torch.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.filesize import decimal

from hwdkit.data.cache_files import CHANNELS, FOLDER, VERSION, CachedSplit
from hwdkit.data.decode import Pixels, histogram
from hwdkit.data.index import DatasetIndex, Pair
from hwdkit.data.pairs import PairReader
from hwdkit.data.parallel import Progress, on_all_cores
from hwdkit.errors import DataError, EnvironmentFailure
from hwdkit.types import IGNORE

log = logging.getLogger(__name__)

MARGIN = 256 * 2**20
"""Bytes of the disk that a cache leaves free."""

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}


class CacheInfo(NamedTuple):
    """What building a cache came to.

    Attributes:
        path: folder of the cache.
        bytes: of all files of the splits that were asked for.
        seconds: that the call took.
        already_there: nothing had to be written.
    """

    path: Path
    bytes: int
    seconds: float
    already_there: bool


def cache_for(
    index: DatasetIndex,
    folder: Path,
    *,
    splits: Sequence[str] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> CacheInfo:
    """Decode a prepared dataset into `folder/cache`, except for splits whose cache is current.

    A header is written last: whatever stops this, what is there is complete or does not count.

    Args:
        index: of the dataset.
        folder: where the index lies, `<data root>/<dataset>`.
        splits: None = all.
        workers: processes; None = one a core.
        progress: called every few pairs.

    Raises:
        DataError: no such split, or files that are damaged or not those that were indexed.
        EnvironmentFailure: no space, no permission, or another process is writing it.
    """
    began = time.monotonic()
    home = folder / FOLDER
    unknown = [split for split in splits or () if split not in index.splits]
    if unknown:
        raise DataError(f"dataset {index.name} has no split {unknown[0]!r}; it has {', '.join(index.splits)}")
    asked = [CachedSplit(index, home, split) for split in splits or index.splits]
    outdated = [cached for cached in asked if cached.problem()]
    if outdated:
        try:
            home.mkdir(parents=True, exist_ok=True)
            with _alone(home):
                _build(index, home, outdated, workers, progress)
        except OSError as error:
            if error.errno in NO_ROOM | NOT_WRITABLE:
                raise EnvironmentFailure(f"cannot write {home}: {error.strerror}") from error
            raise
    size = sum(sum(cached.sizes.values()) for cached in asked)
    return CacheInfo(home, size, time.monotonic() - began, already_there=not outdated)


def _build(
    index: DatasetIndex,
    home: Path,
    outdated: Sequence[CachedSplit],
    workers: int | None,
    progress: Progress | None,
) -> None:
    _sweep(index, home)
    _require_room(index.name, home, sum(sum(cached.sizes.values()) for cached in outdated))
    try:
        for cached in outdated:
            for path, size in cached.sizes.items():
                _allocate(_part(path), size)
        tasks = [
            _Task(pair, _part(cached.images), _part(cached.labels), start)
            for cached in outdated
            for pair, start in zip(cached.pairs, cached.starts, strict=True)
        ]
        write, doing = functools.partial(_write_pair, PairReader(index)), f"caching {index.name}"
        counts = iter(on_all_cores(write, tasks, workers=workers, doing=doing, progress=progress))
        for cached in outdated:
            _require_indexed_labels(index, cached.split, [next(counts) for _ in cached.pairs])
        for cached in outdated:
            for path in cached.sizes:
                _publish(path)
            _part(cached.header).write_text(json.dumps(_header(cached), indent=1) + "\n", encoding="utf-8")
            _publish(cached.header)
    finally:
        for part in home.glob(".*.part"):
            part.unlink()


def _header(cached: CachedSplit) -> dict[str, Any]:
    return {
        "version": VERSION,
        "key": cached.key,
        "fingerprint": cached.fingerprint,
        "split": cached.split,
        "pairs": len(cached.pairs),
        "bytes": {path.name: size for path, size in cached.sizes.items()},
    }


class _Task(NamedTuple):
    """A pair, the files that it goes to, and the number of pixels before it."""

    pair: Pair
    images: Path
    labels: Path
    start: int


def _write_pair(read: PairReader, task: _Task) -> dict[int, int]:
    """Decode one pair into its place, and return the pixels of each class."""
    image, label = read(task.pair)
    if label.shape != (task.pair.height, task.pair.width):
        raise _changed(str(read.root / task.pair.image))
    _write_at(task.images, image, CHANNELS * task.start)
    _write_at(task.labels, label, task.start)
    return histogram(label)


def _write_at(path: Path, pixels: Pixels, offset: int) -> None:
    rest = np.ascontiguousarray(pixels).data.cast("B")
    target = os.open(path, os.O_WRONLY)
    try:
        while rest:
            written = os.pwrite(target, rest, offset)
            rest, offset = rest[written:], offset + written
    finally:
        os.close(target)


def _require_indexed_labels(index: DatasetIndex, split: str, counts: Sequence[dict[int, int]]) -> None:
    """Raise a DataError unless the labels hold as many pixels of every class as when they were checked."""
    total: Counter[int] = Counter()
    for pixels in counts:
        total.update(pixels)
    indexed = index.statistics[split]
    if (*(total[c] for c in range(len(index.classes))), total[IGNORE]) != (*indexed.pixels, indexed.ignored):
        raise _changed(f"{index.root}, split {split}")


def _changed(where: str) -> DataError:
    return DataError(
        "changed since the dataset was prepared",
        where=where,
        hint="Run prepare-data again with --overwrite --cache.",
    )


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _sweep(index: DatasetIndex, home: Path) -> None:
    """Delete what a killed build left and the caches of other data, before the free space is measured."""
    splits = [CachedSplit(index, home, split) for split in index.splits]
    keep = {path for cached in splits if not cached.problem() for path in cached.sizes}
    for cached in splits:
        if cached.images not in keep:
            cached.header.unlink(missing_ok=True)
    for pattern in (".*.part", "*-????????????.images", "*-????????????.labels"):
        for path in set(home.glob(pattern)) - keep:
            path.unlink()


def _require_room(name: str, home: Path, size: int) -> None:
    free = shutil.disk_usage(home).free
    if size + MARGIN > free:
        raise EnvironmentFailure(
            f"the cache of {name} takes {decimal(size)} and must leave {decimal(MARGIN)} free, "
            f"but {home} has {decimal(free)} free",
            hint="Free some space or use another --data-root. Training works without a cache, only slower.",
        )
    log.info("the cache of %s takes %s in %s (%s free)", name, decimal(size), home, decimal(free))


def _allocate(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except (AttributeError, OSError) as error:
            # macOS has no such call, and some file systems refuse it; a full disk is another matter.
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise
            os.ftruncate(file.fileno(), size)


def _publish(path: Path) -> None:
    """Give a finished file its name; after a power cut it is there completely or not at all."""
    with open(_part(path), "rb+") as file:
        os.fsync(file.fileno())
    os.replace(_part(path), path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Keep a second build out: its first act would be to delete the files of this one."""
    folder = os.open(home, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EnvironmentFailure(
                f"another process is writing {home}", hint="Wait until it is done."
            ) from error
        except OSError as error:
            log.debug("%s cannot be locked: %s", home, error)  # some network file systems
        try:
            yield
        finally:  # while nobody else may build: a failure leaves no empty folder
            with contextlib.suppress(OSError):
                home.rmdir()
    finally:
        os.close(folder)
