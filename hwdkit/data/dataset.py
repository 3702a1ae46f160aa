"""One split of a prepared dataset as tensors, at the size that the files have.

Cutting training crops out of them is `transforms.py`; their order is `stream.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hwdkit.data.decode import LabelLookup, decode_image, decode_label, read_bytes
from hwdkit.data.index import DatasetIndex
from hwdkit.errors import DataError


class SegmentationDataset:
    """Reads the pairs of one split, with the label map applied.

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
        self._lookup = LabelLookup(index.label_map, classes=len(index.classes))

    def __len__(self) -> int:
        return len(self._pairs)

    def name(self, i: int) -> str:
        """Path of image i relative to the dataset's root: how logs and errors call it."""
        return self._pairs[i].image

    def read(self, i: int) -> tuple[Tensor, Tensor]:
        """Decode pair i.

        Returns:
            image: (3, H, W) uint8, RGB.
            label: (H, W) uint8, class index or 255 = ignore.

        Raises:
            DataError: a file that is missing, damaged, of another size, or with ids outside the label map.
        """
        pair = self._pairs[i]
        image_path, label_path = self.index.root / pair.image, self.index.root / pair.label
        image = decode_image(read_bytes(image_path), where=str(image_path))
        ids = decode_label(read_bytes(label_path), where=str(label_path))
        label = self._lookup(ids, where=str(label_path))
        if image.shape[:2] != label.shape:
            raise DataError(
                f"label is {label.shape[0]}x{label.shape[1]}, its image {pair.image} is "
                f"{image.shape[0]}x{image.shape[1]} (height x width)",
                where=str(label_path),
            )
        return torch.from_numpy(image).permute(2, 0, 1).contiguous(), torch.from_numpy(label)
