"""The results of a sweep: mean and deviation over the seeds of every cell, as a table, JSON, CSV, Markdown.

Scores arrive in 0..1 and leave as percent in tables, unchanged in JSON and CSV. The figure is drawn in
`plots/sweep.py`; nothing is trained or read here.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from hwdkit.report.render import csv_text, fixed, markdown_section, percent, plain_value, points, spread
from hwdkit.report.table import Table

Metric = Literal["last", "best"]
GRID, BASELINE = "grid", "baseline"


@dataclass(frozen=True)
class SeedResult:
    """One run.

    Attributes:
        seed: of the run.
        status: finished, diverged, missing, or what stopped it.
        last, best: val mIoU after the last step, and the best of all evaluations; 0..1, None if unknown.
        seconds: spent in training steps, over all visits.
    """

    seed: int
    status: str
    last: float | None = None
    best: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class CellResult:
    """One setting: `values` by grid key, and its runs. `line` is grid, baseline or a reference's name."""

    name: str
    line: str
    values: dict[str, Any]
    runs: tuple[SeedResult, ...]

    def scores(self, metric: Metric) -> dict[int, float]:
        """Seed -> mIoU of the finished runs."""
        scores = {run.seed: getattr(run, metric) for run in self.runs if run.status == "finished"}
        return {seed: score for seed, score in scores.items() if score is not None and math.isfinite(score)}

    def mean(self, metric: Metric) -> float | None:
        scores = self.scores(metric)
        return statistics.fmean(scores.values()) if scores else None

    def std(self, metric: Metric) -> float | None:
        """Over the seeds, with n - 1; None for fewer than two."""
        scores = self.scores(metric)
        return statistics.stdev(scores.values()) if len(scores) > 1 else None

    @property
    def seconds(self) -> float | None:
        """Mean of the finished runs."""
        values = [run.seconds for run in self.runs if run.status == "finished" and run.seconds is not None]
        return statistics.fmean(values) if values else None

    def count(self, status: str) -> int:
        return sum(run.status == status for run in self.runs)


@dataclass(frozen=True)
class SweepReport:
    """All cells of a sweep of `recipe` over `keys`; `notes` say what the numbers do not."""

    recipe: str
    keys: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: tuple[CellResult, ...]
    notes: tuple[str, ...] = ()

    @property
    def baseline(self) -> CellResult | None:
        return next((cell for cell in self.cells if cell.line == BASELINE), None)

    def delta(self, cell: CellResult, metric: Metric) -> float | None:
        """mIoU over the baseline, on the seeds that both have finished."""
        if self.baseline is None or cell is self.baseline:
            return None
        scores, baseline = cell.scores(metric), self.baseline.scores(metric)
        shared = scores.keys() & baseline.keys()
        return statistics.fmean(scores[seed] - baseline[seed] for seed in shared) if shared else None

    def to_dict(self) -> dict[str, Any]:
        cells = []
        for cell in self.cells:
            scores = {
                metric: {
                    "mean": cell.mean(metric),
                    "std": cell.std(metric),
                    "delta_to_baseline": self.delta(cell, metric),
                }
                for metric in _METRICS
            }
            cells.append(
                {
                    "cell": cell.name,
                    "line": cell.line,
                    "values": cell.values,
                    "n": len(cell.scores("last")),
                    "miou": scores,
                    "seconds": cell.seconds,
                    "runs": [asdict(run) for run in cell.runs],
                }
            )
        facts = {"recipe": self.recipe, "keys": list(self.keys), "seeds": list(self.seeds)}
        return {**facts, "cells": cells, "notes": list(self.notes)}


_METRICS: tuple[Metric, ...] = ("last", "best")


def sweep_json(report: SweepReport) -> str:
    """One document; null is what is not known."""
    return json.dumps({"schema_version": 1, **report.to_dict()}, indent=2, allow_nan=False) + "\n"


def sweep_csv(report: SweepReport) -> str:
    """One line a cell at full precision, scores in 0..1; an empty field is not known."""
    seeds = [f"{metric}_miou_seed_{seed}" for metric in _METRICS for seed in report.seeds]
    derived = [f"{metric}_miou_{what}" for metric in _METRICS for what in ("mean", "std", "delta")]
    head = ["cell", "line", *report.keys, "n", "diverged", *derived, *seeds, "seconds"]
    rows = []
    for cell in report.cells:
        numbers: list[float | None] = [len(cell.scores("last")), cell.count("diverged")]
        for metric in _METRICS:
            numbers += [cell.mean(metric), cell.std(metric), report.delta(cell, metric)]
        numbers += [cell.scores(metric).get(seed) for metric in _METRICS for seed in report.seeds]
        values = [plain_value(cell.values[key]) if key in cell.values else "" for key in report.keys]
        rows.append([cell.name, cell.line, *values, *numbers, cell.seconds])
    return csv_text(head, rows)


def sweep_markdown(report: SweepReport, metric: Metric = "last") -> str:
    """The table of `sweep_table` as Markdown, with the report's notes."""
    table = sweep_table(report, metric)
    return markdown_section(report.recipe, [table.markdown()], [table.caption, *report.notes])


def sweep_table(report: SweepReport, metric: Metric = "last") -> Table:
    """One row a cell; the one with the highest mean is emphasised."""
    keys = short_keys(report.keys) or ["setting"]
    delta = ["Δ base"] if report.baseline else []
    seeds = ", ".join(map(str, report.seeds))
    how = " Δ: last mIoU over the baseline, on the seeds of both." if report.baseline else ""
    best = best_cell(report, metric)
    return Table(
        [*keys, "n", "last mIoU %", "best mIoU %", *delta, "last, each seed", "s"],
        [_cells(report, cell) for cell in report.cells],
        best=next((index for index, cell in enumerate(report.cells) if cell is best), None),
        caption=f"val mIoU, mean ± standard deviation (n - 1) over seeds {seeds}.{how} s: in training steps.",
    )


def best_cell(report: SweepReport, metric: Metric) -> CellResult | None:
    """The cell of the grid with the highest mean, or None."""
    means = [(cell.mean(metric), cell) for cell in report.cells if cell.line == GRID]
    scored = [(mean, cell) for mean, cell in means if mean is not None]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def short_keys(keys: Sequence[str]) -> list[str]:
    """losses.hwd.beta is beta, unless two keys would look alike."""
    last = [key.rpartition(".")[2] for key in keys]
    return last if len(set(last)) == len(last) else list(keys)


def _cells(report: SweepReport, cell: CellResult) -> list[str]:
    names = [plain_value(cell.values[key]) for key in report.keys] if cell.line == GRID else [cell.line]
    names = names or [cell.name]
    names += [""] * (len(report.keys) - len(names))
    scores = [spread(cell.mean(metric), cell.std(metric)) for metric in _METRICS]
    delta = [points(report.delta(cell, "last"))] if report.baseline else []
    each = "  ".join(percent(run.last) if run.status == "finished" else run.status for run in cell.runs)
    return [*names, str(len(cell.scores("last"))), *scores, *delta, each, fixed(cell.seconds, 0)]
