"""Rows of results: ours beside the plain way, the goal and whether it is met; as a table and as JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from measurement import circumstances, keep, ratios

from hwdkit.measure.memory import MIB

PROMISED = 150
"""Goals of the losses are for ADE20K's classes; other numbers are measured beside them."""


@dataclass(frozen=True)
class Row:
    """One goal: what ours costs beside the plain way.

    Attributes:
        what: the hot spot and its shape.
        measure: what is counted, with its unit.
        ours, plain: the two; plain is None where nothing is compared.
        times: plain over ours, how many times less (or faster); the median of the rounds.
        spread: the least and the most of the rounds' ratios.
        floor: what cannot be gone below, and where that number is from.
        goal: in words; met: whether it is reached, None where there is none.
    """

    what: str
    measure: str
    ours: float
    plain: float | None = None
    times: float | None = None
    spread: tuple[float, float] | None = None
    floor: str = ""
    goal: str = ""
    met: bool | None = None


def time_row(
    what: str,
    times: Mapping[str, list[float]],
    *,
    ours: str = "ours",
    plain: str = "plain",
    least: float | None = None,
    floor: str = "",
) -> Row:
    """How many times faster than the plain way; `least` is the goal."""
    found = ratios(times, plain, ours)
    times_plain = statistics.median(found)
    return Row(
        what,
        "ms",
        ours=statistics.median(times[ours]),
        plain=statistics.median(times[plain]),
        times=times_plain,
        spread=(min(found), max(found)),
        floor=floor,
        goal=f"≥ {least:g} times" if least else "",
        met=times_plain >= least if least else None,
    )


def memory_row(what: str, ours: int, plain: int, *, least: float | None = None, floor: str = "") -> Row:
    """Peak memory, from bytes; `least` is how many times less the goal is."""
    return Row(
        what,
        "peak MiB",
        ours / MIB,
        plain / MIB,
        times=plain / ours,
        floor=floor,
        goal=f"≥ {least:g} times less" if least else "",
        met=plain / ours >= least if least else None,
    )


def most_row(
    what: str, measure: str, ours: float, plain: float | None, *, most: float | None, floor: str = ""
) -> Row:
    """A number that may not be larger than `most`."""
    times = plain / ours if plain is not None and ours else None
    goal, met = (f"≤ {most:g}", ours <= most) if most is not None else ("", None)
    return Row(what, measure, ours, plain, times, floor=floor, goal=goal, met=met)


def show(rows: Sequence[Row], arguments: argparse.Namespace, **more: Any) -> None:
    """Print goals as a table or as JSON, and keep them where --out says."""
    result = {**circumstances(arguments), **more, "rows": [dataclasses.asdict(row) for row in rows]}
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        print(markdown(rows))
        for name, value in more.items():
            print(f"{name}: {json.dumps(value)}")
    keep(result, arguments.out)


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| what | measure | ours | plain | plain / ours | goal | met | floor |",
        "|---|---|--:|--:|--:|---|---|---|",
    ]
    for row in rows:
        spread = f" ({row.spread[0]:.3g} to {row.spread[1]:.3g})" if row.spread else ""
        met = {True: "yes", False: "**no**", None: ""}[row.met]
        cells = (
            row.what,
            row.measure,
            number(row.ours),
            number(row.plain),
            (f"{row.times:.3g}" if row.times is not None else "") + spread,
            row.goal,
            met,
            row.floor,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
