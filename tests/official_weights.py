"""Weights under the key names of the released HWD and CIRKD files, filled by the formula of their record.

golden/arch_reference.npz holds what the authors' networks make of them, in float64.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "golden"
KEYS: dict[str, dict[str, list[int]]] = json.loads((GOLDEN / "arch_keys.json").read_text())


def released(name: str) -> dict[str, torch.Tensor]:
    """The state dict of one of the five networks in KEYS, float64."""
    return {key: filled(key, KEYS[name][key], i) for i, key in enumerate(sorted(KEYS[name]))}


def pixels() -> torch.Tensor:
    """The normalised image that the authors' networks were given."""
    return torch.from_numpy(np.random.RandomState(42).standard_normal((1, 3, 65, 97)) * 50)


def recorded(name: str) -> dict[str, torch.Tensor]:
    """What the authors' network made of it: c4_first8, feat_first16, logits and perhaps aux_logits."""
    with np.load(GOLDEN / "arch_reference.npz") as file:
        found = {key: torch.from_numpy(file[key]) for key in file.files if key.startswith(f"{name}__")}
    return {key.removeprefix(f"{name}__"): value for key, value in found.items()}


def filled(key: str, shape: list[int], index: int) -> torch.Tensor:
    """Draw the tensor at this place of the sorted key list."""
    z = np.random.RandomState(5000 + index).standard_normal(tuple(shape))
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if key.endswith("running_var"):
        z = 1 + 0.5 * np.abs(z)
    elif key.endswith(("running_mean", "bias")):
        z = 0.1 * z
    elif len(shape) == 4:
        z = z * np.sqrt(2 / np.prod(shape[1:]))
    else:
        z = 1 + 0.1 * z
    return torch.from_numpy(z)
