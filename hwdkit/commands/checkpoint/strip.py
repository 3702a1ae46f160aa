"""A checkpoint for others: without the auxiliary head and without private paths."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import torch
from torch import Tensor

from hwdkit.checkpoints.files import file_digest, replacing, save_model
from hwdkit.commands.checkpoint import Strip
from hwdkit.commands.checkpoint.contents import parameters
from hwdkit.commands.checkpoint.verification import noisy_logits, require_finite
from hwdkit.engine.networks import Loaded, load_network
from hwdkit.errors import CheckpointError
from hwdkit.report.render import printable

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
AUXILIARY = "aux_head."

LOCAL_PATH = re.compile(r"(?<![\w.:/\\~])(?:file://|~)?(?:/|[A-Za-z]:[\\/]|\\\\)[^\s'\",;]+")
"""An absolute path within a text: POSIX, Windows, or below a home folder; not the path of a URL."""


def run(options: Strip) -> dict[str, Any]:
    """Write a copy without auxiliary head and private paths, and compare the logits.

    Returns:
        JSON-able: both files with their sizes, what was left out, how the logits differ.

    Raises:
        CheckpointError: the file is damaged, or the smaller type cannot hold its weights.
    """
    loaded = load_network(options.file)
    whole = loaded.model.state_dict()
    require_finite(whole, where=str(loaded.path))
    auxiliary = {name: tensor for name, tensor in whole.items() if name.startswith(AUXILIARY)}
    state = {
        name: tensor.to(DTYPES[options.dtype]) if tensor.is_floating_point() else tensor
        for name, tensor in whole.items()
        if name not in auxiliary
    }
    aux_parameters = sum(
        parameter.numel() for name, parameter in loaded.model.named_parameters() if name in auxiliary
    )
    _require_range(state, loaded, options.dtype)
    facts, shortened = without_paths(loaded.metadata)
    facts["network"] |= {"aux": False, "input": loaded.model.contract.to_dict()}
    facts["stripped"] = {
        "sha256": file_digest(loaded.path),
        "weights": options.dtype,
        "loads_as": "fp32",
        "aux_head": "removed" if auxiliary else "none",
    }
    with replacing(options.out, new=True) as temporary:
        save_model(temporary, state, facts)
        difference = _difference(loaded, load_network(temporary), options.dtype)
    return {
        "checkpoint": str(loaded.path),
        "written": str(options.out),
        "sha256": file_digest(options.out),
        "bytes_before": loaded.path.stat().st_size,
        "bytes": options.out.stat().st_size,
        "dtype": options.dtype,
        "parameters": parameters(loaded.model) - aux_parameters,
        "aux_parameters": aux_parameters,
        "shortened": shortened,
        "difference": difference,
    }


def without_paths(metadata: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Copy a description with every absolute path reduced to its last name.

    Class names stay: they are compared with a dataset's, letter by letter.

    Returns:
        The copy, and the dotted keys of what was shortened.
    """
    shortened: list[str] = []

    def cleaned(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {name: cleaned(inner, f"{key}.{name}") for name, inner in value.items()}
        if isinstance(value, list):
            return [cleaned(inner, f"{key}.{i}") for i, inner in enumerate(value)]
        if not isinstance(value, str):
            return value
        text = _last_name(value) if _is_path(value) else LOCAL_PATH.sub(lambda of: _last_name(of[0]), value)
        if text != value:
            shortened.append(key)
        return text

    facts = {key: value if key == "classes" else cleaned(value, key) for key, value in metadata.items()}
    return facts, shortened


def render(result: dict[str, Any]) -> str:
    """The sizes, what was left out, and how the logits changed."""
    before, after, auxiliary = result["bytes_before"], result["bytes"], result["aux_parameters"]
    lines = [
        f"{result['written']}: {after / 2**20:.2f} MiB, was {before / 2**20:.2f} MiB "
        f"({100 * (after / before - 1):+.0f} %)",
        f"auxiliary head: {f'{auxiliary:,} parameters left out' if auxiliary else 'it has none'}",
    ]
    if result["shortened"]:
        lines.append(f"paths of this machine cut to their last name: {', '.join(result['shortened'])}")
    difference = result["difference"]
    lines.append(
        "logits: the same, bit for bit"
        if result["dtype"] == "fp32"
        else f"{result['dtype']} weights, float32 again when loaded: logits of a noisy image differ by "
        f"{difference['logits']:.2g} at most ({100 * difference['relative']:.2g} % of the largest), "
        f"{100 * difference['classes']:.2g} % of its pixels get another class"
    )
    return "\n".join(map(printable, lines))


def _require_range(state: dict[str, Tensor], loaded: Loaded, dtype: str) -> None:
    try:
        require_finite(state, where=str(loaded.path))
    except CheckpointError as error:
        raise CheckpointError(
            f"its weights are too large for {dtype}: {error.message}",
            where=str(loaded.path),
            hint="--dtype bf16 has the range of fp32, but fewer digits",
        ) from error


def _difference(before: Loaded, after: Loaded, dtype: str) -> dict[str, float]:
    """How far the logits of one image are apart: at most, relative to the largest, and in pixels' classes."""
    old = noisy_logits(before.model, where=str(before.path))
    new = noisy_logits(after.model, where=str(before.path))
    apart = float((old - new).abs().max())
    if dtype == "fp32" and apart != 0:
        raise CheckpointError(
            f"without its auxiliary head its logits differ by {apart:g}: nothing is written",
            where=str(before.path),
        )
    changed = float((old.argmax(1) != new.argmax(1)).float().mean())
    return {"logits": apart, "relative": apart / float(old.abs().max().clamp_min(1e-30)), "classes": changed}


def _is_path(text: str) -> bool:
    """Whether a whole text is an absolute path, blanks and all."""
    return re.match(r"/|~\w*/|file://", text) is not None or PureWindowsPath(text).is_absolute()


def _last_name(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).name
