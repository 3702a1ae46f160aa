"""How time and memory grow with the classes, the pixels, the batch and the ranks, and how they should.

Each kernel and a small distillation step is measured at several sizes along one axis; the slope of a line
through the logarithms is the exponent of the growth. What has to be touched grows linearly (1) in most of
them; where a floor is smaller, the table says so. Two ranks are two processes over gloo, with the same images
each as one rank has alone: what every rank pays on top is communication.

    python benchmarks/growth.py --plot docs/images/growth.png
    python benchmarks/growth.py --quick --json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from distil_step import networks, product
from evaluate import ours as evaluated
from hwd_loss import backwards
from measurement import Work, begin, circumstances, interleaved, keep, milliseconds, parser, random_batch
from step import step
from torch.nn.parallel import DistributedDataParallel

from hwdkit.distributed import Ranks, started
from hwdkit.engine.loop import SYNC_BUFFERS
from hwdkit.losses.cross_entropy import upsampled_cross_entropy
from hwdkit.losses.hwd import HWD
from hwdkit.measure.memory import MIB, peak_bytes
from hwdkit.types import SegOutput

RECIPE = "scenes-r10-hwd"


class Size(NamedTuple):
    """Of a measurement: maps have `side` squared positions, crops 8 times as many pixels a side."""

    classes: int
    side: int
    images: int


START = Size(classes=38, side=32, images=4)
AXES = {
    "classes": [START._replace(classes=classes) for classes in (19, 38, 75, 150, 300, 512)],
    "pixels": [START._replace(side=side) for side in (16, 24, 32, 48, 64)],
    "images": [START._replace(images=images) for images in (2, 4, 8, 16)],
}
QUICK = {"classes": [Size(4, 4, 2), Size(8, 4, 2)]}
FLOORS = {
    ("evaluation", "classes"): "1 for argmax of the logits, 0 for counting pixels",
    ("step", "classes"): "0 to 1: the networks do not grow, the losses do",
}
"""Where it is not 1."""


def main() -> None:
    arguments = parse()
    device = begin(arguments)
    if arguments.rank_of:
        distributed_step(arguments)
        return
    axes = QUICK if arguments.quick else AXES
    found: dict[str, Any] = {}
    for axis, sizes in axes.items():
        for name in WORKS:
            points = [measured(name, size, arguments, device) for size in sizes]
            found[f"{name} by {axis}"] = {
                "points": points,
                "time_exponent": exponent([extent(size, axis) for size in sizes], [p["ms"] for p in points]),
                "memory_exponent": exponent(
                    [extent(size, axis) for size in sizes], [p["peak_mib"] for p in points]
                ),
                "floor": FLOORS.get((name, axis), "1"),
            }
            print(f"{name} by {axis}: done", file=sys.stderr)
    result = {**circumstances(arguments), "growth": found, "ranks": ranks(arguments)}
    print(json.dumps(result, indent=2) if arguments.json else table(result))
    keep(result, arguments.out)
    if arguments.plot:
        plot(found, arguments.plot)


def extent(size: Size, axis: str) -> int:
    return {"classes": size.classes, "pixels": (8 * size.side) ** 2, "images": size.images}[axis]


def measured(name: str, size: Size, arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    work = WORKS[name](size, device)
    rounds = 1 if arguments.quick else max(2, arguments.rounds // (2 if name == "step" else 1))
    times = interleaved({name: work}, rounds=rounds, device=device)[name]
    return {
        **size._asdict(),
        "ms": round(statistics.median(times), 3),
        "peak_mib": round(peak_bytes(work, device) / MIB, 3),
    }


def cross_entropy(size: Size, device: torch.device) -> Work:
    maps = random_maps(size, device).requires_grad_()
    label = random_batch(size.images, (8 * size.side, 8 * size.side), size.classes, device).label
    return backwards(lambda: upsampled_cross_entropy(maps, label), [maps])


def hwd(size: Size, device: torch.device) -> Work:
    maps, theirs = random_maps(size, device).requires_grad_(), random_maps(size, device)
    label = random_batch(size.images, (8 * size.side, 8 * size.side), size.classes, device).label
    loss = HWD(area_correction="paper")
    return backwards(lambda: loss(SegOutput(maps, None, {}), SegOutput(theirs, None, {}), label), [maps])


def evaluation(size: Size, device: torch.device) -> Work:
    """Images one after the other; their logits belong to regions, as those of a network do."""
    label = random_batch(size.images, (8 * size.side, 8 * size.side), size.classes, device).label
    kinds = label[:, 4::8, 4::8] % size.classes
    near = torch.nn.functional.one_hot(kinds, size.classes).permute(0, 3, 1, 2)
    maps = random_maps(size, device) + 12 * near

    def work() -> None:
        for one, of in zip(maps, label, strict=True):
            evaluated(one, of)

    return work


def small_step(size: Size, device: torch.device) -> Work:
    """A distillation step with the losses and the recipe of the whole, and small networks."""
    student, teacher = networks(RECIPE, size.classes)
    batch = random_batch(size.images, (8 * size.side, 8 * size.side), size.classes, device)
    # With channels last oneDNN (torch 2.15) crashes in the backward pass of these networks at 256 x 256.
    run, teach = product(student, teacher, Ranks(0, 1, device), channels_last=False)
    return step(run, batch, teach, "off")


WORKS = {"cross-entropy": cross_entropy, "hwd": hwd, "evaluation": evaluation, "step": small_step}


def random_maps(size: Size, device: torch.device) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size.images, size.classes, size.side, size.side, generator=generator).to(device)


def exponent(extents: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of the straight line nearest to the logarithms."""
    x, y = [math.log(value) for value in extents], [math.log(max(value, 1e-9)) for value in costs]
    return round(statistics.linear_regression(x, y).slope, 2)


