"""One split of a prepared dataset, at the size that the files have.

Cutting training crops out of the pairs is `transforms.py`; their order is `stream.py`.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from hwdkit.data.cache_files import open_cache
from hwdkit.data.decode import Pixels
from hwdkit.data.index import DatasetIndex
from hwdkit.data.pairs import PairReader
from hwdkit.errors import DataError

log = logging.getLogger(__name__)


class SegmentationDataset:
    """Reads the pairs of one split, with the label map applied; from the cache if there is one.

    Args:
        index: a prepared dataset.
        split: one of its splits.

    Raises:
        DataError: the index has no such split.
    """

    def __init__(self, index: DatasetIndex, split: str) -> None:
        if split not in index.splits:
            raise DataError(f"dataset {index.name} has no split {split!r}; it has {', '.join(index.splits)}")
        self.index = index
        self.split = split
        self._pairs = index.splits[split]
        self._decode = PairReader(index)
        self._cached = open_cache(index, split)

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def cached(self) -> bool:
        """Whether pairs come from the cache."""
        return self._cached is not None

    def name(self, i: int) -> str:
        """Path of image i relative to the dataset's root: how logs and errors call it."""
        return self._pairs[i].image

    def open(self, i: int) -> tuple[Pixels, Pixels]:
        """Give pair i without copying it; the arrays may be read-only, and on disk until they are sliced.

        Returns:
            image: (H, W, 3) uint8, RGB.
            label: (H, W) uint8, class index or 255 = ignore.

        Raises:
            DataError: a file that is missing, damaged, of another size, or with ids outside the label map.
        """
        if self._cached is not None:
            try:
                return self._cached.open(i)
            except (OSError, ValueError) as error:
                # A long run goes on, only slower.
                log.warning("cache of %s deleted while in use (%s): decoding", self.index.name, error)
                self._cached = None
        return self._decode(self._pairs[i])

    def read(self, i: int) -> tuple[Tensor, Tensor]:
        """Give pair i as tensors of their own.

        Returns:
            image: (3, H, W) uint8, RGB.
            label: (H, W) uint8, class index or 255 = ignore.

        Raises:
            DataError: as `open`.
        """
        image, label = self.open(i)
        # Copied by numpy: torch warns of arrays that it must not write to.
        return torch.from_numpy(image.transpose(2, 0, 1).copy(order="C")), torch.from_numpy(label.copy())
