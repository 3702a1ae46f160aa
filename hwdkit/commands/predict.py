"""hwdkit predict: a network's class maps of a user's own images, which need no labels and no dataset.

One image is in memory at a time. How an image is shown to the network is `engine/evaluate.py`, for both
commands, so that they agree on every pixel.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from hwdkit.checkpoints.files import file_digest, replacing
from hwdkit.commands import console
from hwdkit.commands.memory import explained_memory
from hwdkit.data.own_images import Found, find_images, output_names, read_upright
from hwdkit.engine.evaluate import Protocol
from hwdkit.engine.evaluate import predict as class_map
from hwdkit.engine.networks import Loaded, load_network
from hwdkit.errors import CheckpointError, DataError, OutOfMemory, UsageError
from hwdkit.report.overlay import Pixels, colourise, image_png, mask_png, overlay
from hwdkit.report.render import printable

log = logging.getLogger("hwdkit")

MEMORY_HINT = "predict in windows (--slide 512x512), or on the CPU (--gpus 0)"

SECONDS_BETWEEN_LINES = 30.0
"""How often a log that nobody watches hears of the progress."""


@dataclass(frozen=True)
class Options:
    """What the command line says; see `hwdkit predict --help`."""

    out: Path
    window: tuple[int, int] | None = None
    overlays: bool = False
    side_by_side: bool = False
    per_image: bool = False
    cpu: bool = False

    def protocol(self) -> Protocol:
        if self.window is None:
            return Protocol()
        # As `hwdkit evaluate` by default: 341 of 512.
        return Protocol(
            mode="slide", window=self.window, stride=(self.window[0] * 2 // 3, self.window[1] * 2 // 3)
        )


@dataclass
class _Tally:
    """What has been done so far; pixels per class of every image only where they are asked for."""

    pixels: np.ndarray[Any, np.dtype[np.int64]]
    written: int = 0
    unreadable: list[dict[str, str]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)


def run(sources: list[str], checkpoint: Path, options: Options) -> tuple[dict[str, Any], DataError | None]:
    """Segment images and write what is asked for into a folder.

    Args:
        sources: images, folders, patterns.
        checkpoint: a checkpoint or a run directory.
        options: the rest of the command line.

    Returns:
        JSON-able: where things are, shares of the classes, images that could not be read; and the DataError
        (exit 4) to raise when there are any.

    Raises:
        UsageError: the folder to write to holds something.
        DataError: a source that is not there or holds no image. Nothing has been written.
        CheckpointError: no network, or more classes than a mask can hold.
        OutOfMemory: naming the image; those before it are written.
    """
    require_empty(options.out)
    found = find_images(sources)
    names = output_names(found)
    loaded = load_network(checkpoint)
    if len(loaded.classes) > 256:
        raise CheckpointError(
            f"has {len(loaded.classes)} classes; a palette PNG holds 256", where=str(loaded.path)
        )
    device = torch.device("cuda" if torch.cuda.is_available() and not options.cpu else "cpu")
    with explained_memory(MEMORY_HINT):
        loaded.model.to(device).eval()
    tally = _Tally(np.zeros(len(loaded.classes), dtype=np.int64))
    for image, name in _with_progress(list(zip(found, names, strict=True))):
        try:
            _predict_one(image, name, loaded, options, tally)
        except DataError as error:
            tally.unreadable.append({"image": str(image.path), "reason": error.message})
    return _result(loaded, options, tally, len(found)), _failure(tally, len(found))


def require_empty(folder: Path) -> None:
    """Refuse a folder that holds something: what two runs write must not mix.

    Raises:
        UsageError: it does, or is no folder.
    """
    try:
        if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
            return
    except OSError as error:
        raise UsageError(f"--out: {folder} cannot be looked into ({error.strerror})") from error
    raise UsageError(f"--out: {folder} is not an empty folder; name a new one")


def _predict_one(image: Found, name: str, loaded: Loaded, options: Options, tally: _Tally) -> None:
    try:
        with explained_memory(MEMORY_HINT), torch.no_grad():
            pixels = read_upright(image.path)
            device = next(loaded.model.parameters()).device
            tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy()).to(device)
            mask: Pixels = class_map(loaded.model, tensor, options.protocol()).byte().cpu().numpy()
            del tensor
            for folder, png in _pictures(pixels, mask, loaded, options):
                with replacing(options.out / folder / name) as temporary:
                    temporary.write_bytes(png)
    except OutOfMemory as error:
        error.where = str(image.path)
        raise
    counts = np.bincount(mask.ravel(), minlength=len(loaded.classes))
    tally.pixels += counts
    tally.written += 1
    if options.per_image:
        row = {"image": str(image.path), "mask": f"masks/{name}", "height": mask.shape[0]}
        tally.images.append({**row, "width": mask.shape[1], "shares": _shares(counts, loaded)})


def _pictures(pixels: Pixels, mask: Pixels, loaded: Loaded, options: Options) -> Iterator[tuple[str, bytes]]:
    yield "masks", mask_png(mask, loaded.palette)
    if options.overlays:
        yield "overlays", image_png(overlay(pixels, mask, loaded.palette))
    if options.side_by_side:
        yield "side-by-side", image_png(np.concatenate([pixels, colourise(mask, loaded.palette)], axis=1))


def _shares(counts: np.ndarray[Any, np.dtype[np.int64]], loaded: Loaded) -> list[dict[str, Any]]:
    """The classes that occur, in class order."""
    total = int(counts.sum())
    return [
        {"index": int(c), "name": loaded.classes[c], "share": int(counts[c]) / total}
        for c in np.flatnonzero(counts)
    ]


def _with_progress(images: list[tuple[Found, str]]) -> Iterator[tuple[Found, str]]:
    """A bar at a terminal; in a pipe a line now and then."""
    began = told = time.monotonic()
    with console.progress("predict", len(images)) as advance:
        for done, image in enumerate(images):
            advance(done)
            now = time.monotonic()
            if done and now - told >= SECONDS_BETWEEN_LINES and not console.stderr.is_terminal:
                left = (now - began) / done * (len(images) - done)
                log.info("%d of %d images, about %.0f s left", done, len(images), left)
                told = now
            yield image


def _result(loaded: Loaded, options: Options, tally: _Tally, found: int) -> dict[str, Any]:
    protocol = options.protocol()
    slide = {"window": list(protocol.window), "stride": list(protocol.stride)} if options.window else {}
    total = max(1, int(tally.pixels.sum()))
    return {
        "checkpoint": str(loaded.path),
        "checkpoint_sha256": file_digest(loaded.path),
        "out": str(options.out),
        "protocol": {"mode": protocol.mode, **slide},
        "found": found,
        "images": tally.written,
        "classes": [
            {
                "index": c,
                "name": name,
                "colour": list(loaded.palette[c]),
                "share": int(tally.pixels[c]) / total,
            }
            for c, name in enumerate(loaded.classes)
        ],
        "per_image": tally.images,
        "unreadable": tally.unreadable,
    }


def _failure(tally: _Tally, found: int) -> DataError | None:
    if not tally.unreadable:
        return None
    rest = f"the other {tally.written} are written" if tally.written else "nothing is written"
    listed = "\n".join(f"  {row['image']}: {row['reason']}" for row in tally.unreadable)
    return DataError(f"{len(tally.unreadable)} of {found} images could not be read, {rest}:\n{listed}")


def render(result: dict[str, Any]) -> Group:
    """The classes that were found, and where the masks are, for the terminal."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("index", justify="right")
    table.add_column("class")
    table.add_column("share %", justify="right")
    for row in sorted(result["classes"], key=lambda row: -row["share"]):
        if row["share"]:
            table.add_row(str(row["index"]), Text(printable(row["name"])), f"{100 * row['share']:.2f}")
    protocol = result["protocol"]
    how = f"slide {protocol['window'][0]}x{protocol['window'][1]}" if "window" in protocol else "whole"
    of = "" if result["images"] == result["found"] else f" of {result['found']}"
    images = f"{result['images']}{of} image{'s' if result['found'] != 1 else ''}"
    return Group(table, Text(f"{images}, {how}: {result['out']}"))
