"""The report of hwdkit per-class-report: measured, or read from a file, and written in every format."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Group

from hwdkit.checkpoints.files import write_file
from hwdkit.commands import per_class_report as command
from hwdkit.engine.opened import open_networks
from hwdkit.measure.divergence import Measure
from hwdkit.measure.per_class import Subject, per_class
from hwdkit.measure.types import PerClassReport
from hwdkit.report.per_class import (
    per_class_csv,
    per_class_json,
    per_class_latex,
    per_class_markdown,
    per_class_tables,
)
from hwdkit.report.saved import load_report
from hwdkit.terminal import console, values
from hwdkit.terminal.memory import WHILE_EVALUATING, explained_memory

log = logging.getLogger("hwdkit")


def run(options: command.PerClassReport, *, student: str = "student") -> tuple[PerClassReport, list[Path]]:
    """Compute the report, or read it, and write its files; return it and their paths.

    `student` is the student's name in the report. A class that there is not is refused before computing.
    """
    if options.saved is None:
        report = measure(options, student=student)
    else:
        report = load_report(options.saved)
        if "html" in options.written:
            log.warning("a saved report holds no images: the page will have no examples")
    return report, write(report, options)


def measure(options: command.PerClassReport, *, student: str) -> PerClassReport:
    """Compute the report; see `run`."""
    opened = open_networks(
        options.named(student=student),
        data_root=options.data_root,
        split=options.split,
        limit=options.limit,
        workers=options.workers,
        cpu=options.cpu(),
    )
    images, index = opened.images, opened.images.index
    values.classes(options.classes or (), index.classes)
    subject = Subject(
        index.name, options.split, index.fingerprint, index.classes, index.palette, images.dataset.name
    )
    with explained_memory(WHILE_EVALUATING), console.progress("per-class report", images.total) as advance:
        return per_class(
            opened.networks,
            images.pairs(),
            subject,
            measure=Measure(
                options.divergence, "logits" if options.map_ == "logit" else "activation", options.tau
            ),
            absent=options.absent,
            examples=options.examples,
            notes=tuple(images.notes()),
            advance=advance,
        )


def write(report: PerClassReport, options: command.PerClassReport) -> list[Path]:
    """Write the files asked for into `options.out`; each replaces an older one when it is complete.

    The JSON and the page hold every class; `options.classes` is about all others.
    """
    only = _shown(report, options)
    texts: dict[str, tuple[str, Callable[[], str]]] = {
        "json": ("per-class.json", lambda: per_class_json(report)),
        "csv": ("per-class.csv", lambda: per_class_csv(report, only)),
        "md": ("per-class.md", lambda: per_class_markdown(report, options.sort, only=only)),
        "latex": ("per-class.tex", lambda: per_class_latex(report, options.sort, only=only)),
    }
    contents = {name: text().encode() for form, (name, text) in texts.items() if form in options.written}
    if "html" in options.written:
        from hwdkit.report.html.page import per_class_page
        from hwdkit.report.plots.per_class import iou_bars, td_ntd

        contents["per-class.html"] = per_class_page(report).encode()
        drawn = replace(report, rows=tuple(report.ordered(only=only)))
        contents["per-class-iou.png"] = iou_bars(drawn)
        contents["td-ntd.png"] = td_ntd(drawn)
    written = [write_file(options.out / name, content) for name, content in contents.items()]
    if written:
        log.info("report: %s", ", ".join(str(path) for path in written))
    return written


def render(report: PerClassReport, options: command.PerClassReport) -> Group:
    """The report as tables; where the terminal is too narrow, some columns are left out."""
    return Group(*per_class_tables(report, options.sort, only=_shown(report, options)))


def _shown(report: PerClassReport, options: command.PerClassReport) -> tuple[str, ...]:
    return values.classes(options.classes or (), tuple(row.name for row in report.rows))
