"""A per-class report as LaTeX tables with booktabs' rules, for a paper."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection

from hwdkit.measure.types import Order, PerClassReport
from hwdkit.report.render import UNKNOWN, printable
from hwdkit.report.sheet import Column, Sheet, class_sheet, divergence_sheet

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "Δ": r"$\Delta$",
    "τ": r"$\tau$",
    "−": "$-$",
    "±": r"$\pm$",
    **{letter: f"{{{letter}}}" for letter in "[]*"},  # behind a line's end they would be its options
    "\ufffd": "?",  # what `printable` puts for control characters: no font of pdflatex has it
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def per_class_latex(report: PerClassReport, sort: Order | None = None, *, only: Collection[str] = ()) -> str:
    """Write the report as one or two `table` environments, to be read in by `\\input`.

    The first holds a row a class with the IoU of every model; the second, where several students were
    measured, the TD, NTD and TD/NTD of each (HWD paper, Table I).
    """
    tables = [_table(class_sheet(report, sort, only), "per-class")]
    second = divergence_sheet(report, sort, only)
    if second is not None:
        tables.append(_table(second, "td-ntd"))
    notes = [f"% {printable(note)}\n" for note in report.notes]
    return "% needs \\usepackage{booktabs}\n" + "".join(notes) + "\n" + "\n".join(tables)


def latex_text(text: str) -> str:
    """Escape what TeX would take for a command; other letters stay, accents need UTF-8 (the default)."""
    return "".join(_ESCAPED.get(letter, letter) for letter in printable(text))


def latex_number(text: str) -> str:
    """A cell of numbers: a dash for the unknown, signs as in a formula, and powers of ten."""
    if text == UNKNOWN:
        return "--"
    scientific = re.fullmatch(r"(\d+(?:\.\d+)?)e([+-]\d+)", text)
    if scientific:
        return rf"${scientific[1]} \times 10^{{{int(scientific[2])}}}$"
    return latex_text(text).replace("+", "$+$")


def _table(sheet: Sheet, label: str) -> str:
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex_text(sheet.title)}. {latex_text(sheet.caption)}}}",
        rf"  \label{{tab:{label}}}",
        rf"  \begin{{tabular}}{{l{'r' * len(sheet.columns)}}}",
        r"    \toprule",
        *_head(sheet.columns),
        r"    \midrule",
    ]
    for index, row in enumerate(sheet.rows):
        lines.append(_line([latex_text(row.name), *(latex_number(c.cells[index]) for c in sheet.columns)]))
    lines += [
        r"    \midrule",
        _line([sheet.last_row, *(latex_number(column.total) for column in sheet.columns)]),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _head(columns: tuple[Column, ...]) -> list[str]:
    """One line of headings; where columns have groups, a line with those above it."""
    headings = _line(["class", *(latex_text(column.heading) for column in columns)])
    if not any(column.group for column in columns):
        return [headings]
    spans, rules, place = [""], [], 2
    for group, members in itertools.groupby(columns, key=lambda column: column.group):
        count = len(list(members))
        spans.append(rf"\multicolumn{{{count}}}{{c}}{{{latex_text(group)}}}")
        rules.append(rf"\cmidrule(lr){{{place}-{place + count - 1}}}")
        place += count
    return [_line(spans), "    " + " ".join(rules), headings]


def _line(cells: list[str]) -> str:
    return "    " + " & ".join(cells) + r" \\"
