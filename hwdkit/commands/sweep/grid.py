"""The words of `hwdkit sweep`: grids, seeds and references as typed, and the folder names that come of them.

No torch here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from hwdkit.errors import RecipeError, UsageError
from hwdkit.recipe.written import parse

GRID, BASELINE = "grid", "baseline"
AS_IT_IS = "as-it-is"
"""Name of the one cell of a sweep over seeds alone."""

_LONGEST_VALUE, _LONGEST_NAME = 40, 150


class Axis(NamedTuple):
    """One --grid option: a dotted key of the recipe and its values as they were typed."""

    key: str
    values: tuple[str, ...]


def axes(options: Sequence[str]) -> tuple[Axis, ...]:
    """--grid KEY=V1,V2,… as typed; commas inside brackets and quotes belong to a value.

    Raises:
        UsageError: not that form, a key or a value given twice, or the key that --seeds is for.
    """
    axes: dict[str, Axis] = {}
    for option in options:
        key, equals, text = (part.strip() for part in option.partition("="))
        if not (equals and text and all(key.split("."))):
            raise UsageError(f"--grid: {option!r} is not KEY=VALUE,VALUE,… with a dotted key of the recipe")
        if key == "seed":
            raise UsageError("--grid seed: a seed is no setting; use --seeds, so that means are over seeds")
        if key in axes:
            raise UsageError(f"--grid: {key} is given twice; put all its values into one --grid")
        axes[key] = Axis(key, _split(key, text))
        same = [_canonical(value(key, text)) for text in axes[key].values]
        if len(set(same)) < len(same):
            raise UsageError(f"--grid {key}: a value is given twice")
    return tuple(axes.values())


def seeds(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,9}", part) for part in parts):
        raise UsageError(f"--seeds: {text!r} is not a list of whole numbers such as 0,1,2")
    numbers = tuple(int(part) for part in parts)
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"--seeds: {text!r} names a seed twice")
    return numbers


def references(options: Sequence[str]) -> dict[str, str]:
    """--reference NAME=RECIPE, each name once."""
    named: dict[str, str] = {}
    for option in options:
        name, _, recipe = option.partition("=")
        if not (re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) and recipe):
            raise UsageError(f"--reference: {option!r} is not NAME=RECIPE, such as cwd=ade20k-r18-cwd")
        if name in named or name in (GRID, BASELINE, AS_IT_IS):
            raise UsageError(f"--reference: the name {name!r} is taken; choose another")
        named[name] = recipe
    return named


def value(key: str, text: str) -> Any:
    """A value as --set reads it."""
    try:
        written = parse(text, file=f"--grid {key}={text}")
    except RecipeError as error:
        raise RecipeError(error.message, where=f"--grid {key}={text}") from None
    return written.plain() if written else None


def _canonical(value: Any) -> str:
    """One text a value, however it was typed: 0.1 and 0.10 are the same cell, 1 and 1.0 too."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def folder_name(values: Mapping[str, Any]) -> str:
    """beta=0.1,mu=-1: the last part of each key, or the whole key where two would look alike."""
    last = [key.rpartition(".")[2] for key in values]
    names = map(_safe, last if len(set(last)) == len(last) else values)
    folder = ",".join(
        f"{name}={_safe_value(value)}" for name, value in zip(names, values.values(), strict=True)
    )
    return folder if len(folder) <= _LONGEST_NAME else f"{folder[:_LONGEST_NAME]}-{_hash(folder)}"


def _safe_value(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return "x".join(map(_canonical, value))
    return _safe(_canonical(value))


def _safe(text: str) -> str:
    """A part of a folder's name; what had to be changed is told apart by a hash."""
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "-", text)[:_LONGEST_VALUE]
    if plain == text:
        return plain
    return f"{plain.strip('-')}-{_hash(text)}".lstrip("-")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _split(key: str, text: str) -> tuple[str, ...]:
    """The values as they were typed: commas inside brackets and quotes belong to one."""
    listed = f"[{text}]"
    try:
        node = yaml.compose(listed, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        node = None
    nodes = node.value if isinstance(node, yaml.SequenceNode) else []
    if not nodes or text.rstrip().endswith(","):
        raise UsageError(f"--grid {key}: {text!r} has an empty value, or an open bracket or quote")
    return tuple(listed[node.start_mark.index : node.end_mark.index].strip() for node in nodes)
