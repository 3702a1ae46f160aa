"""What one check of `hwdkit doctor` says, and how a check is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

REINSTALL = "pip install --upgrade --force-reinstall torch torchvision   (both from the same index)"


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Attributes:
        name: what was checked.
        value: the answer in one line.
        level: a problem stops or spoils a run; a note is worth knowing.
        fix: what to type; empty where nothing needs fixing.
        facts: the same as values, for --json.
    """

    name: str
    value: str
    level: Literal["ok", "note", "problem"] = "ok"
    fix: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def findings_of(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What a check says; if it breaks, that too."""
    findings: list[Finding] = []
    try:
        findings.extend(check())  # keeps what came before the failure
    except Exception as error:
        value = f"could not be checked: {type(error).__name__}: {first_line(error)}"
        fix = "hwdkit doctor --json   (and report it)"
        if isinstance(error, ImportError):
            missing = isinstance(error, ModuleNotFoundError)
            fix = f"pip install {error.name}" if missing else REINSTALL
        findings.append(Finding(name, value, "problem", fix))
    return findings


def first_line(error: object) -> str:
    """An error or warning in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def counted(count: int, word: str) -> str:
    """Spell a number of things."""
    return f"{count or 'no'} {word}{'' if count == 1 else 's'}"
