"""What a distillation step costs beside its parts: teacher forward + student forward and backward.

Interleaves the variants in one process and compares medians, so that a busy machine slows all alike.

    python benchmarks/step.py --recipe scenes-r10-hwd --rounds 20
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable

import torch
from measurement import begin, circumstances, interleaved, keep, parser, random_batch, ratios, synchronise

from hwdkit.datasets.table import layout_of
from hwdkit.distributed import Ranks
from hwdkit.engine import build
from hwdkit.engine.loop import Training
from hwdkit.engine.objectives import Teach, frozen_teacher
from hwdkit.recipe import load
from hwdkit.types import Batch


def main() -> None:
    arguments = parse()
    ranks = Ranks(0, 1, begin(arguments))
    recipe = load(arguments.recipe, overrides=arguments.set)
    assert recipe.student is not None
    classes = len(layout_of(recipe.data.dataset).classes)
    crop = (64, 64) if arguments.quick else recipe.data.crop
    batch = random_batch(recipe.train.batch_size, crop, classes, ranks.device)

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

    times = interleaved(variants, rounds=arguments.rounds, device=ranks.device, warmup=3)
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


def report(times: dict[str, list[float]], arguments: argparse.Namespace) -> None:
    median = {name: statistics.median(values) for name, values in times.items()}
    parts = [a + b for a, b in zip(times["teacher forward"], times["student step, ce"], strict=True)]
    found = ratios({**times, "parts": parts}, "distillation step, hwd", "parts")
    result = {
        **circumstances(arguments),
        "median_ms": {name: round(value, 2) for name, value in median.items()},
        "step_over_parts": {
            "median": round(statistics.median(found), 3),
            "quartiles": [round(q, 3) for q in statistics.quantiles(found, n=4)[::2]],
        },
    }
    print(json.dumps(result, indent=2))
    keep(result, arguments.out)


def parse() -> argparse.Namespace:
    options = parser(__doc__, rounds=20, quick="crops of 64, 2 rounds")
    options.add_argument("--recipe", default="scenes-r10-hwd")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.rounds = 2
    return arguments


if __name__ == "__main__":
    main()
