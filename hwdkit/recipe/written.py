"""YAML text as a tree of values that remember where they were written, so that a complaint can name a line.

Here: the YAML dialect of recipes and the merge of two trees. Not here: files and bases (`load.py`), or what
the keys mean (`schema.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from hwdkit.errors import RecipeError

MAX_CHARACTERS = 1_000_000
MAX_ALIASES = 100
MAX_VALUES = 20_000  # after aliases are expanded: a few nested ones can stand for billions
MAX_DEPTH = 20

# YAML 1.2's core schema. PyYAML follows 1.1, where `amp: off` is false, 1e-4 is text and 1:30 is ninety.
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$")
_CORE = (
    ("null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"[-+]?[0-9]+$"), list("-+0123456789")),
    ("float", FLOAT, list("-+.0123456789")),
)


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
        here = self
        for part in path:
            children: dict[str, Written] | dict[int, Written] = {}
            if isinstance(here.value, dict | list):
                children = here.value if isinstance(here.value, dict) else dict(enumerate(here.value))
            if part not in children:
                break
            here = children[part]  # type: ignore[index]
        return here.place


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


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars, used only to compose nodes; it constructs nothing."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > MAX_ALIASES:
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.composer.ComposerError(
                    problem=f"more than {MAX_ALIASES} aliases", problem_mark=mark
                )
        return super().compose_node(parent, index)


for _tag, _pattern, _first in _CORE:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)


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
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return Written(self._mapping(node, depth=depth), place)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            children = [self.convert(child, line=_line(child), depth=depth + 1) for child in node.value]
            return Written(children, place)
        return Written(self._scalar(node), place)

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

    def _scalar(self, node: yaml.Node) -> str | int | float | bool | None:
        try:
            match node.tag.removeprefix("tag:yaml.org,2002:"):
                case "str":
                    return str(node.value)
                case "int":
                    return int(node.value)
                case "float":
                    return float(node.value)
                case "bool":
                    return str(node.value).lower() == "true"
                case "null":
                    return None
        except (TypeError, ValueError):
            pass
        raise RecipeError(
            f"tag {node.tag!r} is not allowed here; a recipe is plain YAML",
            where=f"{self.file}:{_line(node)}",
        )


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
