"""One training step of a recipe on random data, whole and in parts."""

from __future__ import annotations

from typing import Any

import torch
from rich.console import Group
from rich.text import Text

from hwdkit.commands.train.run import COMMANDS
from hwdkit.distributed import Ranks
from hwdkit.engine import build, describe
from hwdkit.measure.train_step import measure_train_step
from hwdkit.recipe.schema import Recipe
from hwdkit.report.table import Table
from hwdkit.types import Batch

BLOCKS = 16
"""Random labels are this many blocks a side: in pixel noise every class is everywhere, as in no image."""


def run(recipe: Recipe, classes: int, *, device: torch.device, warmup: int, repeats: int) -> dict[str, Any]:
    """Measure a step as the command that trains the recipe would take it; JSON-able.

    Raises:
        RecipeError: its losses do not fit its networks.
        EnvironmentFailure: the device cannot do what the recipe's `train` asks for.
    """
    build.require_possible(recipe.train, device)
    ranks = Ranks(0, 1, device)
    student = describe.bare(recipe.network, classes)
    student.check_batch(recipe.train.batch_size // recipe.train.accumulate)
    teacher = describe.teacher(recipe, classes) if build.needs_teacher(recipe) else None
    training = build.training(recipe, student, ranks, teacher)
    teach = None
    if teacher is not None:
        teach = build.teach(recipe.train, teacher, training.objective, ranks)
    step = measure_train_step(
        training,
        random_batches(recipe, classes, device),
        plan=build.plan(recipe),
        teach=teach,
        teacher=teacher,
        warmup=warmup,
        repeats=repeats,
    )
    height, width = recipe.data.crop
    return {
        "recipe": recipe.name,
        "role": recipe.trains,
        "height": height,
        "width": width,
        "amp": recipe.train.amp,
        "device": str(device),
        **step.to_dict(),
    }


def random_batches(recipe: Recipe, classes: int, device: torch.device) -> list[Batch]:
    """The micro-batches of one step: random pixels, and labels in blocks of random classes."""
    generator = torch.Generator().manual_seed(0)
    height, width = recipe.data.crop
    images = recipe.train.batch_size // recipe.train.accumulate
    block = max(min(height, width) // BLOCKS, 1)
    batches = []
    for _ in range(recipe.train.accumulate):
        image = torch.randint(0, 256, (images, 3, height, width), dtype=torch.uint8, generator=generator)
        grid = (images, -(-height // block), -(-width // block))
        label = torch.randint(0, classes, grid, generator=generator)
        label = label.repeat_interleave(block, 1).repeat_interleave(block, 2)[:, :height, :width]
        batches.append(Batch(image.to(device), label.to(torch.uint8).to(device)))
    return batches


def render(result: dict[str, Any]) -> Group:
    """The step in one line, then a row a part in the order of a step."""
    table = Table(
        ["part of the step", "median ms", "p95 ms", "share %", "peak MiB above its start"],
        (
            (
                _title(part, result["role"]),
                f"{part['median_ms']:.1f}",
                f"{part['p95_ms']:.1f}",
                f"{100 * part['share']:.1f}",
                f"{part['peak_mib']:.1f}",
            )
            for part in result["parts"]
        ),
        last=("whole step", f"{result['median_ms']:.1f}", f"{result['p95_ms']:.1f}", "100.0", ""),
    )
    micro = result["micro_batches"]
    batch = f"{result['batch']} images" + (f" in {micro} micro-batches" if micro > 1 else "")
    command = COMMANDS[result["role"]]
    return Group(
        Text(
            f"one step of {command} {result['recipe']}: {batch} of {result['height']}x{result['width']}, "
            f"amp {result['amp']}, {result['device']}: {result['images_per_s']:.2f} images/s"
        ),
        table,
        f"peak memory {result['peak_mib']:.0f} MiB, of which {result['held_mib']:.0f} MiB live between steps",
        "A loss's row is its forward and backward down to the student's maps. Loading data is not included.",
    )


def _title(part: dict[str, Any], role: str) -> str:
    kind = role if part["kind"] == "student" else part["kind"]  # a teacher that is trained is its own student
    return f"{kind} {part['name']}" + (", its own step" if kind == "critic" else "")
