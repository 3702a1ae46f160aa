"""One image or one frame of a film: shown to the network, and its pictures.

How an image is shown to the network is `engine/evaluate.py`, for `evaluate` and `predict`, so that they agree
on every pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwdkit.checkpoints.files import write_file
from hwdkit.commands.predict import Predict
from hwdkit.commands.predict.images import MediaFile, read_upright
from hwdkit.data.decode import raw_ids
from hwdkit.data.index import load_index
from hwdkit.datasets.table import DATASETS
from hwdkit.engine.evaluate import predict as class_map
from hwdkit.engine.networks import Loaded, require_classes
from hwdkit.measure.overlay import Pixels, colourise, ids_png, image_png, mask_png, overlay
from hwdkit.recipe.protocol import Protocol
from hwdkit.terminal import values

Counts = np.ndarray[Any, np.dtype[np.int64]]


class Prediction:
    """A network at work on images, what is asked for of each, and what has been done so far.

    Args:
        loaded: the network, on its device and in eval mode.
        options: of the command line.
        rows: whether to keep a row for every image.
    """

    def __init__(self, loaded: Loaded, options: Predict, *, rows: bool = False) -> None:
        self.loaded, self.options, self.rows = loaded, options, rows
        self.protocol = Protocol(
            mode="whole" if options.window is None else "slide",
            window=options.window or (512, 512),
            stride=options.step,
            scales=values.scales("--scales", options.scales),
            flip=options.flip,
        )
        self.raw_ids = dataset_ids(loaded, options.data_root) if options.ids else None
        self.pixels = np.zeros(len(loaded.classes), dtype=np.int64)
        self.written = 0
        self.unreadable: list[dict[str, str]] = []
        self.images: list[dict[str, Any]] = []
        self.films: list[dict[str, Any]] = []

    def mask(self, pixels: Pixels) -> Pixels:
        """The class map (H, W) uint8 of an image (H, W, 3) uint8 RGB."""
        device = next(self.loaded.model.parameters()).device
        with torch.no_grad():
            tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy()).to(device)
            mask: Pixels = class_map(self.loaded.model, tensor, self.protocol).byte().cpu().numpy()
        return mask

    def image(self, file: MediaFile, name: str) -> None:
        """Segment an image, write what is asked for, and count."""
        pixels = read_upright(file.path)
        mask = self.mask(pixels)
        asked = {"overlays": self.options.overlay, "side-by-side": self.options.side_by_side}
        views = [(view, image_png(self.view(view, pixels, mask))) for view in asked if asked[view]]
        self.write(name, [*self.class_maps(mask), *views])
        counts = self.count(mask)
        self.written += 1
        if self.rows:
            row = {"image": str(file.path), "mask": f"masks/{name}", "height": mask.shape[0]}
            self.images.append({**row, "width": mask.shape[1], "shares": self.shares(counts)})

    def class_maps(self, mask: Pixels) -> Iterator[tuple[str, bytes]]:
        """(folder, PNG) of the classes themselves."""
        yield "masks", mask_png(mask, self.loaded.palette)
        if self.raw_ids is not None:
            yield "ids", ids_png(self.raw_ids[mask])

    def view(self, folder: str, pixels: Pixels, mask: Pixels) -> Pixels:
        """What people look at: the image and right of it its colours, (H, 2W, 3), or the colours over it."""
        if folder == "side-by-side":
            return np.concatenate([pixels, colourise(mask, self.loaded.palette)], axis=1)
        return overlay(pixels, mask, self.loaded.palette)

    def write(self, name: str, pictures: Iterable[tuple[str, bytes]]) -> None:
        """Write pictures of one image, each complete or not at all."""
        for folder, png in pictures:
            write_file(self.options.out / folder / name, png)

    def count(self, mask: Pixels) -> Counts:
        """Add a class map's pixels per class to those of all; return them."""
        counts = np.bincount(mask.ravel(), minlength=len(self.loaded.classes))
        self.pixels += counts
        return counts

    def shares(self, counts: Counts) -> list[dict[str, Any]]:
        """The classes that occur, in class order."""
        total = int(counts.sum())
        return [
            {"index": int(c), "name": self.loaded.classes[c], "share": int(counts[c]) / total}
            for c in np.flatnonzero(counts)
        ]


def dataset_ids(loaded: Loaded, data_root: Path) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """The id that the checkpoint's dataset uses for each class: of a published one, or of the prepared index.

    Raises:
        DataError: a dataset of the user's own that is not prepared, or a class without an id.
        CheckpointError: the prepared dataset has other classes.
    """
    name = str(loaded.metadata["dataset"])
    layout = DATASETS.get(name)
    if layout is not None and layout.classes == loaded.classes:
        return raw_ids(layout.label_map, classes=len(loaded.classes))
    index = load_index(data_root / name, files_must_exist=False)
    require_classes(loaded, index)
    return raw_ids(index.label_map, classes=len(loaded.classes))
