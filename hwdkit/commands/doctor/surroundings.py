"""What `hwdkit doctor` asks the environment: variables, ranks, where downloaded weights go."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from hwdkit.commands.doctor.findings import Finding, counted
from hwdkit.commands.doctor.limits import writable
from hwdkit.errors import HwdkitError

OURS = ("HWDKIT_DATA", "HWDKIT_RECIPES", "HWDKIT_DEBUG", "HWDKIT_WORKER_ERRORS")
THEIRS = (
    "CUDA_VISIBLE_DEVICES",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "MASTER_ADDR",
    "MASTER_PORT",
)
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def variables() -> Iterator[Finding]:
    """Variables that steer hwdkit; one that it does not know is probably misspelt."""
    for name in sorted(os.environ):
        facts = {"value": os.environ[name]}
        if name.startswith("HWDKIT_") and name not in OURS:
            close = difflib.get_close_matches(name, OURS, n=1)
            guess = f"; did you mean {close[0]}?" if close else ""
            yield Finding(name, f"hwdkit reads no such variable{guess}", "note", f"unset {name}", facts)
        elif name in OURS + THEIRS or name.startswith("NCCL_"):
            yield Finding(name, facts["value"], facts=facts)


def ranks() -> Iterator[Finding]:
    """Which of several processes this would be, as a run started here would see it."""
    from hwdkit.distributed import environment

    theirs = [name for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if name in os.environ]
    slurms = [name for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS") if name in os.environ]
    clear = f"unset {' '.join(theirs or slurms)}"
    try:
        rank, local, world = environment()
    except HwdkitError as error:
        yield Finding("ranks", error.message, "problem", clear)
        return
    facts = {"rank": rank, "local_rank": local, "world": world}
    tasks = os.environ.get("SLURM_NTASKS")
    # srun may start one torchrun a node, which then counts for more than Slurm knows of; never for less.
    if theirs and slurms and (tasks or "").isdecimal() and world % max(int(tasks or 1), 1):
        value = f"WORLD_SIZE={world} contradicts SLURM_NTASKS={tasks}; hwdkit believes the former"
        yield Finding("ranks", value, "problem", clear, facts)
    elif world > 1 and os.environ.get("SLURM_NNODES", "1") != "1" and "MASTER_ADDR" not in os.environ:
        fix = 'export MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"'
        yield Finding("ranks", "several Slurm nodes, and no MASTER_ADDR", "problem", fix, facts)
    elif world > 1:
        value = f"rank {rank} of {world}: a run started here waits for the others"
        yield Finding("ranks", value, "note", f"{clear}   (unless torchrun or srun set them)", facts)
    else:
        yield Finding("ranks", "one process, or as many as hwdkit starts", facts=facts)


def pretrained_weights() -> Iterator[Finding]:
    """Where timm's downloads go, whether they can, and how many are there."""
    environ = os.environ
    home = environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    hub = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or Path(home, "hub")
    folder = Path(os.path.expandvars(hub)).expanduser()
    there = len(list(folder.glob("models--*"))) if folder.is_dir() else 0
    offline = [name for name in OFFLINE if environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}]
    facts = {"path": str(folder), "models": there, "offline": offline}
    value = f"{counted(there, 'model')} in {folder}"
    if offline:
        value += f"; {offline[0]} is set: nothing else is downloaded"
        yield Finding("pretrained weights", value, "note", f"unset {' '.join(offline)}", facts)
    elif not writable(folder):
        fix = "export HF_HOME=/some/writable/folder"
        yield Finding("pretrained weights", f"{value}, which is not writable", "problem", fix, facts)
    else:
        yield Finding("pretrained weights", value, facts=facts)
