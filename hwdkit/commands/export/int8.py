"""The part of `hwdkit export --int8` that measures: mIoU, size and latency of both files, and the gate."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.text import Text
from torch import Tensor

from hwdkit.data.dataset import SegmentationDataset
from hwdkit.engine.networks import Loaded
from hwdkit.errors import GateError
from hwdkit.export import files, int8, verify
from hwdkit.export.deployed import Form
from hwdkit.report.render import percent, printable
from hwdkit.report.table import Table
from hwdkit.terminal import console

log = logging.getLogger("hwdkit")


class Calibration(NamedTuple):
    """What int8 is calibrated on: its name, how many, and the (3, H, W) uint8 pictures."""

    on: str
    images: int
    pictures: Iterator[Tensor]


def run(
    exact: Path,
    target: Path,
    loaded: Loaded,
    calibration: Calibration,
    *,
    form: Form,
    metadata: dict[str, Any],
    val: SegmentationDataset,
    limit: int | None,
) -> dict[str, Any]:
    """Write the int8 file beside the exact one, and measure both on the same images.

    Args:
        exact, target: the float32 file, and where to write its twin.
        loaded: the network.
        calibration: see `Calibration`.
        form: of both files.
        metadata: the exact file's description.
        val: the split to measure on.
        limit: how many images of it; None = all.

    Returns:
        JSON-able: mIoU (0..1), bytes and latency of `fp32` and `int8`, and how they were measured.
    """
    log.info("calibrating int8 on %d of %s", calibration.images, calibration.on)
    source = {"on": calibration.on, "images": calibration.images}
    batches = int8.to_batches(calibration.pictures, loaded.model, form)
    int8.quantise(exact, target, batches, metadata={**metadata, "int8": source})
    sessions = {"fp32": files.open_exported(exact, "onnx"), "int8": files.open_exported(target, "onnx")}
    total = min(len(val), limit or len(val))
    log.info("measuring both on %d of %s %s", total, val.index.name, val.split)
    miou = {
        name: int8.miou(session, _pairs(val, total, name), loaded.model, form)
        for name, session in sessions.items()
    }
    picture = verify.resized(val.read(0)[0], form.size)[None]
    latency = int8.latency_ms(sessions, verify.as_input(picture, loaded.model, form))
    sizes = {"fp32": exact.stat().st_size, "int8": target.stat().st_size}
    return {
        "calibration": source,
        "dataset": val.index.name,
        "split": val.split,
        "images": total,
        "images_in_split": len(val),
        "fed_at": "native size" if form.any_size else _by(form.size),
        "latency_at": _by(form.size),
        "threads": torch.get_num_threads(),
        "miou_drop_points": 100 * (miou["fp32"] - miou["int8"]),
        **{
            name: {"miou": miou[name], "bytes": sizes[name], "latency_ms": latency[name]} for name in sessions
        },
    }


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _pairs(dataset: SegmentationDataset, total: int, name: str) -> Iterator[tuple[Tensor, Tensor]]:
    with console.progress(f"evaluate {name}", total) as advance:
        for i in range(total):
            yield dataset.read(i)
            advance(i + 1)


def gate(found: dict[str, Any], *, out: Path, max_miou_drop: float) -> GateError | None:
    """Return the GateError (exit 9) to raise when int8 lost more mIoU than the caller allows."""
    if found["miou_drop_points"] <= max_miou_drop:
        return None
    return GateError(
        f"int8 loses {found['miou_drop_points']:.2f} points of mIoU, more than --max-miou-drop "
        f"{max_miou_drop:g}; the file is kept",
        where=str(out),
        hint="calibrate on more images (--calibration), or deploy without --int8",
    )


def render(found: dict[str, Any]) -> tuple[Table, Text]:
    """Both files side by side, and how they were measured, for the terminal."""
    rows = (
        (name, percent(row["miou"]), f"{row['bytes'] / 2**20:.2f} MiB", f"{row['latency_ms']:.1f}")
        for name, row in ((name, found[name]) for name in ("fp32", "int8"))
    )
    table = Table(["", "mIoU %", "size", f"CPU ms at {found['latency_at']}"], rows)
    part = "" if found["images"] == found["images_in_split"] else f" of {found['images_in_split']}"
    drop = found["miou_drop_points"]
    note = (
        f"{found['dataset']} {found['split']}, {found['images']}{part} images, fed at {found['fed_at']}; "
        f"int8 {'loses' if drop >= 0 else 'gains'} {abs(drop):.2f} points. "
        f"Calibrated on {found['calibration']['images']} of {found['calibration']['on']}; "
        f"{found['threads']} thread{'s' if found['threads'] > 1 else ''}"
    )
    return table, Text(printable(note))
