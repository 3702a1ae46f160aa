"""The precision that losses compute in, whatever autocast or the networks use.

A GPU may still round the inputs of convolutions to TF32 (torch.backends.cudnn.allow_tf32, on by default):
that concerns projectors, generators and critics, not the comparisons themselves.
"""

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Lift half-precision maps to float32; float64 stays (golden tests and gradcheck need it).

    Squared differences of spatial softmaxes are around 1e-11 at 64x64: float16 turns 98 % of them into 0.
    """
    return tensor if tensor.dtype == torch.float64 else tensor.float()
