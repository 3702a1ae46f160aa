"""What the channels of `channel_kl.py` are weighed by: their divergences, and what makes weights of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Divergence = Literal["mse", "l1", "smooth_l1", "kl"]
Weigh = Callable[[Tensor], Tensor]
"""(n, C) divergences of the channels of n images -> their weights; called without gradient and autocast."""


def _smooth_l1(difference: Tensor) -> Tensor:
    return F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="none")


DISTANCES: dict[str, Callable[[Tensor], Tensor]] = {
    "mse": torch.square,
    "l1": torch.abs,
    "smooth_l1": _smooth_l1,
}
"""Every divergence but kl: what becomes of a difference of maps, before the sum over positions."""


class WeightNumbers(NamedTuple):
    """HWD's weights (Sun et al., ICME 2023, Eqs. 6 and 7) as numbers, for a kernel that calls no function."""

    normalise: bool
    mu: float
    sigma: float
    smoothing: str
    beta: float
    temperature: float
