"""A per-class report as tables for a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Collection

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from hwdkit.measure.types import Order, PerClassReport
from hwdkit.report.palette import hex_colour
from hwdkit.report.render import markdown_table, markdown_text, printable
from hwdkit.report.sheet import Column, Sheet, class_sheet, divergence_sheet


def per_class_table(
    report: PerClassReport,
    sort: Order | None = None,
    *,
    only: Collection[str] = (),
    width: int | None = None,
) -> Group:
    """Lay a per-class report out for a terminal.

    Args:
        report: what to show.
        sort: order of the rows, see `PerClassReport.ordered`.
        only: the classes to show; none means all.
        width: columns of the terminal. Where they do not suffice, some of the table's are left out, and its
            caption says which; None shows everything.

    Returns:
        One table with a row a class and a last row of means, the compared student's column bold; a second
        with the divergence of every student if there are several.
    """
    first, second = class_sheet(report, sort, only), divergence_sheet(report, sort, only)
    if second is None:
        return Group(_table(first, width))
    return Group(_table(first, width), "", _table(second, width))


def per_class_markdown(
    report: PerClassReport, sort: Order | None = None, *, only: Collection[str] = ()
) -> str:
    """Write the tables of `per_class_table` as Markdown."""
    first, second = class_sheet(report, sort, only), divergence_sheet(report, sort, only)
    parts = [_markdown(first, [*report.notes])]
    if second is not None:
        parts.append(_markdown(second, []))
    return "\n".join(parts)


def _table(sheet: Sheet, width: int | None) -> Table:
    omitted = _too_wide(sheet, width)
    names = ", ".join(dict.fromkeys(column.heading for column in omitted))
    caption = sheet.caption + (f" Too narrow for: {names}." if omitted else "")
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        show_footer=True,
        title=Text(printable(sheet.title), style="bold"),
        title_justify="left",
        caption=Text(printable(caption), style="dim"),
        caption_justify="left",
    )
    shown = [column for column in sheet.columns if column not in omitted]
    grouped = any(column.group for column in shown)
    table.add_column(
        Text("\nclass" if grouped else "class"), footer=Text(sheet.last_row), no_wrap=True, min_width=8
    )
    for column in shown:
        heading = printable(column.heading)
        table.add_column(
            Text(f"{printable(column.group)}\n{heading}" if grouped else heading),
            footer=Text(column.total),
            justify="right",
            no_wrap=True,
            style="bold" if column.is_student else "",
        )
    for index, row in enumerate(sheet.rows):
        name = Text.assemble(("■ ", hex_colour(row.colour)), printable(row.name))
        cells = (Text(column.cells[index], style=_style(column, index)) for column in shown)
        table.add_row(name, *cells)
    return table


def _markdown(sheet: Sheet, notes: list[str]) -> str:
    head = [markdown_text(text) for text in ("class", *(column.name for column in sheet.columns))]
    lines = [
        [markdown_text(text) for text in (row.name, *(column.cells[index] for column in sheet.columns))]
        for index, row in enumerate(sheet.rows)
    ]
    lines.append([f"**{sheet.last_row}**", *(column.total for column in sheet.columns)])
    below = "".join(f"\n- {markdown_text(note)}" for note in (sheet.caption, *notes))
    return f"### {markdown_text(sheet.title)}\n\n{markdown_table(head, lines)}\n{below}\n"


def _too_wide(sheet: Sheet, width: int | None) -> list[Column]:
    """Choose what to leave out: a cut-off number would be worse than none."""
    padding = 2  # what box.SIMPLE_HEAD leaves between two columns once padding collapses
    needed = 2 + max([8, len(sheet.last_row) - 2, *(len(row.name) + 2 for row in sheet.rows)])
    widths = [
        padding + max(map(len, (column.group, column.heading, column.total, *column.cells)))
        for column in sheet.columns
    ]
    needed += sum(widths)
    omitted: list[Column] = []
    for column, wide in sorted(zip(sheet.columns, widths, strict=True), key=lambda pair: pair[0].spare):
        if column.spare and width is not None and needed > width:
            needed -= wide
            omitted.append(column)
    return omitted


def _style(column: Column, index: int) -> str:
    sign = column.cells[index][:1] if column.is_change else ""
    return {"+": "green", "−": "red"}.get(sign, "")
