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
import random
import statistics
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from measurement import RESULTS, begin, circumstances, keep, milliseconds, parser, slug, synchronise
from torch import Tensor

from hwdkit.losses import LOSSES, Loss
from hwdkit.measure.memory import MIB, peak_bytes
from hwdkit.types import IGNORE, SegOutput

CHANNELS = {"embedding": (128, 256), "stage4": (512, 2048)}
"""(student's, teacher's) channels: heads as wide as in CIRKD and HWD, ResNet-18 and ResNet-101."""
STAGE4 = ("mgd", "af_dcd")


class Case(NamedTuple):
    """One row: a piece of work, and the loss that does it."""

    name: str
    tap: str
    classes: int
    work: Callable[[], None]
    loss: Loss


def main() -> None:
    arguments = parse()
    device = begin(arguments)
    groups = [rows(name, tap, classes, arguments) for name, tap, classes in requested(arguments)]
    cases = [case for group in groups for case in group]
    memory = [peak_bytes(case.work, device) / MIB for case in cases]
    times = measure(groups, arguments)
    report([result(*of) for of in zip(cases, times, memory, strict=True)], arguments)


def requested(arguments: argparse.Namespace) -> list[tuple[str, str, int]]:
    """(loss, tap, classes): every loss at every number of classes, then those of stage 4."""
    names = [name for name in LOSSES if not arguments.only or name in arguments.only]
    everything = [(name, usual_tap(name), classes) for classes in arguments.classes for name in names]
    if arguments.quick:
        return everything
    return everything + [(name, "stage4", arguments.classes[0]) for name in names if name in STAGE4]


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
    if loss.critic is not None:
        critic = critic_step(loss, torch.device(arguments.device))
        critic()
        cases.append(Case(f"{name}, critic", tap, classes, critic, loss))
    return cases


def build(name: str, tap: str, classes: int) -> Loss:
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
    loss: Loss, student: SegOutput, teacher: SegOutput, label: Tensor
) -> Callable[[], None]:
    """The loss alone. Gradients are given back at the end of every call, so that a peak includes them."""
    leaves = [student.logits, *student.taps.values(), *loss.parameters()]

    def work() -> None:
        loss(student, teacher, label).backward()
        synchronise(label.device)
        for leaf in leaves:
            leaf.grad = None

    return work


def critic_step(loss: Loss, device: torch.device) -> Callable[[], None]:
    """The critic's own step on the maps that its loss saw last."""

    def work() -> None:
        loss.update_critic(0.0)
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
                runs.append(milliseconds(case.work, torch.device(arguments.device)))
    return [runs for group in times for runs in group]


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
    """A Markdown table or JSON on stdout and, unless the run was a quick one, a JSON file."""
    found = {**circumstances(arguments), "channels": CHANNELS, "losses": results}
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        table(results, found)
    out = arguments.out
    if out is None and not arguments.quick:
        out = RESULTS / f"{slug(torch.device(arguments.device))}-{found['commit']}-losses.json"
    keep(found, out)
    if out:
        print(f"written: {out}", file=sys.stderr)


def table(results: list[dict[str, str | int | float]], found: dict[str, Any]) -> None:
    print(
        f"{found['machine']}, {found['device']}, {found['threads']} thread(s), torch {found['torch']}, "
        f"{found['commit']}: {found['images']} images, maps of {found['crop'] // 8} x {found['crop'] // 8}\n"
    )
    print("| loss | tap | classes | median ms | peak MiB | parameters | buffers MiB |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for row in results:
        print(
            f"| {row['loss']} | {row['tap']} | {row['classes']} | {row['median_ms']:.1f} "
            f"| {row['peak_mib']:.1f} | {row['parameters']:,} | {row['buffers_mib']:.1f} |"
        )


def parse() -> argparse.Namespace:
    options = parser(__doc__, rounds=15, quick="crops of 128, 5 classes, 2 rounds, no file")
    options.add_argument("--only", nargs="+", choices=LOSSES, metavar="LOSS", help="default: all of them")
    options.add_argument("--classes", type=int, nargs="+", default=[19, 150])
    options.add_argument("--images", type=int, default=2)
    options.add_argument("--crop", type=int, default=512, help="side in pixels; maps have an eighth of it")
    options.add_argument(
        "--seconds", type=float, default=60, help="per loss; after that it sits out (>= 3 runs)"
    )
    arguments = options.parse_args()
    if arguments.quick:
        arguments.crop, arguments.classes, arguments.rounds = 128, [5], 2
    return arguments


if __name__ == "__main__":
    main()
