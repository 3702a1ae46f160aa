"""What the machine allows: processors, shared memory, open files, room. Each check yields `Finding`s."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from hwdkit.commands.doctor.findings import GIB, Finding, in_gib
from hwdkit.data.parallel import cores

SHARED_MEMORY = Path("/dev/shm")
CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def threads() -> Iterator[Finding]:
    """Cores, what the container allows of them, and how many threads a process will start."""
    count, allowed = cores(), cpu_limit()
    facts: dict[str, Any] = {"cores": count, "cgroup_limit": allowed}
    usable = max(1, int(min(count, allowed or count)))
    asked = os.environ.get("OMP_NUM_THREADS")
    if allowed is not None and allowed < count and asked is None:
        value = f"{count}, of which the container may use {allowed:g}: as many threads would be throttled"
        yield Finding("cores", value, "note", f"export OMP_NUM_THREADS={usable}", facts)
    else:
        limit = "" if allowed is None else f", the container may use {allowed:g}"
        yield Finding("cores", f"{count}{limit}", facts=facts)
    facts, fix = {"OMP_NUM_THREADS": asked}, f"export OMP_NUM_THREADS={usable}"
    first = (asked or "").partition(",")[0].strip()
    if asked is None:
        yield Finding("threads", "OMP_NUM_THREADS is not set: torch decides", facts=facts)
    elif not first.isdecimal() or int(first) == 0:
        yield Finding("threads", f"OMP_NUM_THREADS={asked!r} is not a number", "problem", fix, facts)
    elif int(first) > usable:
        yield Finding("threads", f"OMP_NUM_THREADS={asked} on {usable} cores", "note", fix, facts)
    else:
        yield Finding("threads", f"OMP_NUM_THREADS={asked}", facts=facts)


def cpu_limit() -> float | None:
    """Cores that control groups allow, this process's and those above it; None = no limit."""
    limits: list[float] = []
    lines = OWN_CGROUP.read_text().splitlines() if OWN_CGROUP.is_file() else []
    for number, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if number != "0" and "cpu" not in controllers.split(","):
            continue
        root = CGROUP if number == "0" else CGROUP / controllers
        group = Path(path.lstrip("/"))
        for folder in (root / group, *(root / parent for parent in group.parents)):
            limits += _quota(folder)
    return min(limits, default=None)


def _quota(folder: Path) -> list[float]:
    """Read version 2's `cpu.max`, or version 1's pair of files; -1 and "max" stand for no limit."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{of}_us").read_text() for of in ("quota", "period"))
        return [int(quota) / int(period)] if int(quota) > 0 else []
    except (OSError, ValueError):
        return []


def shared_memory() -> Iterator[Finding]:
    """Loader workers pass batches through /dev/shm and die with "Bus error" when it is full."""
    if not SHARED_MEMORY.is_dir():
        yield Finding("shared memory", f"no {SHARED_MEMORY} on this system")
        return
    usage = shutil.disk_usage(SHARED_MEMORY)
    facts = {"bytes": usage.total, "free": usage.free}
    value = f"{in_gib(usage.free)} free of {in_gib(usage.total)}"
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

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    facts = {"soft": None if unlimited else soft, "hard": None if hard == resource.RLIM_INFINITY else hard}
    level: Literal["ok", "note", "problem"] = "ok"
    if not unlimited and soft < 1024:
        level = "problem" if soft < 256 else "note"
    value = "unlimited" if unlimited else f"{soft} at once"
    more = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    yield Finding("open files", value, level, f"ulimit -n {more}" if level != "ok" else "", facts)


def temporary_folder() -> Iterator[Finding]:
    """Processes meet in the temporary folder, and archives are unpacked in it."""
    try:
        folder = tempfile.gettempdir()
        with tempfile.TemporaryFile() as file:
            file.write(b"0")
            file.flush()
    except OSError as error:
        value = f"cannot be written to: {error.strerror or error}"
        yield Finding("temporary folder", value, "problem", "export TMPDIR=/some/writable/folder")
    else:
        yield Finding("temporary folder", folder, facts={"path": folder})


def disk(name: str, folder: Path) -> Finding:
    """Look at the room where a folder is, or will be."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    facts, value = {"path": str(folder), "free": free}, f"{in_gib(free)} free at {folder.absolute()}"
    if not writable(folder):
        return Finding(name, f"{value}, not writable", "note", f"chmod u+w {shlex.quote(str(there))}", facts)
    if free < GIB:
        return Finding(
            name,
            f"{value}: a run will fill it",
            "problem",
            f"du -sh {shlex.quote(str(there))}/* | sort -h",
            facts,
        )
    return Finding(name, value, "note" if free < 10 * GIB else "ok", facts=facts)


def writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself where it does not exist yet."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return there.is_dir() and os.access(there, os.W_OK)
