"""JSON from files that others made: no deep nesting and no huge integers, or a ValueError."""

from __future__ import annotations

import json
from typing import Any

DEEPEST = 64
"""Levels of lists and objects; a description has five. Python's stack ends at some hundreds."""


def loads(text: str | bytes) -> Any:
    """Read JSON that may be hostile.

    Raises:
        ValueError: no JSON, nested deeper than DEEPEST, or an integer of more than 64 bits.
    """
    try:
        value = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(DEEPEST):
        mappings = [inner for outer in level if isinstance(outer, dict) for inner in outer.values()]
        level = mappings + [inner for outer in level if isinstance(outer, list) for inner in outer]
    if level:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels")
    return value


def _integer(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) >= 2**64:  # 2**64 has 20 digits
        raise ValueError("it holds an integer of more than 64 bits")
    return int(digits)
