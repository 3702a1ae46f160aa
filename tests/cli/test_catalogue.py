"""`hwdkit --help` is drawn from a table, and a command imports its own module alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from hwdkit.cli import program
from hwdkit.cli.catalogue import COMMANDS, load_all
from hwdkit.cli.options import app


def first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def test_the_table_says_what_the_commands_say_themselves() -> None:
    load_all()
    made = typer.main.get_group(app).commands
    said = {name: first_paragraph(command.help) for name, command in made.items()}
    assert said == {name: entry.summary for name, entry in COMMANDS.items()}


@pytest.mark.parametrize(
    ("arguments", "imported"),
    [
        (["--help"], set()),
        (["--version"], set()),
        (["distil"], set()),
        (["distill", "--help"], {"training"}),
        (["recipes", "list", "--json"], {"recipes"}),
    ],
)
def test_only_the_module_of_the_command_is_imported(arguments: list[str], imported: set[str]) -> None:
    code = (
        "import sys\nfrom hwdkit.cli import main\n"
        f"sys.argv = ['hwdkit', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in sys.modules if name.startswith('hwdkit.cli.')], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = {name.strip("' ") for name in ran.stderr.splitlines()[-1].strip("[]").split(",")}
    assert found == {f"hwdkit.cli.{name}" for name in {"catalogue", "options"} | imported}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("hwdkit d", {"demo", "distill", "doctor"}),
        ("hwdkit distill --tea", {"--teacher"}),
        ("hwdkit recipes sh", {"show"}),
    ],
)
def test_completion_knows_commands_that_are_not_imported_and_their_options(
    words: str, expected: set[str]
) -> None:
    environment = {
        "_HWDKIT_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    shown = CliRunner().invoke(program, [], prog_name="hwdkit", env=environment)
    assert set(shown.stdout.split()) == expected
