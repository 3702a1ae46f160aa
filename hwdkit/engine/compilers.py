"""What `torch.compile` needs of a machine; without it, it fails in the first step, minutes into a run."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec

import torch

from hwdkit.errors import EnvironmentFailure


def require_compiler(device: torch.device) -> None:
    """Refuse `train.compile` where nothing can be compiled.

    Raises:
        EnvironmentFailure: there is no C++ compiler, or no triton for a GPU.
    """
    # The one that torch's inductor calls; on a GPU triton builds its launchers with its C sibling.
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise EnvironmentFailure(
            f"train.compile needs a C++ compiler, and there is no {compiler}",
            hint="install g++, or name another in the variable CXX, or use --set train.compile=false",
        )
    if device.type == "cuda" and find_spec("triton") is None:
        raise EnvironmentFailure(
            "train.compile needs triton on a GPU", hint="pip install triton, or use --set train.compile=false"
        )
