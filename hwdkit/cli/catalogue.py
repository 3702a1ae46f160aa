"""All commands in the order of --help: what they are for, and the module that makes each of them.

`hwdkit --help` needs no more than this table; a command that runs imports its own module and no other.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from hwdkit.cli.options import app


class Entry(NamedTuple):
    """One line of --help; the summary is the first paragraph of the command's docstring."""

    summary: str
    load: Callable[[], object]


# Each import is written out: who imports whom is read off the source.
COMMANDS = {
    "prepare-data": Entry(
        "Verify a dataset completely and write its index, so that training cannot trip over a file.",
        lambda: import_module("hwdkit.cli.data"),
    ),
    "demo": Entry(
        "The whole road in minutes: data, teacher, baseline, CWD, HWD, evaluation, report.",
        lambda: import_module("hwdkit.cli.data"),
    ),
    "train-teacher": Entry(
        "Train the teacher that a recipe describes.",
        lambda: import_module("hwdkit.cli.training"),
    ),
    "distill": Entry(
        "Distil a teacher into a student as a recipe says.",
        lambda: import_module("hwdkit.cli.training"),
    ),
    "sweep": Entry(
        "Run a recipe under every combination of settings and seeds: what is missing is run, all is "
        "summarised.",
        lambda: import_module("hwdkit.cli.sweep"),
    ),
    "evaluate": Entry(
        "Evaluate a checkpoint: mIoU, mAcc, pixel accuracy and per-class IoU.",
        lambda: import_module("hwdkit.cli.evaluate"),
    ),
    "per-class-report": Entry(
        "Where distillation helped: class IoU of every network, TD, NTD and TD/NTD per class.",
        lambda: import_module("hwdkit.cli.per_class_report"),
    ),
    "compare": Entry(
        "Is the difference real? mIoU of several methods, with intervals over images and seeds.",
        lambda: import_module("hwdkit.cli.compare"),
    ),
    "visualize": Entry(
        "Figures of what distillation did: predictions, activation maps, embeddings, channel weights.",
        lambda: import_module("hwdkit.cli.visualize"),
    ),
    "profile": Entry(
        "Count parameters and multiply-adds, three ways; measure latency, memory and training steps.",
        lambda: import_module("hwdkit.cli.profile"),
    ),
    "predict": Entry(
        "Segment your own images and films; no labels and no dataset are needed.",
        lambda: import_module("hwdkit.cli.predict"),
    ),
    "export": Entry(
        "Export a network to ONNX or torch.export, and check that the file computes the same.",
        lambda: import_module("hwdkit.cli.export"),
    ),
    "checkpoint": Entry(
        "Import published weights; inspect, verify, strip and describe checkpoints.",
        lambda: import_module("hwdkit.cli.checkpoint"),
    ),
    "recipes": Entry(
        "List, show, validate and copy recipes.",
        lambda: import_module("hwdkit.cli.recipes"),
    ),
    "doctor": Entry(
        "Check versions, extras, devices, limits, data and recipes; exit 6 with a problem, say what to type.",
        lambda: import_module("hwdkit.cli.doctor"),
    ),
}


class Commands(TyperGroup):
    """The top level: all commands by name and summary."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: _ByName(name) for name in COMMANDS}

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the summaries whole; typer cuts them to one line where it does not draw boxes."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


class _ByName(TyperCommand):
    """Stands for a command until it is called; --help and completion read the summary alone."""

    def __init__(self, name: str) -> None:
        super().__init__(name, help=COMMANDS[name].summary)

    def make_context(self, info_name: str | None, args: list[str], *others: Any, **more: Any) -> Any:
        name = str(self.name)
        COMMANDS[name].load()
        return typer.main.get_group(app).commands[name].make_context(info_name, args, *others, **more)


def load_all() -> None:
    """Make every command, for whoever reads them all: the command reference."""
    for entry in COMMANDS.values():
        entry.load()
