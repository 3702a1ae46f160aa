"""hwdkit profile: what the networks of a recipe, of a checkpoint, or of a command line cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Group
from rich.text import Text

from hwdkit.commands.profile import budgets, described, train_step
from hwdkit.commands.profile.budgets import Budgets
from hwdkit.engine.networks import load_network
from hwdkit.errors import RecipeError
from hwdkit.measure.profile import profile
from hwdkit.models.segmenter import Segmenter
from hwdkit.recipe.schema import Network, Recipe
from hwdkit.report.render import printable
from hwdkit.report.table import Table
from hwdkit.terminal.memory import explained_memory

Counter = Literal["all", "torch", "thop", "paper"]
Role = Literal["student", "teacher", "both"]
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
MEMORY_HINT = "give a smaller --batch or --input, or measure on the CPU (--gpus 0)"


@dataclass(frozen=True)
class Options:
    """What the command line says; see `hwdkit profile --help`. `role` None: both, but budgets bind one."""

    role: Role | None = None
    classes: int | None = None
    sizes: tuple[tuple[int, int], ...] = ((512, 512),)
    counter: Counter = "all"
    latency: bool = False
    train_step: bool = False
    batch: int = 1
    warmup: int = 5
    iterations: int = 20
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    threads: int | None = None
    budgets: Budgets = field(default_factory=Budgets)
    cpu: bool = False
    data_root: Path = Path("data")


@dataclass(frozen=True)
class Subjects:
    """Where the networks come from; at least one.

    Attributes:
        recipes: their students and teachers.
        checkpoints: files or run directories.
        networks: described on the command line; `Options.classes` is set.
    """

    recipes: tuple[Recipe, ...] = ()
    checkpoints: tuple[Path, ...] = ()
    networks: tuple[Network, ...] = ()


class Candidate(NamedTuple):
    """A network in the table: what it is called, whose part it plays, and whether budgets bind it."""

    title: str
    role: Literal["student", "teacher", "network"]
    bound: bool
    model: Segmenter


def run(subjects: Subjects, options: Options) -> dict[str, Any]:
    """Profile networks at every asked-for size; pretrained weights are not loaded, they change no cost.

    Returns:
        {"counter", "dtype", "threads", "profiles": [...], "budgets": [...], "train_step"}: JSON-able, one
        profile a network and size, one budget a bound and profile; `train_step` None unless asked for.
    """
    device = torch.device("cuda" if torch.cuda.is_available() and not options.cpu else "cpu")
    rows, bound, step = [], [], None
    with _threads(options.threads), explained_memory(MEMORY_HINT):
        for candidate in _candidates(subjects, options):
            for size in options.sizes:
                measured = profile(
                    candidate.model.to(device),
                    size,
                    batch=options.batch,
                    warmup=options.warmup,
                    repeats=options.iterations if options.latency else 0,
                    dtype=DTYPES[options.dtype],
                    thop=options.counter in ("all", "thop"),
                )
                rows.append({"network": candidate.title, "role": candidate.role, **measured.to_dict()})
                bound += rows[-1:] if candidate.bound else []
            candidate.model.to("cpu")
        if options.train_step:
            (recipe,) = subjects.recipes
            step = train_step.run(
                recipe,
                "teacher" if options.role == "teacher" or recipe.student is None else "student",
                options.classes or described.classes_of(recipe, options.data_root),
                device=device,
                warmup=options.warmup,
                repeats=options.iterations,
            )
        threads = torch.get_num_threads()
    return {
        "counter": options.counter,
        "dtype": options.dtype,
        "threads": threads,
        "profiles": rows,
        "budgets": budgets.verdicts(options.budgets, bound),
        "train_step": step,
    }


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch compute with so many threads, then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _candidates(subjects: Subjects, options: Options) -> list[Candidate]:
    """Everything that is profiled, built before the first is measured: a mistake costs no waiting."""
    alone = len(subjects.recipes) + len(subjects.checkpoints) == 1
    found = [each for recipe in subjects.recipes for each in _of_recipe(recipe, options, alone=alone)]
    for path in subjects.checkpoints:
        loaded = load_network(path)
        name = str(loaded.metadata.get("recipe") or loaded.path.stem) if alone else str(path)
        found.append(Candidate(printable(name), "network", True, loaded.model))
    for section in subjects.networks:
        assert options.classes is not None
        title = f"{section.head} {section.backbone}"
        found.append(Candidate(title, "network", True, described.bare(section, options.classes)))
    return found


def _of_recipe(recipe: Recipe, options: Options, *, alone: bool) -> Iterator[Candidate]:
    """A recipe's networks; of several recipes the student's alone, which will be deployed.

    Budgets bind the student, if nobody names a role and there is one.
    """
    deployed: Role = "teacher" if recipe.student is None else "student"
    bound = options.role or deployed
    shown = options.role or ("both" if alone else deployed)
    classes = options.classes or described.classes_of(recipe, options.data_root)
    models: dict[Literal["student", "teacher"], Segmenter] = {}
    if recipe.student is not None and shown != "teacher":
        models["student"] = described.bare(recipe.student, classes)
    if recipe.teacher is not None and shown != "student":
        models["teacher"] = described.teacher(recipe, classes)
    if not models:
        raise RecipeError(f"recipe {recipe.name} has no {options.role}", hint="choose another --role")
    for role, model in models.items():
        title = f"{role} {model.spec.head} {model.spec.backbone}"
        yield Candidate(title if alone else f"{recipe.name} {title}", role, bound in ("both", role), model)


def render(result: dict[str, Any]) -> Group:
    """One row a network and size; multiply-adds per image, with the auxiliary head as the papers count."""
    counter: Counter = result["counter"]
    columns = ["network", "input", "params M", "deployed M"]
    shown = ("torch", "thop", "paper") if counter == "all" else (counter,)
    columns += [f"GMACs {name}" for name in shown]
    if "torch" in shown:
        columns.append("GMACs deployed")
    timed = any(row["latency"] for row in result["profiles"])
    columns += ["median ms", "p95 ms", "images/s", "peak MiB"] if timed else []
    table = Table(columns, ((row["network"], *_cells(row, shown)) for row in result["profiles"]))
    notes = [
        "GMACs = 1e9 multiply-adds of one image; FLOPs are twice that.",
        "deployed: without the auxiliary head. paper: the papers' counter, which ignores dilation.",
    ]
    if timed:
        first = result["profiles"][0]
        where = (
            f"{result['threads']} thread{'s' * (result['threads'] > 1)}"
            if first["device"] == "cpu"
            else torch.cuda.get_device_name()
        )
        notes.append(
            f"Time of the deployed network, {result['dtype']}, batch {first['batch']}, {first['device']} "
            f"({where})."
        )
    blocks: list[Any] = [table, *notes]
    for verdict in result["budgets"]:
        style = "" if verdict["met"] else "bold red"
        word = "budget met" if verdict["met"] else "budget missed"
        blocks.append(Text(f"{word}: {budgets.sentence(verdict)}", style=style))
    if result["train_step"] is not None:
        blocks += ["", train_step.render(result["train_step"])]
    return Group(*blocks)


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
        latency, memory = row["latency"], row["peak_memory_mib"]
        cells += [f"{latency['median_ms']:.1f}", f"{latency['p95_ms']:.1f}", f"{latency['images_per_s']:.2f}"]
        cells.append("n/a" if memory is None else f"{memory:.0f}")
    return cells
