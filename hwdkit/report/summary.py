"""Several models in one table: what each costs and reaches, the best student emphasised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hwdkit.report.render import fixed, percent, points
from hwdkit.report.table import Column, Table


def summary_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Show one line a model, with mIoU in points over the baseline's.

    Args:
        rows: mappings with `model` (str), `miou` (0..1) and, where known, `role` ("teacher", "student",
            "baseline", "compare"), `params` (count), `gmacs`, `seconds`.
    """
    baseline = next((row for row in rows if row.get("role") == "baseline"), None)
    scores = {i: _score(row) for i, row in enumerate(rows) if row.get("role") == "student"}
    scores = {index: score for index, score in scores.items() if not math.isnan(score)}
    return Table(
        [Column("model", left=True, whole=True), *("params M", "GMACs 512²", "mIoU %", "Δ base", "seconds")],
        [_cells(row, baseline) for row in rows],
        best=max(scores, key=lambda index: scores[index], default=None),
    )


def _cells(row: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> list[str]:
    compared = baseline is not None and row is not baseline and row.get("role") != "teacher"
    params = row.get("params")
    return [
        str(row["model"]),
        fixed(None if params is None else params / 1e6, 2),
        fixed(row.get("gmacs"), 2),
        percent(row.get("miou")),
        points(_score(row) - _score(baseline) if baseline is not None and compared else None),
        fixed(row.get("seconds"), 1),
    ]


def _score(row: Mapping[str, Any]) -> float:
    return math.nan if row.get("miou") is None else float(row["miou"])
