"""hwdkit per-class-report: load the networks, compare them, write every format that was asked for."""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from rich.table import Table

from hwdkit.checkpoints.files import file_digest, replacing
from hwdkit.commands import console
from hwdkit.commands.memory import WHILE_EVALUATING, explained_memory
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.index import load_index
from hwdkit.data.stream import eval_pairs
from hwdkit.engine.networks import Loaded, load_network, require_classes
from hwdkit.errors import RecipeError
from hwdkit.report import render as rendering
from hwdkit.report.per_class import Entrant, Subject, per_class
from hwdkit.report.types import Order, PerClassReport, Role

log = logging.getLogger("hwdkit")


@dataclass(frozen=True)
class Options:
    """What the command line says; see `hwdkit per-class-report --help`."""

    student: Path
    teacher: Path
    baseline: Path | None = None
    compare: dict[str, Path] = field(default_factory=dict)
    split: str = "val"
    data_root: Path = Path("data")
    temperature: float = 4.0
    absent: Literal["present", "paper"] = "present"
    sort: Order = "share"
    formats: tuple[str, ...] = ("json", "csv", "md", "html")
    out: Path = Path("reports")
    examples: int = 6
    limit: int | None = None
    workers: int = 2
    cpu: bool = False
    student_name: str = "student"


def run(options: Options) -> tuple[PerClassReport, list[Path]]:
    """Compute the report and write its files.

    Returns:
        The report, and the paths written.

    Raises:
        CheckpointError, DataError: a network or the dataset is missing or does not fit.
        RecipeError: two networks have the same name.
    """
    device = torch.device("cuda" if torch.cuda.is_available() and not options.cpu else "cpu")
    networks = [(name, role, load_network(path)) for name, role, path in _wanted(options)]
    index = load_index(options.data_root / str(networks[-1][2].metadata["dataset"]))
    for _, _, loaded in networks:
        require_classes(loaded, index)
    entrants = tuple(_entrant(name, role, loaded, device) for name, role, loaded in networks)
    dataset = SegmentationDataset(index, options.split)
    total = min(len(dataset), options.limit or len(dataset))
    notes = []
    if total < len(dataset):
        notes.append(f"Only the first {total} of {len(dataset)} images were evaluated.")
    if index.partial:
        notes.append("The dataset is partial: these numbers are not comparable with published ones.")
    subject = Subject(
        index.name, options.split, index.fingerprint, index.classes, index.palette, dataset.name
    )
    pairs = itertools.islice(eval_pairs(dataset, workers=options.workers), total)
    with explained_memory(WHILE_EVALUATING), console.progress("per-class report", total) as advance:
        report = per_class(
            entrants,
            pairs,
            subject,
            temperature=options.temperature,
            absent=options.absent,
            examples=options.examples,
            notes=tuple(notes),
            advance=advance,
        )
    return report, write(report, options)


def write(report: PerClassReport, options: Options) -> list[Path]:
    """Write the asked-for files into `options.out`; each replaces an older one only when it is complete."""
    contents: dict[str, bytes] = {}
    if "json" in options.formats:
        contents["per-class.json"] = rendering.per_class_json(report).encode()
    if "csv" in options.formats:
        contents["per-class.csv"] = rendering.per_class_csv(report).encode()
    if "md" in options.formats:
        contents["per-class.md"] = rendering.per_class_markdown(report, options.sort).encode()
    if "html" in options.formats:
        from hwdkit.report import html
        from hwdkit.report.plots.per_class import iou_bars, td_ntd

        contents["per-class.html"] = html.per_class_page(report).encode()
        contents["per-class-iou.png"] = iou_bars(report)
        contents["td-ntd.png"] = td_ntd(report)
    written = []
    for name, content in contents.items():
        with replacing(options.out / name) as temporary:
            temporary.write_bytes(content)
        written.append(options.out / name)
    if written:
        log.info("report: %s", ", ".join(str(path) for path in written))
    return written


def render(report: PerClassReport, sort: Order) -> Table:
    """The report as a table as wide as the terminal; in a pipe, complete."""
    width = console.stdout.width if console.stdout.is_terminal else None
    return rendering.per_class_table(report, sort, width=width)


def _wanted(options: Options) -> list[tuple[str, Role, Path]]:
    """Name, role and checkpoint of every network, the student last."""
    named: list[tuple[str, Role, Path]] = [("teacher", "teacher", options.teacher)]
    if options.baseline is not None:
        named.append(("baseline", "baseline", options.baseline))
    named += [(name, "compare", path) for name, path in options.compare.items()]
    named.append((options.student_name, "student", options.student))
    names = [name for name, _, _ in named]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError(f"two networks are called {', '.join(twice)}", hint="choose another --compare name")
    return named


def _entrant(name: str, role: Role, loaded: Loaded, device: torch.device) -> Entrant:
    return Entrant(name, role, loaded.model.to(device).eval(), str(loaded.path), file_digest(loaded.path))
