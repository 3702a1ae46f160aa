"""What all benchmarks share: clocks, counters, how a result was made, and how it is shown and kept.

On a CPU the clock is the processor time of this process, which a busy machine disturbs far less than the wall
clock does; on a GPU it is CUDA's own events. Ways that are compared run in turns, each round in a new order,
and their ratio is the median of the rounds' own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hwdkit.types import Batch

RESULTS = Path(__file__).parent / "results"
Work = Callable[[], Any]


def parser(purpose: str | None, *, rounds: int, quick: str) -> argparse.ArgumentParser:
    """The options of every benchmark; `quick` says what --quick makes small."""
    made = argparse.ArgumentParser(description=purpose, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--device", default="cpu")
    made.add_argument("--quick", action="store_true", help=f"{quick}: does it run? Its numbers mean nothing")
    made.add_argument("--json", action="store_true", help="print JSON instead of a table")
    made.add_argument("--out", type=Path, help="also write the JSON here")
    return made


def begin(arguments: argparse.Namespace) -> torch.device:
    """Set threads and seed; return the device."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    return torch.device(arguments.device)


def milliseconds(work: Work, device: torch.device) -> float:
    """One run of `work`: processor time on a CPU, the GPU's own time there."""
    if device.type == "cuda":
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        work()
        last.record()
        torch.cuda.synchronize(device)
        return first.elapsed_time(last)
    began = time.process_time()
    work()
    return 1000 * (time.process_time() - began)


def interleaved(
    ways: Mapping[str, Work], *, rounds: int, device: torch.device, warmup: int = 1
) -> dict[str, list[float]]:
    """Milliseconds of every way in every round, in an order that changes from round to round."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    shuffled = random.Random(0)
    for turn in range(warmup + rounds):
        for name in shuffled.sample(list(ways), len(ways)):
            spent = milliseconds(ways[name], device)
            if turn >= warmup:
                times[name].append(spent)
    return times


def ratios(times: Mapping[str, list[float]], plain: str, ours: str) -> list[float]:
    return [a / b for a, b in zip(times[plain], times[ours], strict=True)]


class Operations(TorchDispatchMode):
    """Counts operations that compute something, and the bytes of the tensors they read and write.

    On a GPU each is a kernel or a few. Views, allocations and detach are none.
    """

    FREE = ("aten::empty", "aten::detach", "aten::new_empty", "aten::empty_like", "aten::empty_strided")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func._schema.name not in self.FREE:
            self.count += 1
            touched = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.nbytes for tensor in touched)
        return result


def operations(work: Work) -> Operations:
    with Operations() as counted:
        work()
    return counted


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def random_batch(images: int, crop: tuple[int, int], classes: int, device: torch.device) -> Batch:
    """Noise with labels in regions of 32 x 32, as far as the crop allows, and an ignored strip."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (images, 3, *crop), dtype=torch.uint8, generator=generator)
    regions = [-(-side // 32) for side in crop]
    label = torch.randint(0, classes, (images, *regions), generator=generator)
    label = label.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, : crop[0], : crop[1]].contiguous()
    label[:, : crop[0] // 16] = 255
    return Batch(image.to(device), label.to(device))


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    return ", ".join(sorted(names)) or platform.processor()


def commit() -> str:
    return _git("rev-parse", "--short", "HEAD")


def _git(*command: str) -> str:
    found = subprocess.run(
        ["git", *command], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return found.stdout.strip()


def slug(device: torch.device) -> str:
    """The machine's name as a part of a file's."""
    name = machine(device) + ("" if device.type == "cuda" else f" {os.cpu_count()}core")
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def circumstances(arguments: argparse.Namespace) -> dict[str, Any]:
    """How a measurement was made: its options, the machine and how busy it was, torch and the commit."""
    device = torch.device(arguments.device)
    chosen = {key: value for key, value in vars(arguments).items() if key not in ("json", "out")}
    return {
        **{key: str(value) if isinstance(value, Path) else value for key, value in chosen.items()},
        "machine": machine(device),
        "cores": os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "clock": "CUDA events" if device.type == "cuda" else "processor time of the process",
        "torch": torch.__version__,
        "commit": commit(),
        "modified": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def keep(result: dict[str, Any], out: Path | None) -> None:
    """Write a result where --out says."""
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