def ranks(arguments: argparse.Namespace) -> dict[str, Any]:
    """Processor milliseconds of a step on every rank, alone and of two, with as many images each."""
    found = {world: launched(world, arguments) for world in (1, 2)}
    return {
        "images_per_rank": START.images,
        "ms_per_rank": found,
        "two_over_one": round(statistics.mean(found[2]) / found[1][0], 3),
        "floor": "1",
    }


def launched(world: int, arguments: argparse.Namespace) -> list[float]:
    """Start so many processes of this script; return the milliseconds of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, __file__, "--rank-of", str(world), "--rounds", str(arguments.rounds)]
    running = [
        subprocess.Popen(
            [*command, *(["--quick"] if arguments.quick else [])],
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    spoken = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError(f"a step on {world} rank(s) failed; its error is above")
    return [float(said.split()[-1]) for said in spoken]


def distributed_step(arguments: argparse.Namespace) -> None:
    """What one of the processes does: print its milliseconds."""
    size = Size(8, 8, 2) if arguments.quick else START
    with started(cpu=True) as own:
        student, teacher = networks(RECIPE, size.classes)
        batch = random_batch(size.images, (8 * size.side, 8 * size.side), size.classes, own.device)
        run, teach = product(student, teacher, own, channels_last=False)
        whole = (
            DistributedDataParallel(run.objective, **{SYNC_BUFFERS: False})
            if own.world > 1
            else run.objective
        )

        def work() -> None:
            terms = whole(batch, teach(batch.image))
            torch.stack(list(terms.values())).sum().backward()
            run.optimizer.step()
            run.optimizer.zero_grad(set_to_none=True)

        work()
        print(statistics.median([milliseconds(work, own.device) for _ in range(arguments.rounds)]))


def table(result: dict[str, Any]) -> str:
    """Exponents in Markdown."""
    lines = ["| what | time grows with the power | memory | floor |", "|---|--:|--:|---|"]
    for name, found in result["growth"].items():
        lines.append(f"| {name} | {found['time_exponent']} | {found['memory_exponent']} | {found['floor']} |")
    two = result["ranks"]
    lines.append(f"\nA step on each of two ranks takes {two['two_over_one']} times that of one rank alone.")
    return "\n".join(lines)


def plot(found: dict[str, Any], path: Path) -> None:
    """Time above, memory below, one column an axis; the dotted line is linear growth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axes = list(dict.fromkeys(name.split(" by ")[1] for name in found))
    figure, panels = plt.subplots(2, len(axes), figsize=(4 * len(axes), 6), squeeze=False, sharey="row")
    for column, axis in enumerate(axes):
        for row, (key, unit) in enumerate((("ms", "processor ms"), ("peak_mib", "peak MiB"))):
            panel = panels[row][column]
            for name, one in found.items():
                if name.endswith(f" by {axis}"):
                    points = one["points"]
                    x = [extent(Size(p["classes"], p["side"], p["images"]), axis) for p in points]
                    panel.plot(x, [p[key] for p in points], marker="o", label=name.split(" by ")[0])
            low = min(line.get_ydata()[0] for line in panel.lines)
            panel.plot(x, [low * value / x[0] for value in x], ":", color="gray", label="linear")
            panel.set(xscale="log", yscale="log")
            panel.set_xticks(x, labels=[f"{value:,}" for value in x], fontsize=7)
            panel.minorticks_off()
            panel.grid(alpha=0.3)
            panels[row][0].set_ylabel(unit)
        panels[1][column].set_xlabel(axis)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="upper center", ncols=5, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def parse() -> argparse.Namespace:
    options = parser(__doc__, rounds=5, quick="two tiny sizes along one axis")
    options.add_argument("--plot", type=Path, help="write the curves to this PNG")
    options.add_argument("--rank-of", type=int, default=0, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.quick:
        arguments.rounds = 1
    return arguments


if __name__ == "__main__":
    main()
