"""One table, and what a terminal makes of it; Markdown, LaTeX and the page are tested with the reports."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from hwdkit.report.table import Cell, Column, Table

HOSTILE = "[red]a[/red]\x1b[31m\n|"


def shown(table: Table, width: int) -> str:
    console = Console(file=StringIO(), width=width, force_terminal=False)
    console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_names_anywhere_are_text_and_no_markup() -> None:
    table = Table([HOSTILE, HOSTILE], [[HOSTILE, "1"]], last=[HOSTILE, ""], title=HOSTILE, caption=HOSTILE)
    text = shown(table, 80)
    assert text.count("[red]a[/red]") == 6
    assert "\x1b" not in text


def test_spare_columns_are_left_out_in_their_order_and_named() -> None:
    columns = ["name", Column("first", spare=1), Column("second", spare=2), "kept"]
    table = Table(columns, [["road", "11.11", "22.22", "33.33"]])
    assert "Too narrow" not in shown(table, 80)
    assert "Too narrow for: first." in shown(table, 26).replace("\n", " ")
    narrow = shown(table, 18)
    assert "22.22" not in narrow
    assert "33.33" in narrow


def test_names_break_where_numbers_do_not() -> None:
    text = shown(Table(["name", "number"], [["a-name-without-a-space", "123456.78"]]), 24)
    assert "123456.78" in text
    assert "…" not in text
    assert "a-name-without-a-space" not in text


def test_the_best_row_is_marked_and_gaps_in_it_are_not_emphasised() -> None:
    table = Table(["name", "number", "more"], [["a", "1", "–"], ["b", "2", "–"]], best=1)
    assert "› b" in shown(table, 80)
    assert table.markdown().splitlines()[2:] == ["| a | 1 | – |", "| **b** | **2** | – |"]


def test_the_page_sorts_by_the_whole_number_or_the_name() -> None:
    cells = [Cell("0.33", 1 / 3), Cell("–", float("nan")), Cell("–"), Cell("road", colour="#804080")]
    assert [cell.sort_key for cell in cells] == [repr(1 / 3), "", "", "road"]
