"""Where the cache of a prepared dataset lies and how it is read: as views into files mapped into memory.

Writing it is `cache.py`. Free of torch.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from hwdkit.data.decode import Pixels
from hwdkit.data.index import DatasetIndex, prepare_command

log = logging.getLogger(__name__)

VERSION = 1
FOLDER = "cache"
CHANNELS = 3


class CachedSplit:
    """The cache of one split: where it lies, and its pairs as views into mapped files.

    `train.json` says what it is; `train-KEY.images` holds the pixels of one pair after another, (H, W, 3)
    uint8 each, and `train-KEY.labels` their classes, (H, W) uint8. KEY changes with the content: a file
    that a process has opened is never replaced by one of other data.

    Args:
        index: a prepared dataset.
        home: folder of the cache.
        split: one of the index's.
    """

    def __init__(self, index: DatasetIndex, home: Path, split: str) -> None:
        ids = [table and sorted(table.items()) for table in (index.label_map, index.label_colours)]
        meaning = json.dumps([VERSION, index.fingerprint, split, len(index.classes), ids])
        self.key = hashlib.sha256(meaning.encode()).hexdigest()
        self.fingerprint = index.fingerprint
        self.split = split
        self.pairs = index.splits[split]
        *self.starts, self.pixels = accumulate((p.height * p.width for p in self.pairs), initial=0)
        self.header = home / f"{split}.json"
        self.images = home / f"{split}-{self.key[:12]}.images"
        self.labels = home / f"{split}-{self.key[:12]}.labels"
        self._maps: tuple[Pixels, Pixels] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the maps behind: another process opens its own."""
        return {**self.__dict__, "_maps": None}

    @property
    def sizes(self) -> dict[Path, int]:
        """Bytes that each file must have."""
        return {self.images: CHANNELS * self.pixels, self.labels: self.pixels}

    def problem(self) -> str:
        """Say why this split cannot be used; empty when it can. Looks at the header and at sizes only."""
        try:
            written = json.loads(self.header.read_text(encoding="utf-8"))
            if written["key"] != self.key:
                return f"is of other data (fingerprint {written['fingerprint'][:12]})"
            for path, size in self.sizes.items():
                if path.stat().st_size != size:
                    return f"is damaged: {path.name} has {path.stat().st_size} bytes, not {size}"
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"cannot be read ({error})"
        return ""

    def open(self, i: int) -> tuple[Pixels, Pixels]:
        """Give pair i as read-only views; the disk is read when, and where, they are sliced.

        Raises:
            OSError: the files are gone.
            ValueError: they have become shorter.
        """
        if self._maps is None:
            files = [np.memmap(path, np.uint8, "r", shape=(size,)) for path, size in self.sizes.items()]
            # As plain arrays: slicing a np.memmap costs several times more.
            self._maps = files[0].view(np.ndarray), files[1].view(np.ndarray)
        images, labels = self._maps
        start, (_, _, height, width) = self.starts[i], self.pairs[i]
        end = start + height * width
        return (
            images[CHANNELS * start : CHANNELS * end].reshape(height, width, CHANNELS),
            labels[start:end].reshape(height, width),
        )


def open_cache(index: DatasetIndex, split: str) -> CachedSplit | None:
    """Find the cache of a split; None without one that is complete and current.

    One that belongs to other data or is damaged is not used: a warning says so once, and how to renew it.
    """
    if index.folder is None:
        return None
    cached = CachedSplit(index, index.folder / FOLDER, split)
    problem = cached.problem() if cached.header.exists() else None
    if problem:
        _warn_once(
            f"{cached.header}: this cache {problem}; it is not used. "
            f"Run: {prepare_command(index.folder)} --cache"
        )
    return cached if problem == "" else None


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)
