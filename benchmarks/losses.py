"""What every loss costs beside the others: forward + backward of the loss alone, no network.

Maps are those of 512 x 512 crops at stride 8; the student's want gradients, as do the loss's own parameters.
Rounds are interleaved, each in a new order, so that a busy machine slows all alike. A critic's own step
(`update_critic`) is a row of its own. Stage 4 (512 -> 2048 channels) is measured for the losses whose authors
tap it, once: their cost does not depend on the classes.

    python benchmarks/losses.py            # a table on stdout, JSON in benchmarks/results/
    python benchmarks/losses.py --quick    # tiny maps, to see that everything runs; writes nothing
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from step import machine, synchronise
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from hwdkit.losses import LOSSES
from hwdkit.types import IGNORE, SegOutput

CHANNELS = {"embedding": (128, 256), "stage4": (512, 2048)}
"""(student's, teacher's) channels: heads as wide as in CIRKD and HWD, ResNet-18 and ResNet-101."""
STAGE4 = ("mgd", "af_dcd")
MIB = 2**20
RESULTS = Path(__file__).parent / "results"


class Case(NamedTuple):
    """One row: a piece of work, and the loss that does it."""

    name: str
    tap: str
    classes: int
    work: Callable[[], None]
    loss: nn.Module


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    groups = [rows(name, tap, classes, arguments) for name, tap, classes in requested(arguments)]
    cases = [case for group in groups for case in group]
    memory = [peak_mib(case.work, arguments.device) for case in cases]
    times = measure(groups, arguments)
    report([result(*of) for of in zip(cases, times, memory, strict=True)], arguments)


def requested(arguments: argparse.Namespace) -> list[tuple[str, str, int]]:
    """(loss, tap, classes): every loss at every number of classes, then those of stage 4."""
    wanted = [name for name in LOSSES if not arguments.only or name in arguments.only]
    everything = [(name, usual_tap(name), classes) for classes in arguments.classes for name in wanted]
    return everything + [(name, "stage4", arguments.classes[0]) for name in wanted if name in STAGE4]


def usual_tap(name: str) -> str:
    """Score maps or embeddings, whichever the loss compares by default; embeddings for stages, too."""
    tap = inspect.signature(LOSSES[name].__init__).parameters.get("tap")
    return "logits" if tap is None or tap.default == "logits" else "embedding"


def rows(name: str, tap: str, classes: int, arguments: argparse.Namespace) -> list[Case]:
    """A loss and, if it has one, its critic, both run once."""
    loss = build(name, tap, classes).to(arguments.device).train()
    work = forward_and_backward(loss, *inputs(tap, classes, arguments))
    work()
    cases = [Case(name, tap, classes, work, loss)]
    if hasattr(loss, "update_critic"):
        critic = critic_step(loss, torch.device(arguments.device))
        critic()
        cases.append(Case(f"{name}, critic", tap, classes, critic, loss))
    return cases


def build(name: str, tap: str, classes: int) -> nn.Module:
    """A loss with its defaults but for the tap, and what the networks decide."""
    student, teacher = CHANNELS.get(tap, (classes, classes))
    decided = {"tap": tap, "classes": classes, "student_channels": student, "teacher_channels": teacher}
    taken = inspect.signature(LOSSES[name].__init__).parameters
    return LOSSES[name](**{key: value for key, value in decided.items() if key in taken})


def inputs(tap: str, classes: int, arguments: argparse.Namespace) -> tuple[SegOutput, SegOutput, Tensor]:
    """The student's output, which wants gradients, the teacher's, and labels in blocks of classes."""
    generator = torch.Generator().manual_seed(0)
    n, crop, side = arguments.images, arguments.crop, arguments.crop // 8
    outputs = []
    for who in (0, 1):
        sizes = {"logits": classes}
        if tap != "logits":
            sizes[tap] = CHANNELS[tap][who]
        maps = {
            key: torch.randn(n, size, side, side, generator=generator).to(arguments.device)
            for key, size in sizes.items()
        }
        for map_ in maps.values():
            map_.requires_grad_(who == 0)
        outputs.append(SegOutput(maps.pop("logits"), None, maps))
    block = max(crop // 16, 1)
    label = torch.randint(0, classes, (n, crop // block, crop // block), generator=generator)
    label = label.repeat_interleave(block, 1).repeat_interleave(block, 2)
    label[:, :block] = IGNORE
    return outputs[0], outputs[1], label.to(arguments.device)


def forward_and_backward(
    loss: nn.Module, student: SegOutput, teacher: SegOutput, label: Tensor
) -> Callable[[], None]:
    """The loss alone. Gradients are given back at the end of every call, so that a peak includes them."""
    leaves = [student.logits, *student.taps.values(), *loss.parameters()]

    def work() -> None:
        loss(student, teacher, label).backward()
        synchronise(label.device)
        for leaf in leaves:
            leaf.grad = None

    return work


def critic_step(loss: nn.Module, device: torch.device) -> Callable[[], None]:
    """The critic's own step on the maps that its loss saw last."""

    def work() -> None:
        loss.update_critic(0.0)  # type: ignore[operator]
        synchronise(device)

    return work


