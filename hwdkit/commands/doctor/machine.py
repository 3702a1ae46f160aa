"""The machine, as `hwdkit doctor` checks it: devices, threads, shared memory, open files, room on disks.

torch is imported inside the checks: a torch that cannot be imported is a finding, not the end.
"""

from __future__ import annotations

import os
import shlex
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from hwdkit.commands.doctor.finding import REINSTALL, Finding, first_line
from hwdkit.data.parallel import cores

GIB = 2**30
NVIDIA = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"))
"""Where one of these is, a driver has detected an NVIDIA GPU."""

SHARED_MEMORY = Path("/dev/shm")
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""A container's own limit: microseconds of processor time, and of how many."""


def devices() -> Iterator[Finding]:
    """CUDA devices, or why there are none."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for i in range(count):
        try:
            yield _device(i)
        except RuntimeError as error:
            yield Finding(f"cuda:{i}", f"cannot be used: {first_line(error)}", "problem", "nvidia-smi")
    if not count:
        yield _no_device(next((first_line(entry.message) for entry in caught), ""))


def _device(i: int) -> Finding:
    import torch

    gpu = torch.cuda.get_device_properties(i)
    major, minor = gpu.major, gpu.minor
    facts = {"name": gpu.name, "bytes": gpu.total_memory, "capability": [major, minor]}
    value = f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB, compute capability {major}.{minor}"
    kernels = [_architecture(word) for word in torch.cuda.get_arch_list() if word[:3] in ("sm_", "com")]
    # Machine code runs on its own major version; PTX ("compute_…") is compiled for any later device.
    runs = [k for k in kernels if k[1:] <= (major, minor) and (k[0] == "compute" or k[1] == major)]
    if kernels and not runs:
        return Finding(f"cuda:{i}", f"{value}: this torch has no code for it", "problem", REINSTALL, facts)
    return Finding(f"cuda:{i}", value, facts=facts)


def _architecture(word: str) -> tuple[str, int, int]:
    kind, _, number = word.partition("_")
    digits = "".join(filter(str.isdigit, number))  # sm_90a is sm_90 and more
    return kind, int(digits[:-1]), int(digits[-1])


def _no_device(reason: str) -> Finding:
    import torch

    built = torch.version.cuda or getattr(torch.version, "hip", None)
    facts: dict[str, Any] = {"built_for": built}
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if built and hidden is not None and (not hidden.strip() or hidden.strip().startswith("-")):
        value = f"CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU: the CPU is used"
        return Finding("cuda", value, "note", "unset CUDA_VISIBLE_DEVICES", facts)
    if not any(sign.exists() for sign in NVIDIA):
        return Finding("cuda", "no GPU: hwdkit works on the CPU, which is slow", "note", facts=facts)
    if built:
        value = f"there is an NVIDIA driver, and torch (built for {built}) sees no device"
        fix = "nvidia-smi   (and in a container: docker run --gpus all …)"
        return Finding("cuda", f"{value}{reason and ': '}{reason}", "problem", fix, facts)
    return Finding("cuda", "there is an NVIDIA driver, but this torch is for CPUs", "note", REINSTALL, facts)


def threads() -> Iterator[Finding]:
    """Cores, what the container allows of them, and how many threads a process will start."""
    count, allowed = cores(), _cpu_limit()
    usable = max(1, int(min(count, allowed or count)))
    number, fix = os.environ.get("OMP_NUM_THREADS"), f"export OMP_NUM_THREADS={usable}"
    limit = "" if allowed is None else f", the container may use {allowed:g}"
    throttled = allowed is not None and allowed < count and number is None
    yield Finding(
        "cores",
        f"{count}{limit}{': as many threads would be throttled' if throttled else ''}",
        "note" if throttled else "ok",
        fix if throttled else "",
        {"cores": count, "cgroup_limit": allowed},
    )
    facts = {"OMP_NUM_THREADS": number}
    first = (number or "").partition(",")[0].strip()
    if number is None:
        yield Finding("threads", "OMP_NUM_THREADS is not set: torch decides", facts=facts)
    elif not first.isdecimal() or int(first) == 0:
        yield Finding("threads", f"OMP_NUM_THREADS={number!r} is not a number", "problem", fix, facts)
    elif int(first) > usable:
        yield Finding("threads", f"OMP_NUM_THREADS={number} on {usable} cores", "note", fix, facts)
    else:
        yield Finding("threads", f"OMP_NUM_THREADS={number}", facts=facts)


def _cpu_limit() -> float | None:
    try:
        quota, period = CPU_LIMIT.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no control group, or "max"
        return None


def shared_memory() -> Iterator[Finding]:
    """Loader workers pass batches through /dev/shm and die with "Bus error" when it is full."""
    if not SHARED_MEMORY.is_dir():
        yield Finding("shared memory", f"no {SHARED_MEMORY} on this system")
        return
    usage = shutil.disk_usage(SHARED_MEMORY)
    facts = {"bytes": usage.total, "free": usage.free}
    value = f"{_in_gib(usage.free)} free of {_in_gib(usage.total)}"
    fix = "docker run --shm-size=8g …   (or, slower: --set data.workers=0)"
    if usage.free < GIB // 4:
        yield Finding("shared memory", f"{value}: loader workers will die", "problem", fix, facts)
    elif usage.free < GIB:
        yield Finding("shared memory", f"{value}: little for large crops", "note", fix, facts)
    else:
        yield Finding("shared memory", value, facts=facts)


def open_files() -> Iterator[Finding]:
    """Every batch on its way from a loader worker holds a few file descriptors."""
    import resource  # not on Windows

    soft, hard = (
        None if limit == resource.RLIM_INFINITY else limit
        for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    level: Literal["ok", "note", "problem"] = "ok"
    if soft is not None and soft < 1024:
        level = "problem" if soft < 256 else "note"
    value, more = "unlimited" if soft is None else f"{soft} at once", min(4096, hard or 4096)
    fix = "" if level == "ok" else f"ulimit -n {more}"
    yield Finding("open files", value, level, fix, {"soft": soft, "hard": hard})


def disk(name: str, folder: Path) -> Finding:
    """Look at the room where a folder is, or will be."""
    parent = _existing(folder)
    free = shutil.disk_usage(parent).free
    facts, value = {"path": str(folder), "free": free}, f"{_in_gib(free)} free at {folder.absolute()}"
    quoted = shlex.quote(str(parent))
    if not is_writable(folder):
        return Finding(name, f"{value}, not writable", "note", f"chmod u+w {quoted}", facts)
    if free < GIB:
        fix = f"du -sh {quoted}/* | sort -h"
        return Finding(name, f"{value}: a run will fill it", "problem", fix, facts)
    return Finding(name, value, "note" if free < 10 * GIB else "ok", facts=facts)


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself where it does not exist yet."""
    parent = _existing(folder)
    return parent.is_dir() and os.access(parent, os.W_OK)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _in_gib(count: int) -> str:
    return f"{count / GIB:.0f} GiB" if count >= 10 * GIB else f"{count / GIB:.2g} GiB"
