"""What the networks of a recipe, of a checkpoint, or of a command line cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Group
from rich.text import Text

from hwdkit.commands.profile import Profile, budgets, train_step
from hwdkit.engine import describe
from hwdkit.engine.networks import load_network
from hwdkit.errors import RecipeError
from hwdkit.measure.profile import profile
from hwdkit.models.segmenter import Segmenter
from hwdkit.recipe.schema import Recipe
from hwdkit.report.render import printable
from hwdkit.report.table import Table
from hwdkit.terminal.memory import explained_memory

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
MEMORY_HINT = "give a smaller --batch or --input, or measure on the CPU (--gpus 0)"


class Candidate(NamedTuple):
    """A network in the table: what it is called, whose part it plays, and whether budgets bind it."""

    title: str
    role: Literal["student", "teacher", "network"]
    bound: bool
    model: Segmenter


def run(options: Profile, recipes: Sequence[Recipe], *, cpu: bool) -> dict[str, Any]:
    """Profile networks at every asked-for size; pretrained weights are not loaded, they change no cost.

    Returns:
        {"counter", "dtype", "threads", "profiles": [...], "budgets": [...], "train_step"}: JSON-able, one
        profile a network and size, one budget a bound and profile; `train_step` None unless asked for.
    """
    device = torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")
    dtype = options.dtype or "fp32"
    warmup = options.warmup if options.warmup is not None else (2 if options.train_step else 5)
    repeats = options.iterations or (10 if options.train_step else 20)
    rows, bound, step = [], [], None
    with _threads(options.threads), explained_memory(MEMORY_HINT):
        for candidate in _candidates(options, recipes):
            for size in options.shapes() or [recipes[0].data.crop if options.train_step else (512, 512)]:
                measured = profile(
                    candidate.model.to(device),
                    size,
                    batch=options.batch or 1,
                    warmup=warmup,
                    repeats=repeats if options.timed else 0,
                    dtype=DTYPES[dtype],
                    thop=options.counter in ("all", "thop"),
                )
                rows.append({"network": candidate.title, "role": candidate.role, **measured.to_dict()})
                bound += rows[-1:] if candidate.bound else []
            candidate.model.to("cpu")
        if options.train_step:
            (recipe,) = recipes
            step = train_step.run(
                recipe.teacher_alone() if options.role == "teacher" else recipe,
                options.classes or describe.classes_of(recipe, options.data_root),
                device=device,
                warmup=warmup,
                repeats=repeats,
            )
        threads = torch.get_num_threads()
    return {
        "counter": options.counter,
        "dtype": dtype,
        "threads": threads,
        "profiles": rows,
        "budgets": budgets.verdicts(options.limits(), bound),
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


def _candidates(options: Profile, recipes: Sequence[Recipe]) -> list[Candidate]:
    """Everything that is profiled, built before the first is measured: a mistake costs no waiting."""
    checkpoints = options.checkpoint or []
    alone = len(recipes) + len(checkpoints) == 1
    candidates = [each for recipe in recipes for each in _of_recipe(recipe, options, alone=alone)]
    for path in checkpoints:
        loaded = load_network(path)
        name = str(loaded.metadata.get("recipe") or loaded.path.stem) if alone else str(path)
        candidates.append(Candidate(printable(name), "network", True, loaded.model))
    for section in options.networks():
        assert options.classes is not None
        title = f"{section.head} {section.backbone}"
        candidates.append(Candidate(title, "network", True, describe.bare(section, options.classes)))
    return candidates


def _of_recipe(recipe: Recipe, options: Profile, *, alone: bool) -> Iterator[Candidate]:
    """A recipe's networks; of several recipes the student's alone, which will be deployed.

    Budgets bind the student, if nobody names a role and there is one.
    """
    deployed: Literal["student", "teacher"] = "teacher" if recipe.student is None else "student"
    bound = options.role or deployed
    shown = options.role or ("both" if alone else deployed)
    classes = options.classes or describe.classes_of(recipe, options.data_root)
    models: dict[Literal["student", "teacher"], Segmenter] = {}
    if recipe.student is not None and shown != "teacher":
        models["student"] = describe.bare(recipe.student, classes)
    if recipe.teacher is not None and shown != "student":
        models["teacher"] = describe.teacher(recipe, classes)
    if not models:
        raise RecipeError(f"recipe {recipe.name} has no {options.role}", hint="choose another --role")
    for role, model in models.items():
        title = f"{role} {model.spec.head} {model.spec.backbone}"
        yield Candidate(title if alone else f"{recipe.name} {title}", role, bound in ("both", role), model)


def render(result: dict[str, Any]) -> Group:
    """One row a network and size; multiply-adds per image, with the auxiliary head as the papers count."""
    counter: str = result["counter"]
    counters = ("torch", "thop", "paper") if counter == "all" else (counter,)
    timed = any(row["latency"] for row in result["profiles"])
    columns = ["network", "input", "params M", "deployed M", *(f"GMACs {name}" for name in counters)]
    columns += ["GMACs deployed"] if "torch" in counters else []
    columns += ["median ms", "p95 ms", "images/s", "peak MiB"] if timed else []
    notes = [
        "GMACs = 1e9 multiply-adds of one image; FLOPs are twice that.",
        "deployed: without the auxiliary head. paper: the papers' counter, which ignores dilation.",
    ]
    if timed:
        first, threads = result["profiles"][0], result["threads"]
        on_cpu = f"{threads} thread{'s' * (threads > 1)}"
        where = on_cpu if first["device"] == "cpu" else torch.cuda.get_device_name()
        notes.append(
            f"Time of the deployed network, {result['dtype']}, batch {first['batch']}, {first['device']} "
            f"({where})."
        )
    blocks: list[Any] = [Table(columns, (_cells(row, counters) for row in result["profiles"])), *notes]
    for verdict in result["budgets"]:
        word, style = ("met", "") if verdict["met"] else ("missed", "bold red")
        blocks.append(Text(f"budget {word}: {budgets.sentence(verdict)}", style=style))
    if result["train_step"] is not None:
        blocks += ["", train_step.render(result["train_step"])]
    return Group(*blocks)


def _cells(row: dict[str, Any], counters: tuple[str, ...]) -> list[str]:
    cells = [row["network"], f"{row['height']}x{row['width']}"]
    cells += [f"{row[key] / 1e6:.2f}" for key in ("params", "params_deployed")]
    cells += [_giga(row["macs"]["true" if name == "torch" else name]) for name in counters]
    if "torch" in counters:
        cells.append(_giga(row["macs_deployed"]["true"]))
    if latency := row["latency"]:
        cells += [f"{latency['median_ms']:.1f}", f"{latency['p95_ms']:.1f}", f"{latency['images_per_s']:.2f}"]
        cells.append("n/a" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:.0f}")
    return cells


def _giga(count: int | None) -> str:
    return "n/a" if count is None else f"{count / 1e9:.2f}"
