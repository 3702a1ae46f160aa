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
    """Hold every bound against every row of a profile.

    Returns:
        JSON-able: {"budget", "network", "height", "width", "limit", "measured", "over", "met"}, where `over`
        is measured - limit, in parameters, multiply-adds or milliseconds.
    """
    verdicts = []
    for row in rows:
        latency = row["latency"]
        measured = {
            "max_params": (budgets.params, row["params_deployed"]),
            "max_macs": (budgets.macs, row["macs_deployed"]["true"]),
            "max_latency_ms": (budgets.latency_ms, latency and latency["median_ms"]),
        }
        verdicts += [
            {
                "budget": budget,
                **{key: row[key] for key in ("network", "height", "width")},
                "limit": limit,
                "measured": value,
                "over": value - limit,
                "met": value <= limit,
            }
            for budget, (limit, value) in measured.items()
            if limit is not None
        ]
    return verdicts


def gate(verdicts: Iterable[Mapping[str, Any]]) -> GateError | None:
    """Return the GateError (exit 9) to raise when a bound is missed, naming every one."""
    missed = [sentence(verdict) for verdict in verdicts if not verdict["met"]]
    if not missed:
        return None
    return GateError(missed[0] if len(missed) == 1 else "budgets missed:\n  " + "\n  ".join(missed))


def sentence(verdict: Mapping[str, Any]) -> str:
    """Say one verdict: what was measured, and how far above or below the bound it is."""
    option, unit, what, digits = {
        "max_params": ("--max-params", 1e6, "M deployed parameters", 3),
        "max_macs": ("--max-gmacs", 1e9, "GMACs deployed", 3),
        "max_latency_ms": ("--max-latency-ms", 1.0, "ms median", 2),
    }[verdict["budget"]]
    limit, measured, over = (verdict[key] / unit for key in ("limit", "measured", "over"))
    suffix = {"max_params": "M", "max_macs": "", "max_latency_ms": ""}[verdict["budget"]]
    side = "over" if over > 0 else "under"
    return (
        f"{verdict['network']} at {verdict['height']}x{verdict['width']}: {measured:.{digits}f} {what}, "
        f"{abs(over):.3g} ({abs(over) / limit:.1%}) {side} {option} {limit:g}{suffix}"
    )
