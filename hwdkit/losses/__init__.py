"""Distillation losses: one file a method, one line here.

Every loss is an nn.Module with keyword-only options, a `taps` attribute naming the intermediate maps it
needs, and the call `loss(student: SegOutput, teacher: SegOutput, label) -> scalar`. Weights live in recipes.
Options without a default (`classes`, `student_channels`, `teacher_channels`) are what the networks decide.
"""

from hwdkit.losses.af_dcd import AfDCD
from hwdkit.losses.at import AT
from hwdkit.losses.base import Loss
from hwdkit.losses.channel_wise import CWD
from hwdkit.losses.cirkd_memory import CirkdMemory
from hwdkit.losses.cirkd_minibatch import CirkdMinibatch
from hwdkit.losses.cross_entropy import CrossEntropy
from hwdkit.losses.dist import DIST
from hwdkit.losses.holistic import Holistic
from hwdkit.losses.hwd import HWD
from hwdkit.losses.ifv import IFV
from hwdkit.losses.kd import KD
from hwdkit.losses.local import Local
from hwdkit.losses.mgd import MGD
from hwdkit.losses.mimic import Mimic
from hwdkit.losses.pairwise import Pairwise
from hwdkit.losses.pkd import PKD

LOSSES: dict[str, type[Loss]] = {
    "ce": CrossEntropy,
    "kd": KD,
    "cwd": CWD,
    "hwd": HWD,
    "pairwise": Pairwise,
    "holistic": Holistic,
    "ifv": IFV,
    "cirkd_minibatch": CirkdMinibatch,
    "cirkd_memory": CirkdMemory,
    "dist": DIST,
    "mgd": MGD,
    "mimic": Mimic,
    "at": AT,
    "local": Local,
    "af_dcd": AfDCD,
    "pkd": PKD,
}

__all__ = [
    "AT",
    "CWD",
    "DIST",
    "HWD",
    "IFV",
    "KD",
    "LOSSES",
    "MGD",
    "PKD",
    "AfDCD",
    "CirkdMemory",
    "CirkdMinibatch",
    "CrossEntropy",
    "Holistic",
    "Local",
    "Loss",
    "Mimic",
    "Pairwise",
]
