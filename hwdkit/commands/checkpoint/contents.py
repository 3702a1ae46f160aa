"""The description in a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text
from safetensors import safe_open

from hwdkit.checkpoints.files import file_digest, read_metadata, read_state_dict
from hwdkit.engine.networks import network_in
from hwdkit.errors import CheckpointError
from hwdkit.models.segmenter import Segmenter
from hwdkit.report.render import printable

SHOWN = ("output_stride", "head_channels", "aux", "backbone_options")
KEYS = (
    "network", "classes", "palette", "dataset", "role", "recipe", "step", "metrics", "imported", "stripped",
    "recipe_sha256", "dataset_fingerprint", "format", "hwdkit",
)  # fmt: skip
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def inspect(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself; the weights are not read.

    Raises:
        CheckpointError: missing, damaged, or without hwdkit's description.
    """
    path = network_in(path) or path
    try:
        metadata = read_metadata(path)
    except CheckpointError:
        metadata = {}
    if not metadata:
        read_state_dict(path)  # a page, a pointer or a damaged file has a better complaint
        raise CheckpointError(
            "holds weights but no description of the network",
            where=str(path),
            hint="files of CIRKD, HWD, torchvision, mmseg and smp: hwdkit checkpoint import",
        )
    with safe_open(str(path), framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        sizes = {name: math.prod(one.get_shape()) for name, one in slices.items()}
        types = sorted({str(one.get_dtype()) for one in slices.values()})
    return {
        "checkpoint": str(path),
        "sha256": file_digest(path),
        "bytes": path.stat().st_size,
        **{key: metadata.get(key) for key in KEYS},
        "input": mapping(metadata.get("network")).get("input"),
        "tensors": len(sizes),
        "types": types,
        "parameters": sum(size for name, size in sizes.items() if not name.endswith(BUFFERS)),
    }


def render(result: dict[str, Any]) -> Table:
    """One line a fact; what a file does not say has no line."""
    network, contract, metrics = (mapping(result[key]) for key in ("network", "input", "metrics"))
    stripped = mapping(result["stripped"])
    classes = result["classes"] if isinstance(result["classes"], list) else []
    facts = {
        "file": f"{result['checkpoint']}, {result['bytes'] / 2**20:.1f} MiB",
        "sha256": result["sha256"],
        "network": title(network),
        "options": ", ".join(f"{k}={v}" for k, v in network.items() if k in SHOWN and v is not None),
        "input": ", ".join(f"{key} {value}" for key, value in contract.items()),
        "parameters": f"{result['parameters'] / 1e6:.2f} M in {result['tensors']} tensors, "
        + ", ".join(result["types"]),
        "dataset": result["dataset"],
        "classes": f"{len(classes)}: {', '.join(map(str, classes))}",
        "role": result["role"],
        "recipe": result["recipe"],
        "step": result["step"],
        "metrics": ", ".join(
            f"{key} {value:.6g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in metrics.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        ),
        "imported": origin(result),
        "stripped": f"weights {stripped.get('weights')}, auxiliary head {stripped.get('aux_head')}"
        if stripped
        else "",
        "written by": f"hwdkit {result['hwdkit']}, format {result['format']}",
    }
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if value not in (None, ""):
            table.add_row(name, Text(printable(str(value))))
    return table


def mapping(value: object) -> dict[str, Any]:
    """What should be a mapping in a file's description; anything else is empty."""
    return value if isinstance(value, dict) else {}


def origin(metadata: Mapping[str, Any]) -> str:
    """From which file of others a network was imported; nothing if it was not."""
    imported = mapping(metadata.get("imported"))
    return ", ".join(f"{key} {imported[key]}" for key in ("from", "file", "sha256") if key in imported)


def parameters(model: Segmenter) -> int:
    """How many numbers were trained."""
    return sum(parameter.numel() for parameter in model.parameters())


def title(network: Mapping[str, Any]) -> str:
    """A network's spec as a few words; nothing if the file does not say."""
    return f"{network.get('head')} on {network.get('backbone')}" if network else ""
