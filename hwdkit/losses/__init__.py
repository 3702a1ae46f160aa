"""Distillation losses: one file a method, one line here.

Every one is a `Loss` with keyword-only options, called with outputs of networks or with plain logits:
`loss(student, teacher, label) -> scalar`. Weights live in recipes, or in `3.0 * loss`. Options without a
default (`classes`, `student_channels`, `teacher_channels`) are what the networks decide.
"""

from hwdkit.losses.af_dcd import AfDCD as AfDCD
from hwdkit.losses.at import AT as AT
from hwdkit.losses.base import Loss as Loss
from hwdkit.losses.channel_wise import CWD as CWD
from hwdkit.losses.cirkd_memory import CirkdMemory as CirkdMemory
from hwdkit.losses.cirkd_minibatch import CirkdMinibatch as CirkdMinibatch
from hwdkit.losses.cross_entropy import CrossEntropy as CrossEntropy
from hwdkit.losses.dist import DIST as DIST
from hwdkit.losses.holistic import Holistic as Holistic
from hwdkit.losses.hwd import HWD as HWD
from hwdkit.losses.ifv import IFV as IFV
from hwdkit.losses.kd import KD as KD
from hwdkit.losses.local import Local as Local
from hwdkit.losses.mgd import MGD as MGD
from hwdkit.losses.mimic import Mimic as Mimic
from hwdkit.losses.pairwise import Pairwise as Pairwise
from hwdkit.losses.pkd import PKD as PKD

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
