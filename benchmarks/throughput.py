"""What one distillation step gets out of a machine: operations, FLOP/s and bytes/s beside the ceilings.

The ceilings, a large matrix product and a large copy, are measured in the same call. FLOPs are torch's own
count, two per multiply-add. Bytes are those of all tensors that the operations read and write: caches and
fused kernels make the true traffic smaller. On a GPU kernels are counted by torch's profiler.

    python benchmarks/throughput.py --device cuda --images 8
    python benchmarks/throughput.py --quick --json
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch
from distil_step import CLASSES, networks, product
from goals import Row, show
from measurement import Work, begin, milliseconds, operations, parser, random_batch
from step import step
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from hwdkit.distributed import Ranks

TYPES = {"off": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    arguments = parse()
    device = begin(arguments)
    student, teacher = networks(arguments.recipe)
    batch = random_batch(arguments.images, (arguments.crop, arguments.crop), CLASSES, device)
    rows: list[Row] = []
    more: dict[str, Any] = {}
    for amp in arguments.amp:
        # The small networks of --quick are refused with channels last: torch crashes in them on a CPU.
        run, teach = product(student, teacher, Ranks(0, 1, device), amp, channels_last=not arguments.quick)
        work = step(run, batch, teach, amp)
        work()
        product_rate = matmul(TYPES[amp], arguments.side, device, arguments.rounds)
        copy_rate = copy(arguments.copy, device, arguments.rounds)
        found = measured(work, device, arguments.rounds)
        name = f"step, {arguments.images} x {arguments.crop} x {arguments.crop}, {amp}"
        rows += [
            rate(name, "TFLOP/s", found["flop"] / found["ms"] / 1e9, product_rate),
            rate(name, "GB/s", found["bytes"] / found["ms"] / 1e6, copy_rate),
        ]
        more[name] = found
    show(rows, arguments, steps=more)


def measured(work: Work, device: torch.device, rounds: int) -> dict[str, float]:
    """Median milliseconds, FLOPs, bytes, operations and kernels of a step."""
    median = statistics.median([milliseconds(work, device) for _ in range(rounds)])
    with FlopCounterMode(display=False) as flops:
        work()
    counted = operations(work)
    found = {
        "ms": median,
        "flop": flops.get_total_flops(),
        "bytes": counted.bytes,
        "operations": counted.count,
    }
    if device.type == "cuda":
        found["kernels"] = kernels(work)
    return found


def kernels(work: Work) -> int:
    """How many kernels a GPU runs in a step."""
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        work()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in recorded.events())


def matmul(dtype: torch.dtype, side: int, device: torch.device, rounds: int) -> float:
    """TFLOP/s of a square matrix product."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    torch.mm(a, b)
    return 2 * side**3 / best(lambda: torch.mm(a, b), device, rounds) / 1e9


def copy(size: int, device: torch.device, rounds: int) -> float:
    """GB/s of a copy, reading and writing."""
    source = torch.randn(size // 4, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * source.nbytes / best(lambda: target.copy_(source), device, rounds) / 1e6


def best(work: Work, device: torch.device, rounds: int) -> float:
    """The least milliseconds: a ceiling is what can be reached, not what a busy machine leaves."""
    return max(min(milliseconds(work, device) for _ in range(3 * rounds)), 1e-6)


def rate(what: str, measure: str, ours: float, ceiling: float) -> Row:
    share = f"{100 * ours / ceiling:.0f} % of"
    return Row(what, measure, ours, floor=f"{share} the ceiling, {ceiling:.3g}, measured in this run")


def parse() -> argparse.Namespace:
    options = parser(__doc__, rounds=3, quick="crops of 64, a ResNet-10 teacher")
    options.add_argument("--recipe", default="ade20k-r18-hwd", help="whose student and teacher")
    options.add_argument("--images", type=int, default=2)
    options.add_argument("--crop", type=int, default=512)
    options.add_argument("--amp", nargs="+", choices=TYPES, default=list(TYPES))
    options.add_argument("--side", type=int, default=0, help="of the matrices; 0 = 8192 on a GPU, 1024 else")
    options.add_argument("--copy", type=int, default=2**28, help="bytes of the copy")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.recipe, arguments.crop, arguments.rounds, arguments.copy = "scenes-r10-hwd", 64, 1, 2**22
        arguments.side = arguments.side or 128
    arguments.side = arguments.side or (8192 if arguments.device.startswith("cuda") else 1024)
    return arguments


if __name__ == "__main__":
    main()
