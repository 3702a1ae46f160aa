"""hwdkit per-class-report: load the networks, compare them, write every format that was asked for.

Or read a finished report back and write it in other formats: that needs neither networks nor images.
"""

from __future__ import annotations

import difflib
import itertools
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Group

from hwdkit.checkpoints.files import file_digest, replacing
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.index import load_index
from hwdkit.data.stream import eval_pairs
from hwdkit.engine.networks import Loaded, load_network, require_classes
from hwdkit.engine.opened import Network
from hwdkit.errors import RecipeError, UsageError
from hwdkit.measure.divergence import Measure
from hwdkit.measure.per_class import Subject, per_class
from hwdkit.measure.types import DivergenceKind, DivergenceOn, Order, PerClassReport
from hwdkit.report.latex import per_class_latex
from hwdkit.report.render import per_class_csv, per_class_json
from hwdkit.report.saved import load_report
from hwdkit.report.tables import per_class_markdown, per_class_table
from hwdkit.terminal import console
from hwdkit.terminal.memory import WHILE_EVALUATING, explained_memory
from hwdkit.types import Role

log = logging.getLogger("hwdkit")


@dataclass(frozen=True)
class Options:
    """What the command line says; see `hwdkit per-class-report --help`.

    With `saved`, a report is read instead of measured, and what concerns measuring has no meaning. `classes`
    are as typed: a class name each, or several with commas between them.
    """

    student: Path | None = None
    teacher: Path | None = None
    baseline: Path | None = None
    compare: dict[str, Path] = field(default_factory=dict)
    saved: Path | None = None
    split: str = "val"
    data_root: Path = Path("data")
    divergence: DivergenceKind = "mse"
    divergence_on: DivergenceOn = "activation"
    temperature: float = 4.0
    absent: Literal["present", "paper"] = "present"
    sort: Order = "share"
    classes: tuple[str, ...] = ()
    formats: tuple[str, ...] = ("json", "csv", "md", "html")
    out: Path = Path("reports")
    examples: int = 6
    limit: int | None = None
    workers: int = 2
    cpu: bool = False
    student_name: str = "student"


def run(options: Options) -> tuple[PerClassReport, list[Path]]:
    """Compute the report, or read it, and write its files.

    Returns:
        The report, and the paths written.

    Raises:
        CheckpointError, DataError: a network, the dataset or the saved report is missing or does not fit.
        RecipeError: two networks have the same name.
        UsageError: a class that there is not. Nothing has been computed.
    """
    if options.saved is None:
        report = measure(options)
    else:
        report = load_report(options.saved)
        if "html" in options.formats:
            log.warning("a saved report holds no images: the page will have no examples")
    return report, write(report, options)


def measure(options: Options) -> PerClassReport:
    """Compute the report."""
    device = torch.device("cuda" if torch.cuda.is_available() and not options.cpu else "cpu")
    networks = [(name, role, load_network(path)) for name, role, path in _wanted(options)]
    index = load_index(options.data_root / str(networks[-1][2].metadata["dataset"]))
    for _, _, loaded in networks:
        require_classes(loaded, index)
    chosen(options.classes, index.classes)
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
        return per_class(
            entrants,
            pairs,
            subject,
            measure=Measure(options.divergence, options.divergence_on, options.temperature),
            absent=options.absent,
            examples=options.examples,
            notes=tuple(notes),
            advance=advance,
        )


def write(report: PerClassReport, options: Options) -> list[Path]:
    """Write the asked-for files into `options.out`; each replaces an older one only when it is complete.

    The JSON and the page hold every class; `options.classes` is about all others.
    """
    only = chosen(options.classes, tuple(row.name for row in report.rows))
    contents: dict[str, bytes] = {}
    if "json" in options.formats:
        contents["per-class.json"] = per_class_json(report).encode()
    if "csv" in options.formats:
        contents["per-class.csv"] = per_class_csv(report, only).encode()
    if "md" in options.formats:
        contents["per-class.md"] = per_class_markdown(report, options.sort, only=only).encode()
    if "latex" in options.formats:
        contents["per-class.tex"] = per_class_latex(report, options.sort, only=only).encode()
    if "html" in options.formats:
        from hwdkit.report import html
        from hwdkit.report.plots.per_class import iou_bars, td_ntd

        contents["per-class.html"] = html.per_class_page(report).encode()
        drawn = replace(report, rows=tuple(report.ordered(only=only)))
        contents["per-class-iou.png"] = iou_bars(drawn)
        contents["td-ntd.png"] = td_ntd(drawn)
    written = []
    for name, content in contents.items():
        with replacing(options.out / name) as temporary:
            temporary.write_bytes(content)
        written.append(options.out / name)
    if written:
        log.info("report: %s", ", ".join(str(path) for path in written))
    return written


def render(report: PerClassReport, options: Options) -> Group:
    """The report as tables as wide as the terminal; in a pipe, complete."""
    width = console.stdout.width if console.stdout.is_terminal else None
    only = chosen(options.classes, tuple(row.name for row in report.rows))
    return per_class_table(report, options.sort, only=only, width=width)


def chosen(texts: tuple[str, ...], classes: tuple[str, ...]) -> tuple[str, ...]:
    """The classes that --classes names, upper and lower case alike; none means all.

    Raises:
        UsageError: there is no such class.
    """
    known = {name.casefold(): name for name in classes}
    # A class's own name may hold commas.
    words = [word for text in texts for word in ([text] if text.casefold() in known else text.split(","))]
    names = []
    for word in (word.strip() for word in words):
        if word.casefold() not in known:
            near = difflib.get_close_matches(word.casefold(), known, n=1)
            hint = f"did you mean {known[near[0]]!r}?" if near else f"there are: {', '.join(classes[:20])}"
            raise UsageError(f"--classes: there is no class {word!r}", hint=hint)
        names.append(known[word.casefold()])
    return tuple(names)


def _wanted(options: Options) -> list[tuple[str, Role, Path]]:
    """Name, role and checkpoint of every network, the student last."""
    assert options.teacher is not None
    assert options.student is not None
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


def _entrant(name: str, role: Role, loaded: Loaded, device: torch.device) -> Network:
    return Network(name, role, loaded.model.to(device).eval(), str(loaded.path), file_digest(loaded.path))
