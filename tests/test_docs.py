"""The documentation: what is generated is current, what it links to exists, what it names can be typed."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from hwdkit import errors
from hwdkit.recipe.find import available

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)


generate = runpy.run_path(str(DOCS / "generate.py"))


@pytest.mark.parametrize("name", [name for name in generate["PAGES"] if name != "backbones"])
def test_what_is_generated_is_current(name: str) -> None:
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert text == generate["current"](name), f"run: python docs/generate.py {name}"


def prose(path: Path) -> str:
    """A page without its code, in which brackets mean other things."""
    return re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The names that a page's headings have as link targets on GitHub."""
    headings = re.findall(r"^#+ (.+)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@page
def test_links_lead_to_pages_and_headings_that_exist(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\(([^)#:]+)(#([^)]*))?\)", prose(page)):
        assert (page.parent / target).exists(), target
        if anchor:
            assert anchor in anchors(page.parent / target), f"{target}#{anchor}"


@page
def test_recipes_that_commands_name_exist(page: Path) -> None:
    known = {*available(), "NAME", "scenes-r10-smse"}  # the latter is the reader's, in adding.md
    named = re.findall(r"(?:--recipe|-r) ([A-Za-z0-9-]+)(?=[\s`)]|$)", page.read_text(encoding="utf-8"))
    assert set(named) <= known


def test_every_exit_code_is_documented() -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    for kind in kinds:
        assert f"| {kind.exit_code} | `{kind.kind}` |" in text, kind.__name__


@page
def test_paths_of_the_repository_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:hwdkit|recipes|benchmarks|tests|docs)/[\w./-]+)`", page.read_text(encoding="utf-8")
    )
    # adding.md asks the reader to write some of its own: those of its examples.
    missing = [path for path in named if not (DOCS.parent / path).exists()]
    assert [path for path in missing if page.name != "adding.md"] == []
