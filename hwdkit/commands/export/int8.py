"""The part of `hwdkit export --int8` that measures: mIoU, size and latency of both files, and the gate."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.text import Text
from torch import Tensor

from hwdkit.engine.networks import Loaded
from hwdkit.engine.opened import Images
from hwdkit.errors import GateError
from hwdkit.export import files, int8, verify
from hwdkit.export.deployed import Form
from hwdkit.report.render import percent, printable
from hwdkit.report.table import Table
from hwdkit.terminal import console

log = logging.getLogger("hwdkit")


def run(
    exact: Path,
    target: Path,
    loaded: Loaded,
    pictures: Iterator[Tensor],
    images: Images,
    *,
    source: dict[str, Any],
    form: Form,
    metadata: dict[str, Any],
) -> dict[str, Any]:
    """Write the int8 file beside the exact one, and measure both on the same images.

    Args:
        exact, target: the float32 file, and where to write the int8 one.
        pictures: (3, H, W) uint8, to calibrate on.
        source: what the pictures are called, and how many there are.
        metadata: the exact file's description.

    Returns:
        JSON-able: mIoU (0..1), bytes and latency of `fp32` and `int8`, and how they were measured.
    """
    log.info("calibrating int8 on %d of %s", source["images"], source["on"])
    batches = int8.to_batches(pictures, loaded.model, form)
    int8.quantise(exact, target, batches, metadata={**metadata, "int8": source})
    sessions = {"fp32": files.open_exported(exact, "onnx"), "int8": files.open_exported(target, "onnx")}
    dataset = images.dataset
    log.info("measuring both on %d of %s %s", images.total, dataset.index.name, dataset.split)
    miou = {}
    for name, session in sessions.items():
        with console.progress(f"evaluate {name}", images.total) as advance:
            miou[name] = int8.miou(session, images.pairs(), loaded.model, form, advance=advance)
    picture = verify.resized(dataset.read(0)[0], form.size)[None]
    latency = int8.latency_ms(sessions, verify.as_input(picture, loaded.model, form))
    size = f"{form.size[0]}x{form.size[1]}"
    sizes = {"fp32": exact.stat().st_size, "int8": target.stat().st_size}
    return {
        "calibration": source,
        "dataset": dataset.index.name,
        "split": dataset.split,
        "images": images.total,
        "images_in_split": len(dataset),
        "fed_at": "native size" if form.any_size else size,
        "latency_at": size,
        "threads": torch.get_num_threads(),
        "miou_drop_points": 100 * (miou["fp32"] - miou["int8"]),
        **{
            name: {"miou": miou[name], "bytes": sizes[name], "latency_ms": latency[name]} for name in sessions
        },
    }


def gate(result: dict[str, Any], *, out: Path, max_miou_drop: float) -> GateError | None:
    """Return the GateError (exit 9) to raise when int8 lost more mIoU than the caller allows."""
    if result["miou_drop_points"] <= max_miou_drop:
        return None
    return GateError(
        f"int8 loses {result['miou_drop_points']:.2f} points of mIoU, more than --max-miou-drop "
        f"{max_miou_drop:g}; the file is kept",
        where=str(out),
        hint="calibrate on more images (--calibration), or deploy without --int8",
    )


def render(result: dict[str, Any]) -> tuple[Table, Text]:
    """Both files side by side, and how they were measured, for the terminal."""
    rows = (
        (name, percent(row["miou"]), f"{row['bytes'] / 2**20:.2f} MiB", f"{row['latency_ms']:.1f}")
        for name, row in ((name, result[name]) for name in ("fp32", "int8"))
    )
    table = Table(["", "mIoU %", "size", f"CPU ms at {result['latency_at']}"], rows)
    part = "" if result["images"] == result["images_in_split"] else f" of {result['images_in_split']}"
    drop = result["miou_drop_points"]
    note = (
        f"{result['dataset']} {result['split']}, {result['images']}{part} images, fed at {result['fed_at']}; "
        f"int8 {'loses' if drop >= 0 else 'gains'} {abs(drop):.2f} points. "
        f"Calibrated on {result['calibration']['images']} of {result['calibration']['on']}; "
        f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    )
    return table, Text(printable(note))