def measure(groups: list[list[Case]], arguments: argparse.Namespace) -> list[list[float]]:
    """Milliseconds of every case in interleaved rounds; a loss that has used up its seconds sits out.

    A critic always follows its loss, which hands it fresh maps.
    """
    times: list[list[list[float]]] = [[[] for _ in group] for group in groups]
    shuffled = random.Random(0)
    for _ in range(arguments.rounds):
        for i in shuffled.sample(range(len(groups)), len(groups)):
            spent = sum(sum(runs) for runs in times[i]) / 1000
            if spent > arguments.seconds and len(times[i][0]) >= 3:
                continue
            for case, runs in zip(groups[i], times[i], strict=True):
                began = time.perf_counter()
                case.work()
                runs.append(1000 * (time.perf_counter() - began))
    return [runs for group in times for runs in group]


def peak_mib(work: Callable[[], None], device: str) -> float:
    """How much more than before is allocated by tensors at the worst moment of a call.

    On the CPU these are the events of torch's allocator: scratch memory of oneDNN and BLAS is not among them.
    """
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / MIB
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        work()
    assert recorded.profiler is not None
    assert recorded.profiler.kineto_results is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    allocated = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        allocated += event.nbytes()  # negative where memory is given back
        peak = max(peak, allocated)
    return peak / MIB


def result(case: Case, runs: list[float], peak: float) -> dict[str, str | int | float]:
    """A row of the table."""
    return {
        "loss": case.name,
        "tap": case.tap,
        "classes": case.classes,
        "median_ms": round(statistics.median(runs), 3),
        "fastest_ms": round(min(runs), 3),
        "runs": len(runs),
        "peak_mib": round(peak, 2),
        "parameters": sum(parameter.numel() for parameter in case.loss.parameters()),
        "buffers_mib": round(sum(buffer.nbytes for buffer in case.loss.buffers()) / MIB, 2),
    }


def report(results: list[dict[str, str | int | float]], arguments: argparse.Namespace) -> None:
    """A Markdown table on stdout and, unless the run was a quick one, a JSON file."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    name = machine(arguments.device)
    print(
        f"{name}, {arguments.device}, {arguments.threads} thread(s), torch {torch.__version__}, {commit}: "
        f"{arguments.images} images, maps of {arguments.crop // 8} x {arguments.crop // 8}\n"
    )
    print("| loss | tap | classes | median ms | peak MiB | parameters | buffers MiB |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for row in results:
        print(
            f"| {row['loss']} | {row['tap']} | {row['classes']} | {row['median_ms']:.1f} "
            f"| {row['peak_mib']:.1f} | {row['parameters']:,} | {row['buffers_mib']:.1f} |"
        )
    out = arguments.out
    if out is None and not arguments.quick:
        cores = "" if arguments.device.startswith("cuda") else f"{os.cpu_count()}core-"
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        out = RESULTS / f"{slug}-{cores}{commit}-losses.json"
    if out is None:
        return
    settings = {key: getattr(arguments, key) for key in ("images", "crop", "threads", "device", "rounds")}
    settings |= {"channels": CHANNELS, "machine": name, "torch": torch.__version__, "commit": commit}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(settings | {"losses": results}, indent=2) + "\n")
    print(f"written: {out}", file=sys.stderr)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=LOSSES, metavar="LOSS", help="default: all of them")
    parser.add_argument("--classes", type=int, nargs="+", default=[19, 150])
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--crop", type=int, default=512, help="side in pixels; maps have an eighth of it")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--seconds", type=float, default=60, help="per loss; after that it sits out (>= 3 runs)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="crops of 128, 5 classes, 2 rounds, no file")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/MACHINE-COMMIT-losses.json")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.crop, arguments.classes, arguments.rounds = 512 // 4, [5], 2
    return arguments


if __name__ == "__main__":
    main()
