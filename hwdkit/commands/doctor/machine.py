"""The machine, as `hwdkit doctor` checks it: devices, threads, shared memory, open files, free disk space.

torch is imported inside the checks: a torch that cannot be imported is a finding, not the end.
"""

from __future__ import annotations

import os
import shlex
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

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
        yield _device(i)
    if not count:
        yield _no_device(": ".join(["", *(first_line(entry.message) for entry in caught[:1])]))


def _device(i: int) -> Finding:
    import torch

    name = f"cuda:{i}"
    try:
        gpu = torch.cuda.get_device_properties(i)
        facts = {"name": gpu.name, "bytes": gpu.total_memory, "capability": [gpu.major, gpu.minor]}
        value = f"{gpu.name}, {_in_gib(gpu.total_memory)}, compute capability {gpu.major}.{gpu.minor}"
        torch.zeros(1, device=name).add_(
            1
        ).item()  # a device that is busy, or that this torch has no code for
    except RuntimeError as error:
        fix = REINSTALL if "no kernel image" in str(error) else "nvidia-smi"
        return Finding(name, f"cannot be used: {first_line(error)}", "problem", fix)
    return Finding(name, value, facts=facts)


def _no_device(reason: str) -> Finding:
    import torch

    built = torch.version.cuda or getattr(torch.version, "hip", None)
    facts = {"built_for": built}
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if built and hidden is not None and (not hidden.strip() or hidden.strip().startswith("-")):
        value = f"CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU: the CPU is used"
        return Finding("cuda", value, "note", "unset CUDA_VISIBLE_DEVICES", facts)
    if not any(path.exists() for path in NVIDIA):
        return Finding("cuda", "no GPU: hwdkit works on the CPU, which is slow", "note", facts=facts)
    if built:
        value = f"there is an NVIDIA driver, but torch (built for {built}) sees no device{reason}"
        fix = "nvidia-smi   (and in a container: docker run --gpus all …)"
        return Finding("cuda", value, "problem", fix, facts)
    return Finding("cuda", "there is an NVIDIA driver, but this torch is for CPUs", "note", REINSTALL, facts)


def threads() -> Iterator[Finding]:
    """Cores, what the container allows of them, and how many threads a process will start."""
    count, allowed, number = cores(), _cpu_limit(), os.environ.get("OMP_NUM_THREADS")
    usable = max(1, int(min(count, allowed or count)))
    fix = f"export OMP_NUM_THREADS={usable}"
    facts: dict[str, object] = {"cores": count, "cgroup_limit": allowed}
    value = f"{count}" if allowed is None else f"{count}, the container may use {allowed:g}"
    if allowed is not None and allowed < count and number is None:
        yield Finding("cores", f"{value}: one thread per core is too many", "note", fix, facts)
    else:
        yield Finding("cores", value, facts=facts)
    value, facts = f"OMP_NUM_THREADS={number}", {"OMP_NUM_THREADS": number}
    first = (number or "").partition(",")[0].strip()
    if number is None:
        yield Finding("threads", "OMP_NUM_THREADS is not set: torch decides", facts=facts)
    elif not first.isdecimal() or int(first) == 0:
        yield Finding("threads", f"{value} is not a number", "problem", fix, facts)
    elif int(first) > usable:
        yield Finding("threads", f"{value} on {usable} cores", "note", fix, facts)
    else:
        yield Finding("threads", value, facts=facts)


def _cpu_limit() -> float | None:
    try:
        quota, period = CPU_LIMIT.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no control group, or "max"
        return None


def shared_memory() -> Iterator[Finding]:
    """Loader workers pass batches through /dev/shm and die with "Bus error" when it is full."""
    name = "shared memory"
    if not SHARED_MEMORY.is_dir():
        yield Finding(name, f"no {SHARED_MEMORY} on this system")
        return
    usage = shutil.disk_usage(SHARED_MEMORY)
    facts = {"bytes": usage.total, "free": usage.free}
    value = f"{_in_gib(usage.free)} free of {_in_gib(usage.total)}"
    fix = "docker run --shm-size=8g …   (or, slower: --set data.workers=0)"
    if usage.free < GIB // 4:
        yield Finding(name, f"{value}: loader workers will die", "problem", fix, facts)
    elif usage.free < GIB:
        yield Finding(name, f"{value}: little for large crops", "note", fix, facts)
    else:
        yield Finding(name, value, facts=facts)


def open_files() -> Iterator[Finding]:
    """Every batch on its way from a loader worker holds a few file descriptors."""
    import resource  # not on Windows

    soft, hard = (
        None if limit == resource.RLIM_INFINITY else limit
        for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    name, facts = "open files", {"soft": soft, "hard": hard}
    value = "unlimited" if soft is None else f"{soft} at once"
    if soft is not None and soft < 1024:
        fix = f"ulimit -n {min(4096, hard or 4096)}"
        yield Finding(name, value, "problem" if soft < 256 else "note", fix, facts)
    else:
        yield Finding(name, value, facts=facts)


def disk(name: str, folder: Path) -> Iterator[Finding]:
    """The free space where a folder is, or will be."""
    parent = _existing(folder)
    free = shutil.disk_usage(parent).free
    facts, value = {"path": str(folder), "free": free}, f"{_in_gib(free)} free at {folder.absolute()}"
    quoted = shlex.quote(str(parent))
    if not is_writable(folder):
        yield Finding(name, f"{value}, not writable", "note", f"chmod u+w {quoted}", facts)
    elif free < GIB:
        fix = f"du -sh {quoted}/* | sort -h"
        yield Finding(name, f"{value}: a run will fill it", "problem", fix, facts)
    else:
        yield Finding(name, value, "note" if free < 10 * GIB else "ok", facts=facts)


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself where it does not exist yet."""
    parent = _existing(folder)
    return parent.is_dir() and os.access(parent, os.W_OK)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _in_gib(count: int) -> str:
    return f"{count / GIB:.0f} GiB" if count >= 10 * GIB else f"{count / GIB:.2g} GiB"
