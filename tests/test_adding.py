"""docs/adding.md is true: its examples, put where it says, pass its checks with no further edit."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from tiny_runs import ROOT, environment

_, *PARTS = re.split(r"^## (.+)\n", (ROOT / "docs" / "adding.md").read_text("utf-8"), flags=re.MULTILINE)
SECTIONS = {title: text for title, text in zip(PARTS[::2], PARTS[1::2], strict=True) if "```bash" in text}
BLOCK = re.compile(r"(.*?)^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""What introduces a block, its language, its content."""


def copied(root: Path) -> Path:
    """What a checkout has of hwdkit, in a folder of its own."""
    for name in ("hwdkit", "recipes", "tests", "docs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "images"))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def add(section: str, root: Path) -> None:
    """Write the files of a section and make its changes; the path in bold is that of the next block."""
    for introduction, language, content in BLOCK.findall(section):
        if language == "bash":
            continue
        (name,) = re.findall(r"\*\*`(.+?)`\*\*", introduction)
        path = root / name
        assert path.exists() == (language == "diff"), path
        path.parent.mkdir(exist_ok=True)
        path.write_text(changed(path, content) if language == "diff" else content, encoding="utf-8")


def changed(path: Path, changes: str) -> str:
    """A file with the lines of a diff: the others of the diff are found in it, one after another."""
    lines, place = path.read_text(encoding="utf-8").splitlines(), 0
    for mark, line in ((change[:1], change[1:]) for change in changes.splitlines()):
        if mark == "+":
            lines.insert(place, line)
        else:
            assert line in lines[place:], f"{path} has no line {line!r} below line {place}"
            place = lines.index(line, place)
        if mark == "-":
            del lines[place]
        else:
            place += 1
    return "\n".join(lines) + "\n"


def checks(sections: Iterable[str]) -> Iterator[list[str]]:
    """The commands of these sections, as words."""
    for _, language, content in BLOCK.findall("".join(sections)):
        if language == "bash":
            yield from map(shlex.split, content.splitlines())


def together(commands: Iterable[list[str]]) -> Iterator[list[str]]:
    """The same with one run of docs/generate.py and one of pytest."""
    pages: list[str] = []
    files: list[str] = []
    names: list[str] = []
    for command in commands:
        if command[0] == "python":
            pages += command[2:]
        elif command[0] == "pytest":
            files += command[1:-2]
            names.append(command[-1])
        else:
            yield command
    yield ["python", "docs/generate.py", *dict.fromkeys(pages)]
    yield ["pytest", *dict.fromkeys(files), "-k", " or ".join(names)]


def check(command: list[str], root: Path) -> None:
    """Run a command of the page; pytest must find something to do in each file."""
    program, *arguments = command
    words = {
        "python": [],
        "hwdkit": ["-m", "hwdkit"],
        "pytest": ["-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-v"],
    }[program]
    paths = f"{root}:{root / 'tests'}"
    done = subprocess.run(
        [sys.executable, *words, *arguments],
        cwd=root,
        env={**environment(), "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    if program == "pytest":
        for path in (argument for argument in arguments if argument.endswith(".py")):
            assert re.search(rf"^{re.escape(path)}::.* PASSED", done.stdout, re.MULTILINE), path


def test_everything_that_the_page_adds_passes_its_checks(tmp_path: Path) -> None:
    root = copied(tmp_path)
    for section in SECTIONS.values():
        add(section, root)
    for command in together(checks(SECTIONS.values())):
        check(command, root)


@pytest.mark.slow
@pytest.mark.parametrize("title", SECTIONS)
def test_a_section_needs_no_other(title: str, tmp_path: Path) -> None:
    root = copied(tmp_path)
    add(SECTIONS[title], root)
    for command in checks([SECTIONS[title]]):
        check(command, root)


def test_a_recipe_a_loss_a_head_a_dataset_and_a_command_are_what_is_tested() -> None:
    assert list(SECTIONS) == ["A recipe", "A loss", "A head", "A dataset", "A command"]
