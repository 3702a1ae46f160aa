"""Reports as text: tables for a terminal, JSON and CSV for programs, Markdown for a page.

Nothing is measured here. Scores arrive in 0..1 and leave as percent in tables, unchanged in JSON and CSV.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from hwdkit.report.palette import hex_colour
from hwdkit.report.types import ClassRow, Order, PerClassReport

UNKNOWN = "–"
_DELTA = "Δ base"


def percent(value: float | None) -> str:
    """Write a 0..1 score as percent with two decimals; a dash when it is unknown."""
    return UNKNOWN if _unknown(value) else f"{100 * float(value or 0):.2f}"


def points(value: float | None) -> str:
    """Write a difference of 0..1 scores in percentage points, always with its sign."""
    if _unknown(value):
        return UNKNOWN
    text = f"{100 * float(value or 0):+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text.replace("-", "−")


def number(value: float | None, digits: int = 3) -> str:
    """Write a positive quantity of unknown magnitude with so many significant digits."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    scientific = f"{value:.{digits - 1}e}"
    exponent = int(scientific.partition("e")[2])  # of the rounded value: 9.999 becomes 10.0
    return f"{value:.{max(0, digits - 1 - exponent)}f}" if -3 <= exponent < 5 else scientific


def per_class_table(report: PerClassReport, sort: Order | None = None, *, width: int | None = None) -> Table:
    """Lay a per-class report out for a terminal.

    Args:
        report: what to show.
        sort: `name` upwards, `iou`, `gap`, `share` or `td-ntd` downwards; None keeps the class order.
        width: columns of the terminal. Where they do not suffice, TD, NTD, weight, share and TD/NTD are
            left out in this order and the caption says so; None shows everything.

    Returns:
        One row a class and a last row of means; the compared student's column is bold.
    """
    rows = report.ordered(sort)
    columns = dict(
        zip(_headings(report), zip(*(_cells(report, row) for row in rows), strict=True), strict=True)
    )
    totals = dict(zip(columns, _totals(report), strict=True))
    omitted = _too_wide(columns, rows, width)
    caption = _caption(report) + (f" Too narrow for: {', '.join(omitted)}." if omitted else "")
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        show_footer=True,
        title=Text(printable(f"{report.dataset} {report.split}: IoU per class, %"), style="bold"),
        title_justify="left",
        caption=Text(printable(caption), style="dim"),
        caption_justify="left",
    )
    table.add_column("class", footer="mean", no_wrap=True, min_width=8)
    shown = [heading for heading in columns if heading not in omitted]
    for heading in shown:
        style = "bold" if heading == printable(report.pair[0]) else ""
        footer = Text(totals[heading])
        table.add_column(Text(heading), footer=footer, justify="right", no_wrap=True, style=style)
    for index, row in enumerate(rows):
        name = Text.assemble(("■ ", hex_colour(row.colour)), printable(row.name))
        texts = {heading: columns[heading][index] for heading in shown}
        table.add_row(
            name, *(Text(cell, style=_sign_style(heading, cell)) for heading, cell in texts.items())
        )
    return table


def per_class_json(report: PerClassReport) -> str:
    """Write a report as one JSON document; null stands for what could not be measured."""
    return json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)


