"""Bounds on what a network may cost: 14M parameters, 70 GMACs, 20 ms. No torch here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hwdkit.errors import GateError, UsageError

SUFFIXES = {"K": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True)
class Budgets:
    """What a network may cost at most; None = no bound.

    Attributes:
        params: deployed parameters: without the auxiliary head.
        macs: multiply-adds of one image that are executed, deployed.
        latency_ms: median of a forward pass of the deployed network.
    """

    params: float | None = None
    macs: float | None = None
    latency_ms: float | None = None


def parse(params: str | None, gmacs: str | None, latency_ms: float | None) -> Budgets:
    """Read --max-params 14M, --max-gmacs 70 (a bare number means G) and --max-latency-ms 20.

    Raises:
        UsageError: no positive number, or a suffix that is not K, M or G.
    """
    if latency_ms is not None and not (math.isfinite(latency_ms) and latency_ms > 0):
        raise UsageError(f"--max-latency-ms: {latency_ms:g} is not a positive number of milliseconds")
    return Budgets(
        params=None if params is None else _number("--max-params", params, bare=1.0),
        macs=None if gmacs is None else _number("--max-gmacs", gmacs, bare=SUFFIXES["G"]),
        latency_ms=latency_ms,
    )


def _number(option: str, text: str, *, bare: float) -> float:
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)([KMG]?)", text.strip().upper())
    value = float(match[1]) * SUFFIXES.get(match[2], bare) if match else 0.0
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{option}: {text!r} is not a positive number such as 14M (suffixes K, M and G)")
    return value


def verdicts(budgets: Budgets, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compare every row of a profile with every bound.

    Returns:
        JSON-able: {"budget", "network", "height", "width", "limit", "measured", "over", "met"}, where `over`
        is measured - limit, in parameters, multiply-adds or milliseconds.
    """
    bounds = {
        "max_params": (budgets.params, lambda row: row["params_deployed"]),
        "max_macs": (budgets.macs, lambda row: row["macs_deployed"]["true"]),
        "max_latency_ms": (budgets.latency_ms, lambda row: row["latency"]["median_ms"]),
    }
    return [
        {
            "budget": budget,
            **{key: row[key] for key in ("network", "height", "width")},
            "limit": limit,
            "measured": measured(row),
            "over": measured(row) - limit,
            "met": measured(row) <= limit,
        }
        for row in rows
        for budget, (limit, measured) in bounds.items()
        if limit is not None
    ]


def gate(verdicts: Iterable[Mapping[str, Any]]) -> GateError | None:
    """The GateError (exit 9) of all missed bounds, or None."""
    missed = [sentence(verdict) for verdict in verdicts if not verdict["met"]]
    if not missed:
        return None
    return GateError(missed[0] if len(missed) == 1 else "budgets missed:\n  " + "\n  ".join(missed))


def sentence(verdict: Mapping[str, Any]) -> str:
    """One verdict: what was measured, and how far above or below the bound it is."""
    option, unit, what, digits, suffix = {
        "max_params": ("--max-params", 1e6, "M deployed parameters", 3, "M"),
        "max_macs": ("--max-gmacs", 1e9, "GMACs deployed", 3, ""),
        "max_latency_ms": ("--max-latency-ms", 1.0, "ms median", 2, ""),
    }[verdict["budget"]]
    limit, measured, over = (verdict[key] / unit for key in ("limit", "measured", "over"))
    side = "over" if over > 0 else "under"
    return (
        f"{verdict['network']} at {verdict['height']}x{verdict['width']}: {measured:.{digits}f} {what}, "
        f"{abs(over):.3g} ({abs(over) / limit:.1%}) {side} {option} {limit:g}{suffix}"
    )
