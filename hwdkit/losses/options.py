"""Refusing options of losses that are out of their range, in the same words everywhere.

A recipe's options have been checked before, by `hwdkit.recipe.losses`; this is for losses made in Python.
Each function takes options by name and raises a ValueError that names the first bad one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args


def require_positive(**options: float) -> None:
    _require(options, lambda value: 0 < value < math.inf, "positive")


def require_not_negative(**options: float) -> None:
    _require(options, lambda value: 0 <= value < math.inf, "0 or more")


def require_below_one(**options: float) -> None:
    _require(options, lambda value: 0 <= value < 1, "at least 0 and less than 1")


def require_whole(**options: int) -> None:
    _require(options, lambda value: isinstance(value, int) and value >= 1, "a whole number, 1 or more")


def require_choice(choices: Any, **options: str) -> None:
    """`choices` is a Literal type."""
    *most, last = get_args(choices)
    _require(options, lambda value: value in (*most, last), f"{', '.join(most)} or {last}")


def _require(options: dict[str, Any], allows: Callable[[Any], bool], range_: str) -> None:
    for name, value in options.items():
        if not allows(value):
            raise ValueError(f"{name} must be {range_}, not {value!r}")
