"""One pair of files as pixels and classes: what a dataset reads and the cache keeps. Free of torch."""

from __future__ import annotations

from hwdkit.data.colours import label_reader
from hwdkit.data.decode import LabelLookup, Pixels, decode_image, read_bytes
from hwdkit.data.index import DatasetIndex, Pair
from hwdkit.errors import DataError


class PairReader:
    """Decodes the pairs of a dataset; an object, so that it travels to other processes with the label map.

    Args:
        index: a prepared dataset.
    """

    def __init__(self, index: DatasetIndex) -> None:
        self.root = index.root
        self._lookup = LabelLookup(index.label_map, classes=len(index.classes))
        self._read_label = label_reader(index.label_colours)

    def __call__(self, pair: Pair) -> tuple[Pixels, Pixels]:
        """Decode both files of a pair and map the label's ids to classes.

        Returns:
            image: (H, W, 3) uint8, RGB.
            label: (H, W) uint8, class index or 255 = ignore.

        Raises:
            DataError: a file that is missing, damaged, of another size, or with ids outside the label map.
        """
        image_path, label_path = self.root / pair.image, self.root / pair.label
        image = decode_image(read_bytes(image_path), where=str(image_path))
        ids = self._read_label(read_bytes(label_path), str(label_path))
        label = self._lookup(ids, where=str(label_path))
        if image.shape[:2] != label.shape:
            raise DataError(
                f"label is {label.shape[0]}x{label.shape[1]}, its image {pair.image} is "
                f"{image.shape[0]}x{image.shape[1]} (height x width)",
                where=str(label_path),
            )
        return image, label
