"""A comparison as files: JSON, CSV, Markdown and LaTeX.

Scores are in 0..1 in JSON and CSV, percent and points elsewhere. Names are from outside: each format escapes.
"""

from __future__ import annotations

import csv
import json
import math
from io import StringIO
from typing import Any

from hwdkit.measure.comparison import Comparison, Difference, per_hour
from hwdkit.measure.types import jsonable
from hwdkit.report.compare_tables import Grid, closing_notes, grids, said, sentence
from hwdkit.report.latex import latex_number, latex_text
from hwdkit.report.render import markdown_table, markdown_text, printable


def document(comparison: Comparison) -> dict[str, Any]:
    """Everything, with the words: JSON-able apart from NaN."""
    verdicts = [sentence(difference) for difference in comparison.differences]
    notes = closing_notes(comparison, per_class=False)
    return {**comparison.to_dict(), "verdicts": verdicts, "notes": notes}


def comparison_json(comparison: Comparison) -> str:
    """Write a comparison as one JSON document; null stands for what is unknown."""
    return json.dumps(jsonable(document(comparison)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def comparison_csv(comparison: Comparison, *, per_class: bool) -> str:
    """Write one line a method and method that it is compared with, and class; scores in 0..1.

    The class is empty in the lines of mIoU. A method that is compared with none has one line.
    """
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    costs = ["params", "gmacs", "step_seconds", "memory_mib", "training_hours", "miou_per_hour"]
    writer.writerow(
        ["method", "role", "seeds", "class", "iou", "std", "against", "delta", "low", "high", *costs]
    )
    for method in comparison.methods:
        drawn = comparison.draws[method.name]
        spent = [method.cost(key) for key in ("step_seconds", "memory_mib", "hours")]
        tail = [method.params, method.gmacs, *spent, per_hour(method, drawn)]
        own: list[Difference | None] = [d for d in comparison.differences if d.method == method.name]
        for difference in own or [None]:
            for place, name in enumerate(["", *(comparison.setting.classes if per_class else ())]):
                found = [math.nan, math.nan, math.nan]
                if difference is not None:
                    interval = [difference.miou, *difference.per_class][place]
                    found = [interval.delta, interval.low, interval.high]
                scores = [drawn.point[place], drawn.std[place]]
                against = difference.against if difference else ""
                head = [method.name, method.role, drawn.seeds, name, *map(_plain, scores), against]
                writer.writerow([*head, *map(_plain, found), *map(_plain, tail)])
    return text.getvalue()


def comparison_markdown(comparison: Comparison, *, per_class: bool) -> str:
    """Write the tables, the words and the notes as Markdown."""
    setting = comparison.setting
    parts = [f"### {markdown_text(setting.dataset)} {markdown_text(setting.split)}"]
    for grid in grids(comparison, per_class=per_class):
        parts += [f"**{markdown_text(grid.title)}**"] if grid.title else []
        head, *rows = ([markdown_text(cell) for cell in row] for row in (grid.headings, *grid.rows))
        parts.append(markdown_table(head, rows))
    lines = said(comparison, per_class=per_class)
    parts.append("\n".join(f"- {markdown_text(line)}" for line in lines))
    return "\n\n".join(parts) + "\n"


def comparison_latex(comparison: Comparison, *, per_class: bool) -> str:
    """Write the tables for LaTeX with booktabs; what is known of them stands above in comments."""
    lines = said(comparison, per_class=per_class)
    parts = ["\n".join(f"% {printable(line)}" for line in lines)]
    for grid in grids(comparison, per_class=per_class):
        parts.append((f"% {grid.title}\n" if grid.title else "") + _latex(grid))
    return "\n\n".join(parts) + "\n"


def _latex(grid: Grid) -> str:
    head = [latex_text(heading) for heading in grid.headings]
    body = [[latex_text(name), *map(latex_number, cells)] for name, *cells in grid.rows]
    first, *lines = [" & ".join(row) + r" \\" for row in (head, *body)]
    begin = [rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", first, r"\midrule"]
    return "\n".join([*begin, *lines, r"\bottomrule", r"\end{tabular}"])


def _plain(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return ""
    return str(value) if isinstance(value, int) else repr(float(value))
