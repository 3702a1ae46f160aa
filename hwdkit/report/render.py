"""How numbers and names are written: in tables, as Markdown, as LaTeX and as CSV.

Nothing is measured here. Scores arrive in 0..1 and leave as percent in tables, unchanged in JSON and CSV.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any

UNKNOWN = "–"

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "Δ": r"$\Delta$",
    "τ": r"$\tau$",
    "−": "$-$",
    "±": r"$\pm$",
    **{letter: f"{{{letter}}}" for letter in "[]*"},  # behind a line's end they would be its options
    "\ufffd": "?",  # what `printable` puts for control characters: no font of pdflatex has it
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def percent(value: float | None) -> str:
    """Write a 0..1 score as percent with two decimals; a dash when it is unknown."""
    return fixed(value, 2, scale=100)


def spread(mean: float | None, std: float | None) -> str:
    """Write a mean score and, where it is known, its standard deviation, in percent."""
    return percent(mean) if std is None or math.isnan(std) else f"{percent(mean)} ± {percent(std)}"


def fixed(value: float | None, decimals: int, *, scale: float = 1) -> str:
    """Write a number, times `scale`, with so many decimals; a dash when it is unknown."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{scale * float(value):.{decimals}f}"


def points(value: float | None, digits: int = 2) -> str:
    """Write a difference of 0..1 scores in percentage points, always with its sign."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{100 * value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def number(value: float | None, digits: int = 3) -> str:
    """Write a positive quantity of unknown magnitude with so many significant digits."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    scientific = f"{value:.{digits - 1}e}"
    exponent = int(scientific.partition("e")[2])  # of the rounded value: 9.999 becomes 10.0
    return f"{value:.{max(0, digits - 1 - exponent)}f}" if -3 <= exponent < 5 else scientific


def printable(text: str) -> str:
    """Replace control characters, so that a name from a file cannot steer the terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def markdown_text(text: str) -> str:
    """Escape what Markdown or HTML would take for markup."""
    plain = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in plain)


def markdown_section(title: str, parts: Iterable[str], notes: Iterable[str]) -> str:
    """Put a heading above parts that are Markdown already, and a list of notes below."""
    below = "\n".join(f"- {markdown_text(note)}" for note in notes)
    return "\n\n".join([f"### {markdown_text(title)}", *parts, below]) + "\n"


def latex_text(text: str) -> str:
    """Escape what TeX would take for a command; other letters stay, accents need UTF-8 (the default)."""
    return "".join(_LATEX.get(letter, letter) for letter in printable(text))


def latex_number(text: str) -> str:
    """A cell of numbers: a dash for the unknown, signs as in a formula, and powers of ten."""
    if text == UNKNOWN:
        return "--"
    scientific = re.fullmatch(r"(\d+(?:\.\d+)?)e([+-]\d+)", text)
    if scientific:
        return rf"${scientific[1]} \times 10^{{{int(scientific[2])}}}$"
    return latex_text(text).replace("+", "$+$")


def csv_text(head: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> str:
    """Write lines of CSV: numbers in full, nothing where one is not known."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([head, *([_exact(field) for field in row] for row in rows)])
    return text.getvalue()


def plain_value(value: Any) -> str:
    """Write an option of a recipe as a recipe does: a text as it is, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _exact(value: str | float | None) -> str:
    if isinstance(value, str | int):
        return str(value)
    return "" if value is None or not math.isfinite(value) else repr(float(value))
