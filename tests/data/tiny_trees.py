"""One image and its label, written to disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_pair(image: Path, label: Path, ids: np.ndarray, *, mode: str = "L") -> None:
    """Write a label with these ids and an image of the same size, whose colours depend on the name."""
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(image.name.encode()))
    Image.fromarray(rng.integers(0, 256, (*ids.shape, 3), dtype=np.uint8)).save(image)
    picture = Image.fromarray(ids.astype(np.uint8))
    if mode == "P":
        picture.putpalette([value for i in range(256) for value in (255 - i, i, 7 * i % 256)])
    picture.save(label)


def ids(*values: int, size: tuple[int, int] = (12, 16)) -> np.ndarray:
    """A label of this size whose columns cycle through the values."""
    return np.resize(np.array(values, dtype=np.uint8), size[1])[None].repeat(size[0], 0)
