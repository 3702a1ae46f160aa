"""What a distillation step costs beside its parts: teacher forward + student forward and backward.

Interleaves the variants in one process and compares medians, so that a busy machine slows all alike.

    python benchmarks/step.py --recipe scenes-r10-hwd --rounds 20
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hwdkit.data.datasets import layout_of
from hwdkit.distributed import Ranks
from hwdkit.engine import build
from hwdkit.engine.loop import Training
from hwdkit.engine.objectives import Teach, frozen_teacher
from hwdkit.recipe import load
from hwdkit.types import Batch


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    ranks = Ranks(0, 1, torch.device(arguments.device))
    recipe = load(arguments.recipe, overrides=arguments.set)
    assert recipe.student is not None
    classes = len(layout_of(recipe.data.dataset).classes)
    batch = random_batch(recipe.train.batch_size, recipe.data.crop, classes, ranks.device)

    teacher_recipe = load(recipe.teacher.recipe) if recipe.teacher and recipe.teacher.recipe else None
    assert teacher_recipe is not None
    assert teacher_recipe.teacher is not None
    teacher = build.network(teacher_recipe.teacher.model_copy(update={"pretrained": False}), classes)
    teach = frozen_teacher(teacher.to(ranks.device), taps=(), amp=build.amp_type(recipe.train.amp))

    variants: dict[str, Callable[[], None]] = {"teacher forward": lambda: consume(teach(batch.image).logits)}
    bare = recipe.student.model_copy(update={"pretrained": False})
    for name, weights in {
        "student step, ce": {"hwd": 0.0},
        "distillation step, hwd": {},
    }.items():
        losses = {
            k: v.model_copy(update={"weight": weights.get(k, v.weight)}) for k, v in recipe.losses.items()
        }
        variant = recipe.model_copy(update={"losses": losses})
        run = build.training(variant, build.network(bare, classes), ranks)
        variants[name] = step(
            run, batch, teach if name.startswith("distillation") else None, recipe.train.amp
        )

    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(arguments.rounds + 3):
        for name, work in variants.items():
            began = time.perf_counter()
            work()
            if turn >= 3:  # warm-up
                times[name].append(1000 * (time.perf_counter() - began))
    report(times, arguments)


def step(run: Training, batch: Batch, teach: Teach | None, amp: str) -> Callable[[], None]:
    """One optimizer step as `engine.loop.fit` takes it."""
    kind = build.amp_type(amp)

    def work() -> None:
        run.objective.train()
        hints = teach(batch.image) if teach else None
        with torch.autocast(batch.image.device.type, dtype=kind, enabled=kind is not None):
            terms = run.objective(batch, hints)
        torch.stack(list(terms.values())).sum().backward()
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        run.objective.update_critics(0.0)
        synchronise(batch.image.device)

    return work


def consume(tensor: torch.Tensor) -> None:
    synchronise(tensor.device)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def random_batch(images: int, crop: tuple[int, int], classes: int, device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (images, 3, *crop), dtype=torch.uint8, generator=generator)
    label = torch.randint(0, classes, (images, *crop), generator=generator)
    return Batch(image.to(device), label.to(device))


def report(times: dict[str, list[float]], arguments: argparse.Namespace) -> None:
    median = {name: statistics.median(values) for name, values in times.items()}
    parts = [a + b for a, b in zip(times["teacher forward"], times["student step, ce"], strict=True)]
    ratios = [whole / sum_ for whole, sum_ in zip(times["distillation step, hwd"], parts, strict=True)]
    result = {
        "recipe": arguments.recipe,
        **circumstances(arguments),
        "median_ms": {name: round(value, 2) for name, value in median.items()},
        "step_over_parts": {
            "median": round(statistics.median(ratios), 3),
            "quartiles": [round(q, 3) for q in statistics.quantiles(ratios, n=4)[::2]],
        },
    }
    print(json.dumps(result, indent=2))
    keep(result, arguments.out)


def circumstances(arguments: argparse.Namespace) -> dict[str, Any]:
    """How a measurement was made: its options, the machine, torch and the commit."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "set": arguments.set,
        "threads": arguments.threads,
        "device": arguments.device,
        "machine": machine(arguments.device),
        "torch": torch.__version__,
        "commit": commit.stdout.strip(),
        "rounds": arguments.rounds,
    }


def keep(result: dict[str, Any], out: Path | None) -> None:
    """Write a result where --out says."""
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")


def machine(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    return ", ".join(sorted(names)) or platform.processor()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="scenes-r10-hwd")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
