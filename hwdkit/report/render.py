"""Reports as text: how numbers and names are written, JSON and CSV of a report, and summaries of models.

Nothing is measured here. Scores arrive in 0..1 and leave as percent in tables, unchanged in JSON and CSV. The
tables of a per-class report are in `tables.py` and `latex.py`.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Collection, Mapping, Sequence
from io import StringIO
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from hwdkit.measure.types import ClassDivergence, PerClassReport
from hwdkit.report.palette import hex_colour

UNKNOWN = "–"


def percent(value: float | None) -> str:
    """Write a 0..1 score as percent with two decimals; a dash when it is unknown."""
    return UNKNOWN if _unknown(value) else f"{100 * float(value or 0):.2f}"


def points(value: float | None, digits: int = 2) -> str:
    """Write a difference of 0..1 scores in percentage points, always with its sign."""
    if _unknown(value):
        return UNKNOWN
    text = f"{100 * float(value or 0):+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def number(value: float | None, digits: int = 3) -> str:
    """Write a positive quantity of unknown magnitude with so many significant digits."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    scientific = f"{value:.{digits - 1}e}"
    exponent = int(scientific.partition("e")[2])  # of the rounded value: 9.999 becomes 10.0
    return f"{value:.{max(0, digits - 1 - exponent)}f}" if -3 <= exponent < 5 else scientific


def per_class_json(report: PerClassReport) -> str:
    """Write a report as one JSON document; null stands for what could not be measured."""
    return json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)


def per_class_csv(report: PerClassReport, only: Collection[str] = ()) -> str:
    """Write one line a class in class order, at full precision, scores in 0..1; an empty cell is unknown.

    After the columns of the compared pair come those of every student, with its name behind an underscore.
    """
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    scores = [f"iou_{model.name}" for model in report.models]
    derived = ["delta_to_baseline", "gap_to_teacher", *_DIVERGENCE]
    every = [f"{column}_{name}" for name in report.students() for column in (*_DIVERGENCE, "ratio_images")]
    writer.writerow(["class", "colour", "share", *scores, *derived, *every])
    for row in report.ordered(only=only):
        values = [row.share, *(row.iou.get(model.name) for model in report.models)]
        values += [report.delta(row), report.gap(row)]
        values += _divergence(report.divergence_of(row, report.pair[0]))
        cells = [_exact(value) for value in values]
        for name in report.students():
            one = report.divergence_of(row, name)
            cells += [*map(_exact, _divergence(one)), str(one.images)]
        writer.writerow([row.name, hex_colour(row.colour), *cells])
    return text.getvalue()


def summary_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Show one line a model, the best student emphasised.

    Args:
        rows: mappings with `model` (str), `miou` (0..1) and, where known, `role` ("teacher", "student",
            "baseline", "compare"), `params` (count), `gmacs`, `seconds`.

    Returns:
        Columns model, params M, GMACs, mIoU %, points over the baseline, seconds.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("model", no_wrap=True)
    for heading in _SUMMARY_HEADINGS[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    best = _best_student(rows)
    for index, row in enumerate(rows):
        name, *cells = _summary_cells(row, rows)
        marked = Text.assemble(("› " if index == best else "  "), printable(name))
        table.add_row(marked, *map(Text, cells), style="bold green" if index == best else "")
    return table


def summary_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the table of `summary_table` as Markdown, the best student in bold."""
    best = _best_student(rows)
    lines = []
    for index, row in enumerate(rows):
        cells = [markdown_text(cell) for cell in _summary_cells(row, rows)]
        lines.append([f"**{cell}**" if index == best and cell != UNKNOWN else cell for cell in cells])
    return markdown_table(_SUMMARY_HEADINGS, lines) + "\n"


def printable(text: str) -> str:
    """Replace control characters, so that a name from a file cannot steer the terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Put cells that are Markdown already into a table; the first column is left-aligned."""
    rows = [head, ["---"] + ["---:"] * (len(head) - 1), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def markdown_text(text: str) -> str:
    """Escape what Markdown or HTML would take for markup."""
    plain = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in plain)


_DIVERGENCE = ("td", "ntd", "td_ntd_ratio", "td_ntd_image_ratio", "hwd_weight")
_SUMMARY_HEADINGS = ("model", "params M", "GMACs 512²", "mIoU %", "Δ base", "seconds")


def _summary_cells(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    baseline = next((other for other in rows if other.get("role") == "baseline"), None)
    delta = None
    if baseline is not None and row is not baseline and row.get("role") != "teacher":
        delta = _float(row.get("miou")) - _float(baseline.get("miou"))
    params, seconds = _float(row.get("params")), _float(row.get("seconds"))
    return [
        str(row["model"]),
        UNKNOWN if math.isnan(params) else f"{params / 1e6:.2f}",
        UNKNOWN if _unknown(row.get("gmacs")) else f"{row['gmacs']:.2f}",
        percent(row.get("miou")),
        points(delta),
        UNKNOWN if math.isnan(seconds) else f"{seconds:.1f}",
    ]


def _best_student(rows: Sequence[Mapping[str, Any]]) -> int | None:
    scores = {i: _float(row.get("miou")) for i, row in enumerate(rows) if row.get("role") == "student"}
    known = {index: score for index, score in scores.items() if not math.isnan(score)}
    return max(known, key=lambda index: known[index]) if known else None


def _divergence(one: ClassDivergence) -> list[float | None]:
    return [one.td, one.ntd, one.ratio, one.image_ratio, one.weight]


def _exact(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else repr(float(value))


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)


def _unknown(value: float | None) -> bool:
    return value is None or not math.isfinite(value)
