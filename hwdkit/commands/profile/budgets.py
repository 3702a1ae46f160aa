"""Bounds on what a network may cost: 14M parameters, 70 GMACs, 20 ms. No torch here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from hwdkit.errors import GateError, UsageError

SUFFIXES = {"K": 1e3, "M": 1e6, "G": 1e9}


class Budget(NamedTuple):
    """One kind of bound: where it is measured in a row of a profile, and how it is said."""

    option: str
    measured: Callable[[Mapping[str, Any]], float]
    unit: float
    suffix: str
    text: str
    digits: int


BUDGETS = {
    "max_params": Budget(
        "--max-params", lambda row: row["params_deployed"], 1e6, "M", "M deployed parameters", 3
    ),
    "max_macs": Budget("--max-gmacs", lambda row: row["macs_deployed"]["true"], 1e9, "", "GMACs deployed", 3),
    "max_latency_ms": Budget(
        "--max-latency-ms", lambda row: row["latency"]["median_ms"], 1.0, "", "ms median", 2
    ),
}


def parse(params: str | None, gmacs: str | None, latency_ms: float | None) -> dict[str, float]:
    """Read --max-params 14M, --max-gmacs 70 (a bare number means G) and --max-latency-ms 20.

    Returns:
        Key of BUDGETS -> limit in parameters, multiply-adds or milliseconds, of those that are given.

    Raises:
        UsageError: no positive number, or a suffix that is not K, M or G.
    """
    if latency_ms is not None and not (math.isfinite(latency_ms) and latency_ms > 0):
        raise UsageError(f"--max-latency-ms: {latency_ms:g} is not a positive number of milliseconds")
    limits = {
        "max_params": _number("--max-params", params, bare=1.0),
        "max_macs": _number("--max-gmacs", gmacs, bare=SUFFIXES["G"]),
        "max_latency_ms": latency_ms,
    }
    return {budget: limit for budget, limit in limits.items() if limit is not None}


def _number(option: str, text: str | None, *, bare: float) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)([KMG]?)", text.strip().upper())
    value = float(match[1]) * SUFFIXES.get(match[2], bare) if match else 0.0
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{option}: {text!r} is not a positive number such as 14M (suffixes K, M and G)")
    return value


def verdicts(limits: Mapping[str, float], rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compare every row of a profile with every limit.

    Returns:
        JSON-able: {"budget", "network", "height", "width", "limit", "measured", "over", "met"}, where `over`
        is measured - limit, in parameters, multiply-adds or milliseconds.
    """
    verdicts = []
    for row in rows:
        for budget, limit in limits.items():
            measured = BUDGETS[budget].measured(row)
            where = {key: row[key] for key in ("network", "height", "width")}
            amounts = {"limit": limit, "measured": measured, "over": measured - limit}
            verdicts.append({"budget": budget, **where, **amounts, "met": measured <= limit})
    return verdicts


def gate(verdicts: Iterable[Mapping[str, Any]]) -> GateError | None:
    """The GateError (exit 9) of all missed bounds, or None."""
    missed = [sentence(verdict) for verdict in verdicts if not verdict["met"]]
    if not missed:
        return None
    return GateError(missed[0] if len(missed) == 1 else "budgets missed:\n  " + "\n  ".join(missed))


def sentence(verdict: Mapping[str, Any]) -> str:
    """One verdict: what was measured, and how far above or below the bound it is."""
    budget = BUDGETS[verdict["budget"]]
    limit, measured, over = (verdict[key] / budget.unit for key in ("limit", "measured", "over"))
    return (
        f"{verdict['network']} at {verdict['height']}x{verdict['width']}: {measured:.{budget.digits}f} "
        f"{budget.text}, {abs(over):.3g} ({abs(over) / limit:.1%}) {'over' if over > 0 else 'under'} "
        f"{budget.option} {limit:g}{budget.suffix}"
    )
