"""What a training step costs with each recipe, and how many steps each may take in the same time.

Interleaves the recipes in one process and compares medians, so that a busy machine slows all alike. A step is
teacher, student, losses, backward, optimizer and critic: everything but reading images. The first recipe is
the measure of the others, and its own iterations set the time.

    python benchmarks/methods.py scenes-r10-cwd scenes-r10-baseline scenes-r10-plain --rounds 20
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable

from measurement import begin, circumstances, interleaved, keep, parser, random_batch
from measurement import ratios as ratios_of
from step import step

from hwdkit.datasets.table import layout_of
from hwdkit.distributed import Ranks
from hwdkit.engine import build
from hwdkit.engine.objectives import frozen_teacher
from hwdkit.recipe import load


def main() -> None:
    arguments = parse()
    ranks = Ranks(0, 1, begin(arguments))
    steps = {name: one_step(name, arguments.set, ranks) for name in arguments.recipes}
    times = interleaved(steps, rounds=arguments.rounds, device=ranks.device, warmup=3)
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
    first = arguments.recipes[0]
    iterations = load(arguments.recipes[0], overrides=arguments.set).train.iterations
    rows = {}
    for name, values in times.items():
        ratios = ratios_of(times, name, first)
        ratio = statistics.median(ratios)
        rows[name] = {
            "median_ms": round(statistics.median(values), 2),
            "ratio": round(ratio, 3),
            "ratio_quartiles": [round(q, 3) for q in statistics.quantiles(ratios, n=4)[::2]],
            "iterations_in_the_same_time": round(iterations / ratio),
        }
        if arguments.json:
            continue
        print(f"{name:32} {rows[name]['median_ms']:>9} ms  {ratio:.3f}  {rows[name]['ratio_quartiles']}")
    result = {**circumstances(arguments), "recipes": rows}
    if arguments.json:
        print(json.dumps(result, indent=2))
    keep(result, arguments.out)


def parse() -> argparse.Namespace:
    options = parser(
        __doc__, rounds=20, quick="CWD and a baseline on scenes, crops of 64, 2 images, 2 rounds"
    )
    options.add_argument("recipes", nargs="*", help="the first is the measure of the others")
    options.add_argument("--set", action="append", default=[], help="override a recipe key, for all of them")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.recipes = arguments.recipes or ["scenes-r10-cwd", "scenes-r10-baseline"]
        arguments.set += ["data.crop=[64,64]", "train.batch_size=2"]
        arguments.rounds = 2
    if not arguments.recipes:
        options.error("name the recipes to compare, or pass --quick")
    return arguments


if __name__ == "__main__":
    main()
