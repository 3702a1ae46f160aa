"""YAML text as a tree of values that remember where they were written, so that a complaint can name a line.

Here: the YAML dialect of recipes and the merge of two trees. Not here: files and bases (`load.py`), or what
the keys mean (`schema.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from hwdkit.errors import RecipeError

MAX_CHARACTERS = 1_000_000
MAX_VALUES = 20_000  # aliases count each time: a few nested ones can stand for billions
MAX_DEPTH = 20

FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$")

_TAG = "tag:yaml.org,2002:"
_CONSTRUCTORS: dict[str, Callable[[str], str | int | float | bool | None]] = {
    f"{_TAG}str": str,
    f"{_TAG}int": int,
    f"{_TAG}float": float,
    f"{_TAG}bool": lambda text: text.lower() == "true",
    f"{_TAG}null": lambda text: None,
}


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema; only composes nodes, constructs nothing.

    PyYAML follows YAML 1.1, where `amp: off` is false, 1e-4 is text and 1:30 is ninety.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _name, _pattern, _first in (
    ("null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"[-+]?[0-9]+$"), list("-+0123456789")),
    ("float", FLOAT, list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, _first)


class Place(NamedTuple):
    """Where something was written: a file and its line, or a `--set` option (line 0)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class Written:
    """A value of a recipe, and where its key was written."""

    value: dict[str, Written] | list[Written] | str | int | float | bool | None
    place: Place

    def plain(self) -> Any:
        """The value without its places."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def place_of(self, path: tuple[str | int, ...]) -> Place:
        """Where the key at `path` was written, or the nearest parent that was."""
        written = self
        for part in path:
            if not isinstance(written.value, dict | list):
                break
            try:
                written = written.value[part]  # type: ignore[index]
            except (LookupError, TypeError):
                break
        return written.place


def merge(under: Written, over: Written) -> Written:
    """`over` on top of `under`: mappings merge key by key, everything else (lists, null) replaces."""
    if not (isinstance(under.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(under.value)
    for key, child in over.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    # A --set that reaches into a section did not write the section.
    return Written(merged, over.place if over.place.line else under.place)


def parse(text: str, *, file: str) -> Written | None:
    """Read one YAML document.

    Args:
        text: the document.
        file: its name in error messages.

    Returns:
        The root, placed on line 1, or None for an empty document.

    Raises:
        RecipeError: not YAML, a key written twice, a tag, too large or too deep; with the line.
    """
    if len(text) > MAX_CHARACTERS:
        raise RecipeError(f"larger than {MAX_CHARACTERS:,} characters; this is no recipe", where=file)
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _Converter(file).convert(node, line=1, depth=0)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise RecipeError("has a character that YAML does not allow", where=f"{file}:{line}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}" if mark else file
        raise RecipeError(f"not valid YAML: {error.problem or error.context}", where=where) from None
    except RecursionError:
        raise RecipeError("nested too deeply", where=file) from None
    finally:
        if loader is not None:
            loader.dispose()


class _Converter:
    """Turns composed nodes into Written, within a budget."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.values = 0

    def convert(self, node: yaml.Node, *, line: int, depth: int) -> Written:
        self.values += 1
        if self.values > MAX_VALUES:
            raise RecipeError(f"more than {MAX_VALUES:,} values", where=f"{self.file}:{line}")
        if depth > MAX_DEPTH:
            raise RecipeError(f"nested more than {MAX_DEPTH} levels deep", where=f"{self.file}:{line}")
        place = Place(self.file, line)
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return Written(self._mapping(node, depth=depth), place)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            children = [self.convert(child, line=_line(child), depth=depth + 1) for child in node.value]
            return Written(children, place)
        if isinstance(node, yaml.ScalarNode) and node.tag in _CONSTRUCTORS:
            with suppress(ValueError):
                return Written(_CONSTRUCTORS[node.tag](node.value), place)
        raise RecipeError(
            f"tag {node.tag!r} is not allowed here; a recipe is plain YAML",
            where=f"{self.file}:{_line(node)}",
        )

    def _mapping(self, node: yaml.MappingNode, *, depth: int) -> dict[str, Written]:
        mapping: dict[str, Written] = {}
        for key_node, child in node.value:
            line = _line(key_node)
            key = key_node.value  # keys are text: `on:` and `1:` need no quotes
            if not isinstance(key, str):
                raise RecipeError("a key must be one word", where=f"{self.file}:{line}")
            if key in mapping:
                first = mapping[key].place.line
                raise RecipeError(
                    f"key {key!r} is written twice, first on line {first}", where=f"{self.file}:{line}"
                )
            mapping[key] = self.convert(child, line=line, depth=depth + 1)
        return mapping


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
