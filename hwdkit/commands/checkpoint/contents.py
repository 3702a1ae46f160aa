"""What a checkpoint says of itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text
from safetensors import SafetensorError, safe_open

from hwdkit.checkpoints.files import file_digest, read_metadata, read_state_dict
from hwdkit.engine.networks import NETWORK_FILES
from hwdkit.errors import CheckpointError
from hwdkit.models.segmenter import Segmenter
from hwdkit.report.render import printable

SHOWN = ("output_stride", "head_channels", "aux", "backbone_options")
IMPORTED = ("from", "file", "sha256")
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def inspect(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself, without reading its weights.

    Raises:
        CheckpointError: missing, damaged, or without hwdkit's description.
    """
    path = _file_of(path)
    metadata = read_metadata(path) if _is_safetensors(path) else {}
    if not metadata:
        read_state_dict(path)  # a page, a pointer or a damaged file has a better complaint
        raise CheckpointError(
            "holds weights but no description of the network",
            where=str(path),
            hint="files of CIRKD, HWD, torchvision, mmseg and smp: hwdkit checkpoint import",
        )
    sizes, kinds = _tensors(path)
    known = ("network", "classes", "palette", "dataset", "role", "recipe", "step", "metrics")
    network = metadata.get("network")
    return {
        "checkpoint": str(path),
        "sha256": file_digest(path),
        "bytes": path.stat().st_size,
        **{key: metadata.get(key) for key in known},
        **{key: metadata.get(key) for key in ("imported", "stripped")},
        **{key: metadata.get(key) for key in ("recipe_sha256", "dataset_fingerprint", "format", "hwdkit")},
        "input": network.get("input") if isinstance(network, dict) else None,
        "tensors": len(sizes),
        "types": kinds,
        "parameters": sum(size for name, size in sizes.items() if not name.endswith(BUFFERS)),
    }


def render(result: dict[str, Any]) -> Table:
    """One line a fact; what a file does not say has no line."""
    network = result["network"] if isinstance(result["network"], dict) else {}
    classes = result["classes"] if isinstance(result["classes"], list) else []
    imported = result["imported"] if isinstance(result["imported"], dict) else {}
    facts = {
        "file": f"{result['checkpoint']}, {result['bytes'] / 2**20:.1f} MiB",
        "sha256": result["sha256"],
        "network": title(network),
        "options": ", ".join(f"{k}={v}" for k, v in network.items() if k in SHOWN and v is not None),
        "input": _contract(result["input"]),
        "parameters": f"{result['parameters'] / 1e6:.2f} M in {result['tensors']} tensors, "
        + ", ".join(result["types"]),
        "dataset": result["dataset"],
        "classes": f"{len(classes)}: {', '.join(map(str, classes))}",
        "role": result["role"],
        "recipe": result["recipe"],
        "step": result["step"],
        "metrics": _metrics(result["metrics"]),
        "imported": ", ".join(f"{key} {imported[key]}" for key in IMPORTED if key in imported),
        "stripped": _stripped(result["stripped"]),
        "written by": f"hwdkit {result['hwdkit']}, format {result['format']}",
    }
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if value not in (None, ""):
            table.add_row(name, Text(printable(str(value))))
    return table


def _file_of(path: Path) -> Path:
    """The file that is meant: a run directory stands for the network in it."""
    if not path.is_dir():
        return path
    inside = [path / name for name in NETWORK_FILES]
    return next((file for file in inside if file.is_file()), inside[0])


def _is_safetensors(path: Path) -> bool:
    try:
        with safe_open(str(path), framework="pt"):
            return True
    except (SafetensorError, OSError):
        return False


def _tensors(path: Path) -> tuple[dict[str, int], list[str]]:
    """The size of each tensor, and the types there are, from the file's header."""
    with safe_open(str(path), framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        sizes = {name: math.prod(one.get_shape()) for name, one in slices.items()}
        return sizes, sorted({str(one.get_dtype()) for one in slices.values()})


def parameters(model: Segmenter) -> int:
    """How many numbers were trained."""
    return sum(parameter.numel() for parameter in model.parameters())


def title(network: Mapping[str, Any]) -> str:
    """A network's spec as a few words; nothing if the file does not say."""
    return f"{network.get('head')} on {network.get('backbone')}" if network else ""


def _contract(contract: Any) -> str:
    if not isinstance(contract, dict):
        return ""
    return ", ".join(f"{key} {value}" for key, value in contract.items())


def _stripped(stripped: Any) -> str:
    if not isinstance(stripped, dict):
        return ""
    return f"weights {stripped.get('weights')}, auxiliary head {stripped.get('aux_head')}"


def _metrics(metrics: Any) -> str:
    if not isinstance(metrics, dict):
        return ""
    numbers = {k: v for k, v in metrics.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return ", ".join(f"{k} {v:.6g}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items())
