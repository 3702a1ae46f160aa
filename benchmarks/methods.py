"""What a training step costs with each recipe, and how many steps each may take in the same time.

Interleaves the recipes in one process and compares medians, so that a busy machine slows all alike. A step is
teacher, student, losses, backward, optimizer and critic: everything but reading images. The first recipe is
the measure of the others, and its own iterations set the time.

    python benchmarks/methods.py scenes-r10-cwd scenes-r10-baseline scenes-r10-plain --rounds 20
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from step import circumstances, keep, random_batch, step

from hwdkit.data.datasets import layout_of
from hwdkit.distributed import Ranks
from hwdkit.engine import build
from hwdkit.engine.objectives import frozen_teacher
from hwdkit.recipe import load


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    ranks = Ranks(0, 1, torch.device(arguments.device))
    steps = {name: one_step(name, arguments.set, ranks) for name in arguments.recipes}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(arguments.rounds + 3):
        for name, work in steps.items():
            began = time.perf_counter()
            work()
            if turn >= 3:  # warm-up
                times[name].append(1000 * (time.perf_counter() - began))
    report(times, arguments)


def one_step(name: str, overrides: list[str], ranks: Ranks) -> Callable[[], None]:
    """A training step of a recipe on random images, with an untrained teacher: that changes no time."""
    recipe = load(name, overrides=overrides)
    assert recipe.student is not None
    classes = len(layout_of(recipe.data.dataset).classes)
    batch = random_batch(recipe.train.batch_size, recipe.data.crop, classes, ranks.device)
    student = build.network(recipe.student.model_copy(update={"pretrained": False}), classes)
    if not build.needs_teacher(recipe):
        return step(build.training(recipe, student, ranks), batch, None, recipe.train.amp)
    assert recipe.teacher is not None
    assert recipe.teacher.recipe is not None
    described = load(recipe.teacher.recipe).teacher
    assert described is not None
    teacher = build.network(described.model_copy(update={"pretrained": False}), classes).to(ranks.device)
    run = build.training(recipe, student, ranks, teacher)
    goal = run.objective
    teach = frozen_teacher(
        teacher, taps=goal.teacher_taps, amp=build.amp_type(recipe.train.amp), aux=goal.reads_teacher_aux
    )
    return step(run, batch, teach, recipe.train.amp)


def report(times: dict[str, list[float]], arguments: argparse.Namespace) -> None:
    first = times[arguments.recipes[0]]
    iterations = load(arguments.recipes[0], overrides=arguments.set).train.iterations
    rows = {}
    for name, values in times.items():
        ratios = [ours / theirs for ours, theirs in zip(values, first, strict=True)]
        ratio = statistics.median(ratios)
        rows[name] = {
            "median_ms": round(statistics.median(values), 2),
            "ratio": round(ratio, 3),
            "ratio_quartiles": [round(q, 3) for q in statistics.quantiles(ratios, n=4)[::2]],
            "iterations_in_the_same_time": round(iterations / ratio),
        }
        print(f"{name:32} {rows[name]['median_ms']:>9} ms  {ratio:.3f}  {rows[name]['ratio_quartiles']}")
    keep({**circumstances(arguments), "recipes": rows}, arguments.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="+", help="the first is the measure of the others")
    parser.add_argument("--set", action="append", default=[], help="override a recipe key, for all of them")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
