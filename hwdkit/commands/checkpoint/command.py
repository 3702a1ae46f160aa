"""hwdkit checkpoint inspect | verify: what a file says of itself, and whether it holds what it says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hwdkit.checkpoints.files import file_digest, read_metadata, read_state_dict
from hwdkit.engine.networks import NETWORK_FILES, load_network
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


def verify(path: Path) -> dict[str, Any]:
    """Load a checkpoint strictly, look at every number, and segment one image on the CPU.

    Raises:
        CheckpointError: any of it fails.
    """
    loaded = load_network(path)
    state = loaded.model.state_dict()
    require_finite(state, where=str(loaded.path))
    logits = noisy_logits(loaded.model, where=str(loaded.path))
    return {
        "checkpoint": str(loaded.path),
        "sha256": file_digest(loaded.path),
        "network": title(loaded.model.spec.to_dict()),
        "tensors": len(state),
        "parameters": parameters(loaded.model),
        "finite": True,
        "logits": list(logits.shape),
    }


def render_inspect(result: dict[str, Any]) -> Table:
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


def render_verify(result: dict[str, Any]) -> str:
    """One line: what was checked, and that it is right."""
    return printable(
        f"{result['checkpoint']}: {result['network']}, {result['tensors']} tensors fit and are finite, "
        f"one image gives finite logits {'x'.join(map(str, result['logits']))}"
    )


def require_finite(state: Mapping[str, Tensor], *, where: str) -> None:
    """Refuse weights of a run that has diverged.

    Raises:
        CheckpointError: names the tensors that are not finite.
    """
    broken = [
        name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if broken:
        more = f" and {len(broken) - 6} more" if len(broken) > 6 else ""
        raise CheckpointError(f"NaN or infinity in {', '.join(broken[:6])}{more}", where=where)


def noisy_logits(model: Segmenter, *, where: str) -> Tensor:
    """The logits (1, C, h, w) of one noisy image, always the same.

    Raises:
        CheckpointError: they are not finite.
    """
    image = torch.randint(256, (1, 3, 65, 97), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.inference_mode():
        logits: Tensor = model.eval()(image).logits
    if logits.shape[:2] != (1, model.spec.classes) or not logits.isfinite().all():
        raise CheckpointError(
            "its weights are finite, but the logits of an image are not", where=where, hint="it has diverged"
        )
    return logits


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
