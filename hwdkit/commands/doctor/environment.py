"""Variables, ranks and downloaded weights, as `hwdkit doctor` checks them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from hwdkit.commands.doctor.finding import Finding, counted
from hwdkit.commands.doctor.machine import is_writable
from hwdkit.errors import HwdkitError

OF_HWDKIT = ("HWDKIT_DATA", "HWDKIT_RECIPES", "HWDKIT_DEBUG", "HWDKIT_WORKER_ERRORS")
OF_OTHERS = ("CUDA_VISIBLE_DEVICES", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "MASTER_ADDR")
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")


def variables() -> Iterator[Finding]:
    """Variables that hwdkit reads; a HWDKIT_ variable that it does not read is probably misspelt."""
    for name, value in sorted(os.environ.items()):
        if name in OF_HWDKIT + OF_OTHERS or name.startswith("NCCL_"):
            yield Finding(name, value, facts={"value": value})
        elif name.startswith("HWDKIT_"):
            close = difflib.get_close_matches(name, OF_HWDKIT, n=1)
            unread = f"hwdkit reads no such variable{f'; did you mean {close[0]}?' if close else ''}"
            yield Finding(name, unread, "note", f"unset {name}", {"value": value})


def ranks() -> Iterator[Finding]:
    """Which of several processes a run started here would be."""
    from hwdkit.distributed import environment

    clear = f"unset {' '.join(name for name in RANKS if name in os.environ)}"
    try:
        rank, local, world = environment()
    except HwdkitError as error:
        yield Finding("ranks", error.message, "problem", clear)
        return
    facts = {"rank": rank, "local_rank": local, "world": world}
    if world == 1:
        yield Finding("ranks", "one process, or as many as hwdkit starts", facts=facts)
    elif os.environ.get("SLURM_NNODES", "1") != "1" and "MASTER_ADDR" not in os.environ:
        fix = 'export MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"'
        yield Finding("ranks", "several Slurm nodes, and no MASTER_ADDR", "problem", fix, facts)
    else:
        value = f"rank {rank} of {world}: a run started here waits for the others"
        yield Finding("ranks", value, "note", f"{clear}   (unless torchrun or srun set them)", facts)


def pretrained_weights() -> Iterator[Finding]:
    """Where timm's downloads go, whether they can, and how many are there."""
    from huggingface_hub import constants

    folder, name = Path(constants.HF_HUB_CACHE), "pretrained weights"
    count = sum(1 for _ in folder.glob("models--*"))
    offline = [variable for variable in OFFLINE if variable in os.environ] if constants.HF_HUB_OFFLINE else []
    facts = {"path": str(folder), "models": count, "offline": offline}
    value = f"{counted(count, 'model')} in {folder}"
    if offline:
        value += f"; {offline[0]} is set: nothing else is downloaded"
        yield Finding(name, value, "note", f"unset {' '.join(offline)}", facts)
    elif not is_writable(folder):
        fix = "export HF_HOME=/some/writable/folder"
        yield Finding(name, f"{value}, which is not writable", "problem", fix, facts)
    else:
        yield Finding(name, value, facts=facts)
