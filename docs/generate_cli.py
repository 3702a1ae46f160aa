"""Rewrites the command reference in cli.md from the commands themselves: `python docs/generate_cli.py`.

It reads the signatures that typer reads, not typer's help screens: those change with the terminal and with
typer's version. tests/test_docs.py fails when the page is out of date.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import typer

from hwdkit.cli.catalogue import COMMANDS, load
from hwdkit.terminal.command import app

sys.path.insert(0, str(Path(__file__).parent))
from generate_schema import replace_block

PAGE = Path(__file__).with_name("cli.md")
HEADER = "| | value | default | |\n|---|---|---|---|\n"


class Parameter(NamedTuple):
    """One argument or option: its Python name, type and default, and what typer was told about it."""

    name: str
    type: Any
    default: Any
    info: Any


def reference() -> str:
    """Every command with its arguments and options, in the order of `hwdkit --help`, groups last."""
    for name in COMMANDS:
        load(name)
    order = list(COMMANDS)
    # Modules may have been imported in any order before.
    app.registered_commands.sort(key=lambda command: order.index(_name_of(command)))
    app.registered_groups.sort(key=lambda group: order.index(str(group.name)))
    return "\n\n".join(_commands(app, "hwdkit"))


def current() -> str:
    """The page as it should be."""
    return replace_block(PAGE.read_text(encoding="utf-8"), "reference", reference())


def _commands(group: typer.Typer, prefix: str) -> Iterator[str]:
    for command in group.registered_commands:
        function = command.callback
        assert function is not None
        name = f"{prefix} {_name_of(command)}"
        example = (command.epilog or "").partition("Example:")[2].strip()
        code = f"```bash\n{example}\n```" if example else ""
        about = command.help or inspect.getdoc(function) or ""
        yield "\n\n".join(filter(None, (f"### {name}", about, code, _table(function))))
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _commands(inner.typer_instance, f"{prefix} {inner.name}")


def _name_of(command: Any) -> str:
    return str(command.name or command.callback.__name__.replace("_", "-"))


def _table(function: Callable[..., Any]) -> str:
    rows = [_row(one) for one in _parameters(function) if not one.info.hidden]
    return HEADER + "\n".join(rows) if rows else ""


def _parameters(function: Callable[..., Any]) -> Iterator[Parameter]:
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        type_, info = get_args(hints[name])
        yield Parameter(name, _plain(type_), parameter.default, info)


def _plain(type_: Any) -> Any:
    """`X | None` as X: that it may be left out, the default says."""
    if get_origin(type_) in (Union, UnionType):
        type_ = next(member for member in get_args(type_) if member is not type(None))
    return type_


def _row(one: Parameter) -> str:
    cells = (_name(one), _value(one), _default(one), one.info.help or "")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _name(one: Parameter) -> str:
    if type(one.info).__name__ == "ArgumentInfo":
        return f"`{one.name.upper()}{'…' if get_origin(one.type) is list else ''}`"
    # In an Annotated option typer keeps the first name as `default`.
    words = [word for word in (one.info.default, *(one.info.param_decls or ())) if isinstance(word, str)]
    if not words:
        words = [f"--{one.name.replace('_', '-')}"]
        words += [f"--no-{one.name.replace('_', '-')}"] if one.type is bool else []
    return ", ".join(f"`{word}`" for word in sorted(words, key=len))


def _value(one: Parameter) -> str:
    if one.type is bool:
        return ""
    if getattr(one.info, "click_type", None) is not None:
        return ", ".join(f"`{choice}`" for choice in one.info.click_type.choices)
    return str(one.info.metavar or _type(one.type))


def _type(type_: Any) -> str:
    if get_origin(type_) is list:
        return _type(get_args(type_)[0])
    if get_origin(type_) is tuple:
        return " ".join(_type(member) for member in get_args(type_))
    if get_origin(type_) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(type_))
    if issubclass(type_, Enum):
        return ", ".join(f"`{member.value}`" for member in type_)
    return str({Path: "path", str: "text", int: "number", float: "number"}.get(type_, type_.__name__))


def _default(one: Parameter) -> str:
    variable = f" (`${one.info.envvar}`)" if one.info.envvar else ""
    if isinstance(one.info.show_default, str):
        return f"{one.info.show_default}{variable}"
    if one.default is inspect.Parameter.empty:
        return "**required**"
    if one.default is None or one.type is bool:
        return variable.strip()
    values = one.default if isinstance(one.default, list | tuple) else [one.default]
    return f"`{' '.join(str(value) for value in values)}`{variable}"


if __name__ == "__main__":
    PAGE.write_text(current(), encoding="utf-8")
