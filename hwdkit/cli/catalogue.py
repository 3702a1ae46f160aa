"""All commands in the order of --help, and the module that makes each of them.

`hwdkit --help` reads the summaries in the modules' source and imports none of them; a command that runs
imports its own module and no other.
"""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from hwdkit.terminal.command import app, hyphenated

COMMANDS = {
    "prepare-data": "prepare_data",
    "demo": "demo",
    "train-teacher": "train",
    "distill": "train",
    "sweep": "sweep",
    "evaluate": "evaluate",
    "per-class-report": "per_class_report",
    "compare": "compare",
    "visualize": "visualize",
    "profile": "profile",
    "predict": "predict",
    "export": "export",
    "checkpoint": "checkpoint",
    "recipes": "recipes",
    "doctor": "doctor",
}
"""Name -> package of hwdkit.commands; its `__init__.py` holds the options alone."""


def load(name: str) -> None:
    """Import the module of a command, which adds it to `app`."""
    import_module(f"hwdkit.commands.{COMMANDS[name]}")


def summary(name: str) -> str:
    """The first paragraph of a command's docstring; of a group's the module's."""
    source = (pkgutil.get_data("hwdkit.commands", f"{COMMANDS[name]}/__init__.py") or b"").decode()
    classes = dict(re.findall(r'^class (\w+)\b[^\n]*:\n    """(.*?)"""', source, re.MULTILINE | re.DOTALL))
    docstrings = {hyphenated(cls): docstring for cls, docstring in classes.items()}
    docstring = docstrings.get(name) or source.split('"""')[1]
    return " ".join(docstring.split("\n\n")[0].split())


class Commands(TyperGroup):
    """The top level: all commands by name and summary."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: _ByName(name) for name in COMMANDS}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Suggest commands for a mistyped word of their names, too: train-teacher for `traim`."""
        word = args[0]
        if word in self.commands or word.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        from difflib import get_close_matches

        words = {part: name for name in COMMANDS for part in (*name.split("-"), name)}
        close = get_close_matches(word, words, n=1)
        ctx.fail(f"No such command {word!r}." + (f" Did you mean {words[close[0]]!r}?" if close else ""))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the summaries whole; typer cuts them to one line where it does not draw boxes."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary(name)) for name in COMMANDS])


class _ByName(TyperCommand):
    """Stands for a command until it is called; completion reads the summary alone."""

    def __init__(self, name: str) -> None:
        super().__init__(name, help=summary(name))

    def make_context(self, info_name: str | None, args: list[str], *others: Any, **more: Any) -> Any:
        name = str(self.name)
        load(name)
        return typer.main.get_group(app).commands[name].make_context(info_name, args, *others, **more)
