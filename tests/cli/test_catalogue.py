"""`hwdkit --help` is drawn from a table, and a command imports its own module alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from tiny_runs import hwdkit
from typer.testing import CliRunner

from hwdkit.cli import program
from hwdkit.cli.catalogue import COMMANDS, load, summary
from hwdkit.terminal.command import app


def test_a_summary_is_the_first_paragraph_of_the_help() -> None:
    for name in COMMANDS:
        load(name)
    made = typer.main.get_group(app).commands
    said = {name: " ".join((made[name].help or "").split("\n\n")[0].split()) for name in COMMANDS}
    assert said == {name: summary(name) for name in COMMANDS}


@pytest.mark.parametrize(
    ("arguments", "imported"),
    [
        (["--help"], set()),
        (["--version"], set()),
        (["distil"], set()),
        (["distill", "--help"], {"train"}),
        (["recipes", "list", "--json"], {"recipes"}),
    ],
)
def test_only_the_module_of_the_command_is_imported(arguments: list[str], imported: set[str]) -> None:
    code = (
        "import sys\nfrom hwdkit.cli import main\n"
        f"sys.argv = ['hwdkit', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print({name.split('.')[2] for name in sys.modules if name.startswith('hwdkit.commands.')}, "
        "file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert eval(ran.stderr.splitlines()[-1]) == imported


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


@pytest.mark.parametrize(
    ("word", "suggestion"),
    [
        ("traim", " Did you mean 'train-teacher'?"),
        ("distil", " Did you mean 'distill'?"),
        ("report", " Did you mean 'per-class-report'?"),
        ("zzz", ""),
    ],
)
def test_a_mistyped_command_is_told_what_it_may_be(word: str, suggestion: str) -> None:
    done = hwdkit(word)
    assert done.code == 2
    assert (
        done.err.splitlines()[0] == f"error[usage]: No such command '{word}'{suggestion and '.'}{suggestion}"
    )
