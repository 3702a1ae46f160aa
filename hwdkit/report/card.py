"""Facts about a network as a model card, by the template card.md.j2.

Every word that a file supplied is made harmless here: for Markdown by escaping whatever the template shows,
in code by a quote of its language. Where the facts come from is `commands/checkpoint/`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hwdkit.report.render import printable

MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&!])")


class Markdown(str):
    """A text that the template shows as it is; all others are escaped."""


def render(front_matter: str, *, file_name: str, **facts: Any) -> str:
    """Fill the template.

    Args:
        front_matter: YAML, of words made harmless by `one_line`.
        file_name: of the checkpoint, as it will lie beside the card.
        facts: the template's other names.
    """
    environment = Environment(
        loader=PackageLoader("hwdkit.report", ""),
        finalize=lambda value: value if isinstance(value, Markdown) else escaped(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "table": _table,
        "code": Markdown,
        "quote": lambda text: Markdown(shlex.quote(text)),
        "repr": lambda text: Markdown(repr(text)),
    }
    name = one_line(file_name)
    longest = max(map(len, re.findall("`+", name)), default=0)
    # No run of backticks in the file's name can end a block of code.
    fence = Markdown("`" * max(3, longest + 1))
    template = environment.get_template("card.md.j2")
    return template.render(front_matter=Markdown(front_matter), file_name=name, fence=fence, **facts)


def one_line(text: str) -> str:
    """A text from a file without control characters and line breaks."""
    return " ".join(printable(re.sub(r"\s+", " ", text)).split())


def escaped(text: str) -> str:
    """The same as Markdown that shows it, letter by letter."""
    return MARKUP.sub(r"\\\1", one_line(text))


def _table(rows: Mapping[str, str] | Iterable[Sequence[str]], heads: Sequence[str] = ("", "")) -> Markdown:
    cells = rows.items() if isinstance(rows, Mapping) else rows
    lines = [heads, ["---"] * len(heads), *([escaped(cell) for cell in row] for row in cells)]
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))
