"""The words of `hwdkit sweep`: grids, seeds and references as typed, and the folder names made from them.

No torch here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hwdkit.errors import RecipeError, UsageError
from hwdkit.recipe.written import parse
from hwdkit.report.sweep import BASELINE, GRID

AS_IT_IS = "as-it-is"
"""Name of the one cell of a sweep over seeds alone."""

_LONGEST_VALUE, _LONGEST_NAME = 40, 150


def axes(options: Sequence[str]) -> dict[str, list[Any]]:
    """--grid KEY=V1,V2,… as key -> values; commas inside brackets and quotes belong to a value.

    Raises:
        UsageError: not that form, a key or a value given twice, or the key that --seeds is for.
    """
    axes: dict[str, list[Any]] = {}
    for option in options:
        key, equals, text = (part.strip() for part in option.partition("="))
        if not (equals and text and all(key.split("."))):
            raise UsageError(f"--grid: {option!r} is not KEY=VALUE,VALUE,… with a dotted key of the recipe")
        if key == "seed":
            raise UsageError("--grid seed: use --seeds, so that means are over seeds")
        if key in axes:
            raise UsageError(f"--grid: {key} is given twice; put all its values into one --grid")
        try:
            written = None if text.endswith(",") else parse(f"[{text}]", file="--grid")
        except RecipeError:
            written = None
        values = written.plain() if written else None
        if not isinstance(values, list) or not values:
            raise UsageError(f"--grid {key}: {text!r} has an empty value, or an open bracket or quote")
        axes[key] = values
        if len(set(map(_canonical, values))) < len(values):
            raise UsageError(f"--grid {key}: a value is given twice")
    return axes


def seeds(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,9}", part) for part in parts):
        raise UsageError(f"--seeds: {text!r} is not a list of whole numbers such as 0,1,2")
    numbers = tuple(map(int, parts))
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


def folder_name(values: Mapping[str, Any]) -> str:
    """beta=0.1,mu=-1: the last part of each key, or the whole key where two would look alike."""
    last = [key.rpartition(".")[2] for key in values]
    names = last if len(set(last)) == len(last) else values
    folder = ",".join(
        f"{_safe(name)}={_value(value)}" for name, value in zip(names, values.values(), strict=True)
    )
    return folder if len(folder) <= _LONGEST_NAME else f"{folder[:_LONGEST_NAME]}-{_hash(folder)}"


def _canonical(value: Any) -> str:
    """One text a value, however it was typed: 0.1 and 0.10 are the same cell, 1 and 1.0 too."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _value(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return "x".join(map(_canonical, value))
    return _safe(_canonical(value))


def _safe(text: str) -> str:
    """A part of a folder's name; a hash keeps apart what had to be changed."""
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "-", text)[:_LONGEST_VALUE]
    return plain if plain == text else f"{plain.strip('-')}-{_hash(text)}".lstrip("-")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
