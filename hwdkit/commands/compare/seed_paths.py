"""What `hwdkit compare` is to compare: paths, and names with the paths of their seeds. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hwdkit.errors import UsageError

TEACHER = "teacher"
"""How the method of --teacher is called."""


@dataclass(frozen=True)
class SeedPaths:
    """One argument: a path, or a name and the paths of its seeds.

    Attributes:
        folder: the argument where `paths` are the runs below it and there is no name.
    """

    paths: tuple[Path, ...]
    name: str | None = None
    folder: Path | None = None


def parse(networks: Sequence[str], teacher: str | None) -> tuple[SeedPaths, ...]:
    """Read the arguments, the teacher first. A path that exists is a path, whatever signs are in its name.

    Raises:
        UsageError: a name is empty or given twice, or a path is empty.
    """
    methods = [] if teacher is None else [SeedPaths(_paths("--teacher", teacher), TEACHER)]
    for text in networks:
        name, equals, rest = text.partition("=")
        if not equals or _exists(text):
            methods.append(SeedPaths((Path(text),)))
        elif not name.strip():
            raise UsageError(f"{text!r} has no name before its '='; write NAME=PATH,PATH")
        elif name in [each.name for each in methods]:
            raise UsageError(f"the name {name!r} is given twice", hint=f"seeds: {name}=PATH,PATH")
        else:
            methods.append(SeedPaths(_paths(text, rest), name))
    return tuple(methods)


def _paths(option: str, text: str) -> tuple[Path, ...]:
    parts = [text] if _exists(text) else text.split(",")
    if not all(parts):
        raise UsageError(f"{option}: an empty path; write PATH,PATH")
    return tuple(Path(part) for part in parts)


def _exists(text: str) -> bool:
    try:
        return bool(text) and Path(text).exists()
    except (OSError, ValueError):  # too long, or a null byte: no path, and load_network says so
        return False
