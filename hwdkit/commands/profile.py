"""hwdkit profile: what the networks of a recipe, or of a checkpoint, cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from hwdkit.data.datasets import DATASETS
from hwdkit.data.index import load_index
from hwdkit.engine.build import network
from hwdkit.engine.networks import load_network
from hwdkit.errors import RecipeError
from hwdkit.models.segmenter import Segmenter
from hwdkit.recipe.schema import Network, Recipe
from hwdkit.report.profile import profile

Counter = Literal["all", "torch", "thop", "paper"]


@dataclass(frozen=True)
class Options:
    """What the command line says; see `hwdkit profile --help`."""

    role: Literal["student", "teacher", "both"] = "both"
    classes: int | None = None
    sizes: tuple[tuple[int, int], ...] = ((512, 512),)
    counter: Counter = "all"
    latency: bool = False
    batch: int = 1
    warmup: int = 5
    iterations: int = 20
    cpu: bool = False
    data_root: Path = Path("data")


def run(recipe: Recipe | None, checkpoint: Path | None, options: Options) -> dict[str, Any]:
    """Profile networks at every asked-for size; pretrained weights are not loaded, they change no cost.

    Returns:
        {"counter", "profiles": [...]}: JSON-able, one entry a network and size.
    """
    device = torch.device("cuda" if torch.cuda.is_available() and not options.cpu else "cpu")
    rows = []
    for name, model in _networks(recipe, checkpoint, options).items():
        for size in options.sizes:
            measured = profile(
                model.to(device),
                size,
                batch=options.batch,
                warmup=options.warmup,
                repeats=options.iterations if options.latency else 0,
            )
            rows.append({"network": name, **measured.to_dict()})
    return {"counter": options.counter, "profiles": rows}


def render(result: dict[str, Any]) -> Group:
    """One row a network and size; multiply-adds per image, with the auxiliary head as the papers count."""
    counter: Counter = result["counter"]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("network")
    columns = ["input", "params M", "deployed M"]
    shown = ("torch", "thop", "paper") if counter == "all" else (counter,)
    columns += [f"GMACs {name}" for name in shown]
    if "torch" in shown:
        columns.append("GMACs deployed")
    timed = any(row["latency"] for row in result["profiles"])
    columns += ["median ms", "p95 ms", "peak MiB"] if timed else []
    for column in columns:
        table.add_column(column, justify="right")
    for row in result["profiles"]:
        table.add_row(Text(row["network"]), *_cells(row, shown))
    return Group(
        table,
        "GMACs = 1e9 multiply-adds of one image; FLOPs are twice that.",
        "deployed: without the auxiliary head. paper: the papers' counter, which ignores dilation.",
    )


def _cells(row: dict[str, Any], shown: tuple[str, ...]) -> list[str]:
    cells = [
        f"{row['height']}x{row['width']}",
        f"{row['params'] / 1e6:.2f}",
        f"{row['params_deployed'] / 1e6:.2f}",
    ]
    counts = {"torch": row["macs"]["true"], "thop": row["macs"]["thop"], "paper": row["macs"]["paper"]}
    cells += ["n/a" if counts[name] is None else f"{counts[name] / 1e9:.2f}" for name in shown]
    if "torch" in shown:
        cells.append(f"{row['macs_deployed']['true'] / 1e9:.2f}")
    if row["latency"]:
        memory = row["peak_memory_mib"]
        cells += [f"{row['latency']['median_ms']:.1f}", f"{row['latency']['p95_ms']:.1f}"]
        cells.append("n/a" if memory is None else f"{memory:.0f}")
    return cells


def _networks(recipe: Recipe | None, checkpoint: Path | None, options: Options) -> dict[str, Segmenter]:
    if checkpoint is not None:
        loaded = load_network(checkpoint)
        return {str(loaded.metadata.get("recipe") or loaded.path.stem): loaded.model}
    assert recipe is not None
    classes = options.classes or _classes(recipe.data.dataset, options.data_root)
    sections: dict[str, Network] = {}
    if recipe.student is not None and options.role != "teacher":
        sections["student"] = recipe.student
    teacher = _teacher_section(recipe)
    if teacher is not None and options.role != "student":
        sections["teacher"] = teacher
    if not sections:
        raise RecipeError(f"recipe {recipe.name} has no {options.role}", hint="choose another --role")
    return {
        f"{role} {section.head} {section.backbone}": network(
            section.model_copy(update={"pretrained": False}), classes
        )
        for role, section in sections.items()
    }


def _classes(dataset: str, data_root: Path) -> int:
    """A known dataset need not be there to be counted for; a user's own is described by its index alone."""
    known = DATASETS.get(dataset)
    return len(known.classes if known is not None else load_index(data_root / dataset).classes)


def _teacher_section(recipe: Recipe) -> Network | None:
    """The teacher's description: in this recipe, or in the one that trains it."""
    if recipe.teacher is None or recipe.teacher.backbone is not None:
        return recipe.teacher
    if recipe.teacher.recipe is None:
        return None
    from hwdkit.recipe.load import load

    return load(recipe.teacher.recipe).teacher
