"""How the channels of `channel_kl.py` are weighed: by functions, or as numbers for kernels that call none."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

Place = tuple[slice, slice]
"""Which images and channels."""


class WeightOptions(NamedTuple):
    """HWD's weights (Sun et al., ICME 2023, Eqs. 5-7) as `hwdkit.losses.hwd.HWD` names its options.

    Attributes:
        ids: (N, h*w) int64 class of every position of the maps, C where none counts; None: no correction.
        area_power: power of N_c + 1 that divides the divergence.
        temperature: tau' of the smoothing softmax.
    """

    divergence: str
    on_logits: bool
    ids: Tensor | None
    area_power: float
    normalise: bool
    mu: float
    sigma: float
    smoothing: str
    beta: float
    temperature: float


class Weighting(NamedTuple):
    """How weights come about; all are called without gradient and autocast, and keep nothing they are given.

    Attributes:
        measure: (place, p - q (n, c, h*w), KL (n, c)) -> a number for each channel, (n, c); p is the
            student's map, q the teacher's. Neither may be changed.
        weigh: (images, all numbers of these images (n, C)) -> their weights (n, C).
        options: the same as numbers, asked for where a kernel needs them; None: only the functions know.
    """

    measure: Callable[[Place, Tensor, Tensor], Tensor]
    weigh: Callable[[slice, Tensor], Tensor]
    options: Callable[[], WeightOptions] | None = None
