"""The command line: parses, calls commands/*, prints. Nothing here imports torch before a command runs.

stdout carries the result (a table, or one JSON document with --json); logs, progress and errors go to stderr.
"""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from hwdkit import __version__
from hwdkit.cli.catalogue import Commands
from hwdkit.errors import Cancelled, HwdkitError
from hwdkit.terminal import exits

EXIT_CODES = (
    "Exit codes: 0 ok, 1 bug, 2 usage, 3 recipe, 4 data, 5 checkpoint, 6 environment, 7 diverged, 8 memory, "
    "9 gate not met, 75 stopped but resumable, 130 Ctrl-C."
)

program = typer.Typer(
    name="hwdkit",
    cls=Commands,
    help="Distil semantic-segmentation networks: a big teacher teaches a small student.",
    no_args_is_help=True,
    rich_markup_mode=None,  # the boxes of a command's own page take twice the time of this page
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"Example:  hwdkit demo\n\n{EXIT_CODES}",
)


@program.callback(invoke_without_command=True)
def top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)
    ] = False,
) -> None:
    """Distil semantic-segmentation networks: a big teacher teaches a small student."""
    if version:
        typer.echo(f"hwdkit {__version__}")
        raise typer.Exit


def main() -> NoReturn:
    """Entry point: the one place where an error becomes a message and an exit code."""
    exits.begin()
    try:
        code = program(standalone_mode=False)
    except HwdkitError as error:
        code = exits.complain(error)
    except (KeyboardInterrupt, typer.Abort):
        code = exits.complain(Cancelled("cancelled"))
    except OSError as error:
        code = exits.of_system(error)
    except Exception as error:
        code = exits.usage(error) if hasattr(error, "format_message") else exits.bug(error)
    else:
        # typer makes this number of a Ctrl-C.
        code = exits.complain(Cancelled("cancelled")) if code == Cancelled.exit_code else int(code or 0)
    sys.exit(code)
