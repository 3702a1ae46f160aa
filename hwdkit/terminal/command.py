"""A command of the command line is a frozen dataclass: its docstring is the help, its fields are the options.

Every command has `--json` and `--quiet`, sets up the log, prints its result and ends with its gate's exit
code: written here once. A command's module holds no more than its options, so that a typo fails before torch
is loaded; what does the work is imported by `run`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import MISSING, dataclass, fields
from inspect import Parameter, Signature, cleandoc
from typing import Annotated, Any, NamedTuple, TypeVar, dataclass_transform, get_type_hints

import typer

from hwdkit.errors import HwdkitError

app = typer.Typer(rich_markup_mode="rich")
"""Where modules of commands leave them; `cli/catalogue.py` imports a module when its command is called."""


class Result(NamedTuple):
    """What a command ends with.

    Attributes:
        document: the fields of `--json`.
        text: makes what people see, a renderable of rich or text.
        error: a gate that was not met; raised after both were printed.
    """

    document: dict[str, Any]
    text: Callable[[], Any]
    error: HwdkitError | None = None


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors on stderr.")]
Context = Annotated[typer.Context, typer.Option(hidden=True)]  # for the reference, no option at all

_typed: ContextVar[frozenset[str]] = ContextVar("_typed", default=frozenset())

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def options(cls: type[T]) -> type[T]:
    """Make a frozen dataclass of options that several commands share, for them to inherit.

    `__post_init__` refuses combinations that make no sense, with a `UsageError`.
    """
    return dataclass(frozen=True, kw_only=True)(cls)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def command(*, example: str, name: str = "", group: typer.Typer = app) -> Callable[[type[T]], type[T]]:
    """Make a command of a class with fields `Annotated[type, typer.Option(...)]` and a method `run`.

    `run(self)` returns a `Result`, or None when it prints itself, or other processes do. Where a list is
    typed, the default is None. `__post_init__` refuses what makes no sense with a `UsageError`; it must not
    load torch.

    Args:
        example: a command line, for the end of the help.
        name: on the command line; the class's name in lower case with hyphens if empty.
        group: from `subcommands`; by default the top level.
    """

    def registered(cls: type[T]) -> type[T]:
        made = options(cls)
        group.command(
            name or hyphenated(cls.__name__), help=cleandoc(cls.__doc__ or ""), epilog=f"Example:  {example}"
        )(_function(made))
        return made

    return registered


def subcommands(name: str, *, about: str, example: str) -> typer.Typer:
    """Make a group of commands, such as `hwdkit recipes`."""
    group = typer.Typer(help=about, no_args_is_help=True, epilog=f"Example:  {example}")
    app.add_typer(group, name=name)
    return group


def hyphenated(name: str) -> str:
    """PrepareData -> prepare-data."""
    return re.sub(r"(?<=.)(?=[A-Z])", "-", name).lower()


def typed() -> frozenset[str]:
    """The fields that stand on the command line, whatever their values; not those of the environment."""
    return _typed.get()


def _function(cls: Any) -> Callable[..., None]:
    """The function that typer reads the options from, and calls."""

    def call(*, context: typer.Context, as_json: bool, quiet: bool, **values: Any) -> None:
        sources = {name: context.get_parameter_source(name) for name in (*values, "as_json", "quiet")}
        _typed.set(
            frozenset(name for name, source in sources.items() if source and source.name == "COMMANDLINE")
        )
        chosen = cls(**values)

        from hwdkit.terminal import console, exits, launch

        console.set_up_logging(quiet=quiet or not launch.speaks())
        result: Result | None = chosen.run()
        if result is None:
            return
        if launch.speaks():
            exits.print_result(result.document, as_json, result.text, error=result.error)
        if result.error is not None:
            raise result.error

    hints = get_type_hints(cls, include_extras=True)
    parameters = [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            annotation=hints[field.name],
            default=Parameter.empty if field.default is MISSING else field.default,
        )
        for field in fields(cls)
    ]
    for shared, annotation in (("as_json", Json), ("quiet", Quiet)):
        parameters.append(Parameter(shared, Parameter.KEYWORD_ONLY, annotation=annotation, default=False))
    parameters.append(Parameter("context", Parameter.KEYWORD_ONLY, annotation=Context))
    call.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call
