"""Rewrites what is generated in the pages: `python docs/generate.py`, or `... generate.py cli` for one.

Beside each such page NAME.md is generate_NAME.py, whose `blocks()` makes the texts between its markers. They
take seconds, those of backbones.md minutes. Tests fail when a page is out of date.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent
PAGES = sorted(path.stem.removeprefix("generate_") for path in HERE.glob("generate_*.py"))


def current(name: str) -> str:
    """A page as it should be."""
    page = (HERE / f"{name}.md").read_text(encoding="utf-8")
    for block, content in runpy.run_path(str(HERE / f"generate_{name}.py"))["blocks"]().items():
        page = replace_block(page, block, content)
    return page


def replace_block(page: str, name: str, content: str) -> str:
    """Put `content` between `<!-- begin NAME -->` and `<!-- end NAME -->`.

    Raises:
        ValueError: the page lacks the markers.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, opened, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (opened and closed):
        raise ValueError(f"the page has no block {name!r}")
    return f"{before}{begin}\n\n{content.strip()}\n\n{end}{after}"


if __name__ == "__main__":
    for name in sys.argv[1:] or PAGES:
        (HERE / f"{name}.md").write_text(current(name), encoding="utf-8")
