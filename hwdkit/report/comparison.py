"""A comparison as tables, JSON, CSV, Markdown and LaTeX; its words are those of `verdicts.py`.

Scores are in 0..1 in JSON and CSV, percent and points elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rich.console import Group
from rich.text import Text

from hwdkit.measure.comparison import Comparison, Difference, Method, per_hour
from hwdkit.measure.types import jsonable
from hwdkit.report.render import (
    UNKNOWN,
    csv_text,
    fixed,
    markdown_section,
    markdown_text,
    number,
    percent,
    points,
    printable,
    spread,
)
from hwdkit.report.table import Table
from hwdkit.report.verdicts import brackets, caption, closing_notes, said, sentence


def comparison_tables(comparison: Comparison, *, per_class: bool) -> Iterator[Table]:
    """The papers' table, what training cost, and one table a difference with its classes."""
    interval = f"{comparison.setting.confidence:g} %"
    against = ["Δ base", interval] if comparison.baseline else []
    yield Table(
        ["method", "seeds", "params M", "GMACs", "mIoU %", *against],
        [_row(comparison, method) for method in comparison.methods],
    )
    yield Table(
        ["trained", "s/step", "MiB/step", "hours", "mIoU %/hour"],
        [_cost_row(comparison, method) for method in comparison.methods],
    )
    for each in comparison.differences if per_class else ():
        yield Table(
            ["class", "share %", "images", each.method, each.against, "Δ", interval],
            _class_rows(comparison, each),
            title=f"{each.method} − {each.against}",
        )


def comparison_page(comparison: Comparison, *, per_class: bool) -> Group:
    """Lay a comparison out for a terminal: methods, costs, classes where asked for, words, notes."""
    verdicts = [Text(sentence(difference)) for difference in comparison.differences]
    notes = [caption(comparison), *closing_notes(comparison, per_class=per_class)]
    tables = comparison_tables(comparison, per_class=per_class)
    return Group(*tables, *verdicts, "", *(Text(note, style="dim") for note in notes))


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
    head = ["method", "role", "seeds", "class", "iou", "std", "against", "delta", "low", "high"]
    head += ["params", "gmacs", "step_seconds", "memory_mib", "training_hours", "miou_per_hour"]
    rows = []
    for method in comparison.methods:
        drawn = comparison.draws[method.name]
        costs = [method.params, method.gmacs, *_costs(comparison, method)]
        pairs: list[Difference | None] = [d for d in comparison.differences if d.method == method.name]
        for pair in pairs or [None]:
            for index, name in enumerate(["", *(comparison.setting.classes if per_class else ())]):
                interval = [pair.miou, *pair.per_class][index] if pair else None
                ends = [interval.delta, interval.low, interval.high] if interval else [None] * 3
                scores = [drawn.point[index], drawn.std[index]]
                about = [method.name, method.role, drawn.seeds, name]
                rows.append([*about, *scores, pair.against if pair else "", *ends, *costs])
    return csv_text(head, rows)


def comparison_markdown(comparison: Comparison, *, per_class: bool) -> str:
    """Write the tables, the words and the notes as Markdown."""
    parts = []
    for table in comparison_tables(comparison, per_class=per_class):
        parts += [f"**{markdown_text(table.title)}**"] if table.title else []
        parts.append(table.markdown())
    title = f"{comparison.setting.dataset} {comparison.setting.split}"
    return markdown_section(title, parts, said(comparison, per_class=per_class))


def comparison_latex(comparison: Comparison, *, per_class: bool) -> str:
    """Write the tables for LaTeX with booktabs; what is known of them stands above in comments."""
    parts = ["\n".join(f"% {printable(line)}" for line in said(comparison, per_class=per_class))]
    for table in comparison_tables(comparison, per_class=per_class):
        parts.append((f"% {printable(table.title)}\n" if table.title else "") + table.latex())
    return "\n\n".join(parts) + "\n"


def _row(comparison: Comparison, method: Method) -> list[str]:
    drawn = comparison.draws[method.name]
    cells = [method.name, str(drawn.seeds), fixed(method.params / 1e6, 2), fixed(method.gmacs, 2)]
    cells.append(spread(drawn.point[0], drawn.std[0]))
    if comparison.baseline:
        pair = comparison.to_baseline(method)
        cells += [points(pair.miou.delta), brackets(pair.miou)] if pair else [UNKNOWN, UNKNOWN]
    return cells


def _cost_row(comparison: Comparison, method: Method) -> list[str]:
    *costs, rate = _costs(comparison, method)
    values = [*costs, None if rate is None else 100 * rate]
    return [method.name, *("unknown" if value is None else number(value) for value in values)]


def _costs(comparison: Comparison, method: Method) -> list[float | None]:
    """Of training: seconds and MiB a step, hours, mIoU an hour."""
    costs = [method.cost(key) for key in ("step_seconds", "memory_mib", "hours")]
    return [*costs, per_hour(method, comparison.draws[method.name])]


def _class_rows(comparison: Comparison, difference: Difference) -> Iterator[list[str]]:
    """One line a class; a star marks a difference beyond noise."""
    both = [comparison.draws[name] for name in (difference.method, difference.against)]
    for index, name in enumerate(comparison.setting.classes):
        interval = difference.per_class[index]
        star = " *" if interval.beyond_noise else ""
        yield [
            name,
            percent(comparison.share[index]),
            str(interval.images),
            *(spread(each.point[1 + index], each.std[1 + index]) for each in both),
            points(interval.delta),
            brackets(interval) + star,
        ]