def per_class_csv(report: PerClassReport) -> str:
    """Write one line a class at full precision, scores in 0..1; an empty cell is unknown."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    scores = [f"iou_{model.name}" for model in report.models]
    derived = ["delta_to_baseline", "gap_to_teacher", "td", "ntd", "td_ntd_ratio", "hwd_weight"]
    writer.writerow(["class", "colour", "share", *scores, *derived])
    for row in report.rows:
        values = [row.share, *(row.iou.get(model.name) for model in report.models)]
        values += [report.delta(row), report.gap(row), row.td, row.ntd, row.ratio, row.weight]
        cells = ["" if value is None or not math.isfinite(value) else repr(float(value)) for value in values]
        writer.writerow([row.name, hex_colour(row.colour), *cells])
    return text.getvalue()


def per_class_markdown(report: PerClassReport, sort: Order | None = None) -> str:
    """Write the table of `per_class_table` as Markdown."""
    lines = [[row.name, *_cells(report, row)] for row in report.ordered(sort)]
    table = _markdown(["class", *_headings(report)], [*lines, ["**mean**", *_totals(report)]], raw_last=True)
    notes = "".join(f"\n- {_markdown_text(note)}" for note in (_caption(report), *report.notes))
    return f"### {_markdown_text(report.dataset)} {_markdown_text(report.split)}\n\n{table}{notes}\n"


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
        cells = [_markdown_text(cell) for cell in _summary_cells(row, rows)]
        lines.append([f"**{cell}**" if index == best and cell != UNKNOWN else cell for cell in cells])
    return _markdown(list(_SUMMARY_HEADINGS), lines, raw=True) + "\n"


def printable(text: str) -> str:
    """Replace control characters, so that a name from a file cannot steer the terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


_SUMMARY_HEADINGS = ("model", "params M", "GMACs 512²", "mIoU %", _DELTA, "seconds")


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


def _headings(report: PerClassReport) -> list[str]:
    names = [printable(model.name) for model in report.models]
    return ["share %", *names, _DELTA, "gap", "TD", "NTD", "TD/NTD", "weight"]


def _cells(report: PerClassReport, row: ClassRow) -> list[str]:
    scores = [percent(row.iou.get(model.name)) for model in report.models]
    gap = report.gap(row)
    divergence = [number(row.td), number(row.ntd), number(row.ratio, 4), number(row.weight)]
    return [percent(row.share), *scores, points(report.delta(row)), points(gap), *divergence]


def _totals(report: PerClassReport) -> list[str]:
    student, teacher = (report.model(name) for name in report.pair)
    gains = UNKNOWN if not (student and report.baseline) else points(student.miou - report.baseline.miou)
    gap = UNKNOWN if not (student and teacher) else points(teacher.miou - student.miou)
    return ["", *(percent(model.miou) for model in report.models), gains, gap, "", "", "", ""]


def _caption(report: PerClassReport) -> str:
    student, teacher = report.pair
    return (
        f"{report.images} images; absent classes: {report.absent}. Δ: {student} over the baseline; "
        f"gap: {teacher} over {student}; TD, NTD between their {report.divergence_on} maps, "
        f"tau = {report.temperature:g}."
    )


def _markdown(head: list[str], lines: list[list[str]], *, raw: bool = False, raw_last: bool = False) -> str:
    rows = [["---"] + ["---:"] * (len(head) - 1)]
    for index, line in enumerate(lines):
        written = raw or (raw_last and index == len(lines) - 1)
        rows.append(line if written else [_markdown_text(cell) for cell in line])
    return "\n".join("| " + " | ".join(row) + " |" for row in [[_markdown_text(h) for h in head], *rows])


def _markdown_text(text: str) -> str:
    plain = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in plain)


def _too_wide(columns: Mapping[str, Sequence[str]], rows: Sequence[ClassRow], width: int | None) -> list[str]:
    """Choose what to leave out: a cut-off number would be worse than none."""
    padding = 2  # what box.SIMPLE_HEAD leaves between two columns once padding collapses
    needed = 4 + max((len(row.name) for row in rows), default=8)
    needed += sum(padding + max(map(len, (heading, *cells))) for heading, cells in columns.items())
    omitted: list[str] = []
    for heading in ("TD", "NTD", "weight", "share %", "TD/NTD"):
        if width is None or needed <= width:
            break
        needed -= padding + max(map(len, (heading, *columns[heading])))
        omitted.append(heading)
    return omitted


def _sign_style(heading: str, cell: str) -> str:
    return {"+": "green", "−": "red"}.get(cell[:1], "") if heading == _DELTA else ""


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)


def _unknown(value: float | None) -> bool:
    return value is None or not math.isfinite(value)
