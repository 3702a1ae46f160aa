"""Distillation losses: one file a method, one line here. Eager code is the specification.

Every loss is an nn.Module with keyword-only options, a `taps` attribute naming the intermediate maps it
needs, and the call `loss(student: SegOutput, teacher: SegOutput, label) -> scalar`. Weights live in recipes.
"""

from torch import nn

from hwdkit.losses.channel_wise import CWD
from hwdkit.losses.cross_entropy import CrossEntropy
from hwdkit.losses.hwd import HWD
from hwdkit.losses.kd import KD

LOSSES: dict[str, type[nn.Module]] = {
    "ce": CrossEntropy,
    "kd": KD,
    "cwd": CWD,
    "hwd": HWD,
}

__all__ = ["CWD", "HWD", "KD", "LOSSES", "CrossEntropy"]
