"""A comparison as files: JSON, CSV, Markdown and LaTeX.

Scores are in 0..1 in JSON and CSV, percent and points elsewhere. Names are from outside: each format escapes.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any

from hwdkit.report.compare_tables import Grid, closing_notes, grids, said, sentence
from hwdkit.report.comparison import Comparison, Difference, per_hour
from hwdkit.report.render import printable


def document(comparison: Comparison) -> dict[str, Any]:
    """Everything, with the words: JSON-able apart from NaN."""
    verdicts = [sentence(comparison, difference) for difference in comparison.differences]
    notes = closing_notes(comparison, per_class=False)
    return {**comparison.to_dict(), "verdicts": verdicts, "notes": notes}


def comparison_json(comparison: Comparison) -> str:
    """Write a comparison as one JSON document; null stands for what is unknown."""
    return json.dumps(_finite(document(comparison)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


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
    parts = [f"### {_markdown_text(setting.dataset)} {_markdown_text(setting.split)}"]
    for grid in grids(comparison, per_class=per_class):
        parts += [f"**{_markdown_text(grid.title)}**"] if grid.title else []
        parts.append(_markdown(grid))
    lines = said(comparison, per_class=per_class)
    parts.append("\n".join(f"- {_markdown_text(line)}" for line in lines))
    return "\n\n".join(parts) + "\n"


def comparison_latex(comparison: Comparison, *, per_class: bool) -> str:
    """Write the tables for LaTeX with booktabs; what is known of them stands above in comments."""
    lines = said(comparison, per_class=per_class)
    parts = ["\n".join(f"% {printable(line)}" for line in lines)]
    for grid in grids(comparison, per_class=per_class):
        parts.append((f"% {grid.title}\n" if grid.title else "") + _latex(grid))
    return "\n\n".join(parts) + "\n"


def _markdown(grid: Grid) -> str:
    headings, rows = grid.headings, grid.rows
    marks = ["---"] + ["---:"] * (len(headings) - 1)
    lines = [_escaped(headings, _markdown_text), marks, *(_escaped(row, _markdown_text) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _latex(grid: Grid) -> str:
    head, *body = (" & ".join(_escaped(row, _latex_text)) + r" \\" for row in (grid.headings, *grid.rows))
    columns = "l" + "r" * (len(grid.headings) - 1)
    begin = rf"\begin{{tabular}}{{{columns}}}"
    return "\n".join([begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"])


def _escaped(cells: Sequence[str], escape: Callable[[str], str]) -> list[str]:
    return [escape(cell) for cell in cells]


def _markdown_text(text: str) -> str:
    plain = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in plain)


_LATEX = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "[": "{[}",  # after \\ a bracket would be an option
    "−": "$-$",
    "–": "--",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
}


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in printable(text))


def _plain(value: float | None) -> str:
    return (
        ""
        if value is None or not math.isfinite(value)
        else repr(value if isinstance(value, int) else float(value))
    )


def _finite(value: Any) -> Any:
    """NaN and infinity are no JSON: null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
