"""One table for all results: rows of texts with a heading above each column.

The same table is shown in a terminal, written as Markdown and as LaTeX, and laid out on the page of
`html/`. Names in it may come from anywhere: each form escapes them, so builders need not.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import rich.table
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.text import Text

from hwdkit.report.render import UNKNOWN, latex_number, latex_text, markdown_text, printable

Style = Literal["", "best", "up", "down"]

STYLES = {"up": "green", "down": "red"}
"""How a terminal shows a gain and a loss; the page's style sheet has its own."""


class Cell(NamedTuple):
    """A text with what some forms add to it.

    Attributes:
        text: what is read.
        value: what the page sorts by, where that is a number.
        style: the best of its row, or a change for the better or the worse.
        colour: #rrggbb of the class that it names.
    """

    text: str
    value: float | None = None
    style: Style = ""
    colour: str = ""

    @property
    def sort_key(self) -> str:
        """The number in full, nothing for one that is not known; a name stands for itself."""
        if self.colour:
            return self.text
        return repr(float(self.value)) if self.value is not None and math.isfinite(self.value) else ""


@dataclass(frozen=True)
class Column:
    """What stands above a column, and how its cells stand.

    Attributes:
        heading: one line.
        left: texts stand on the left and may break; numbers stand on the right and never do.
        whole: texts that do not break either.
        group: the heading that it shares with its neighbours; "" for none.
        spare: where a terminal is too narrow, columns are left out from 1 upwards; 0 always stays.
        bold: emphasised in a terminal.
        label: on the page, where it says more than the heading.
        unit: below it.
        model: the page's colour of the model that it is about.
    """

    heading: str
    left: bool = False
    whole: bool = False
    group: str = ""
    spare: int = 0
    bold: bool = False
    label: str = ""
    unit: str = ""
    model: int | None = None

    @property
    def name(self) -> str:
        return f"{self.group} {self.heading}".strip()

    @property
    def spoken(self) -> str:
        return " ".join(filter(None, (self.group, self.label or self.heading, self.unit)))


class Table:
    """Columns, rows, and what is said of them.

    Args:
        columns: headings; of plain ones the first is of names, the others of numbers.
        rows: one cell a column each; plain texts are cells.
        last: the row below the line, of means or sums.
        best: the row to emphasise.
        title: above the table.
        caption: below it.
    """

    def __init__(
        self,
        columns: Sequence[str | Column],
        rows: Iterable[Sequence[str | Cell]],
        *,
        last: Sequence[str] = (),
        best: int | None = None,
        title: str = "",
        caption: str = "",
    ) -> None:
        self.columns = [
            Column(each, left=index == 0) if isinstance(each, str) else each
            for index, each in enumerate(columns)
        ]
        self.rows = [[Cell(each) if isinstance(each, str) else each for each in row] for row in rows]
        self.last, self.best, self.title, self.caption = last, best, title, caption

    @property
    def groups(self) -> list[tuple[str, int | None, int]]:
        """The headings above headings: text, model and number of columns; [] where there are none."""
        if not any(column.group for column in self.columns):
            return []
        spans = [list(span) for _, span in itertools.groupby(self.columns[1:], key=lambda each: each.group)]
        return [(span[0].group, span[0].model, len(span)) for span in spans]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Leave spare columns out where the terminal is narrow: a cut-off number would be worse than none."""
        shown = list(self.columns)
        for column in sorted(filter(lambda each: each.spare, self.columns), key=lambda each: each.spare):
            if self._measured(shown, console, options).maximum > options.max_width:
                shown.remove(column)
        missing = ", ".join(dict.fromkeys(each.heading for each in self.columns if each not in shown))
        if self.title:
            yield Text(printable(self.title), style="bold")
        yield self._rich(shown)
        if caption := self.caption + (f" Too narrow for: {missing}." if missing else ""):
            yield Text(f"{printable(caption)}\n", style="dim")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return self._measured(self.columns, console, options)

    def _measured(self, shown: list[Column], console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options.update_width(10_000), self._rich(shown))

    def _rich(self, shown: list[Column]) -> rich.table.Table:
        table = rich.table.Table(
            box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_footer=bool(self.last)
        )
        indices = [index for index, column in enumerate(self.columns) if column in shown]
        for index in indices:
            column = self.columns[index]
            above = f"{printable(column.group)}\n" if self.groups else ""
            table.add_column(
                Text(above + printable(column.heading), overflow="fold"),
                footer=Text(printable(self.last[index]) if self.last else ""),
                justify="left" if column.left else "right",
                no_wrap=column.whole or not column.left,
                overflow="fold" if column.left else "ellipsis",
                style="bold" if column.bold else "",
            )
        for number, row in enumerate(self.rows):
            cells = [
                Text.assemble(
                    ("■ " if row[index].colour else "", row[index].colour),
                    (printable(row[index].text), STYLES.get(row[index].style, "")),
                )
                for index in indices
            ]
            if self.best is not None:
                cells[0] = Text("› " if number == self.best else "  ") + cells[0]
            table.add_row(*cells, style="bold green" if number == self.best else "")
        return table

    def markdown(self) -> str:
        """The table as Markdown, without title and caption."""
        lines = [[markdown_text(cell.text) for cell in row] for row in self.rows]
        if self.best is not None:
            lines[self.best] = [text if text in ("", UNKNOWN) else f"**{text}**" for text in lines[self.best]]
        if self.last:
            first, *others = map(markdown_text, self.last)
            lines.append([f"**{first}**", *others])
        head = [markdown_text(column.name) for column in self.columns]
        rule = ["---" if column.left else "---:" for column in self.columns]
        return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))

    def latex(self, label: str = "") -> str:
        r"""The table as a `tabular` with booktabs' rules; with a label, as a `table` with a caption."""
        rows = [r"\toprule", *self._latex_head(), r"\midrule"]
        rows += [self._latex_row([cell.text for cell in row]) for row in self.rows]
        rows += [r"\midrule", self._latex_row(self.last)] if self.last else []
        letters = "".join("l" if column.left else "r" for column in self.columns)
        begin, end = rf"\begin{{tabular}}{{{letters}}}", r"\end{tabular}"
        body = "\n".join([*rows, r"\bottomrule"])
        if not label:
            return "\n".join([begin, body, end])
        inside = [
            r"\centering",
            rf"\caption{{{latex_text(self.title)}. {latex_text(self.caption)}}}",
            rf"\label{{tab:{label}}}",
            begin,
            textwrap.indent(body, "  "),
            end,
        ]
        return "\n".join([r"\begin{table}", textwrap.indent("\n".join(inside), "  "), r"\end{table}"]) + "\n"

    def _latex_head(self) -> Iterator[str]:
        """One line of headings; where columns have groups, a line with those above it."""
        spans, rules, first = [""], [], 2
        for group, _, count in self.groups:
            spans.append(rf"\multicolumn{{{count}}}{{c}}{{{latex_text(group)}}}")
            rules.append(rf"\cmidrule(lr){{{first}-{first + count - 1}}}")
            first += count
        if rules:
            yield " & ".join(spans) + r" \\"
            yield " ".join(rules)
        yield " & ".join(latex_text(column.heading) for column in self.columns) + r" \\"

    def _latex_row(self, texts: Sequence[str]) -> str:
        written = (
            latex_text(text) if column.left else latex_number(text)
            for text, column in zip(texts, self.columns, strict=True)
        )
        return " & ".join(written) + r" \\"
