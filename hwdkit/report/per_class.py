"""A per-class report as tables, JSON, CSV, Markdown and LaTeX; `html/` has its page, `plots/` its figures."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from hwdkit.measure.confusions import strongest
from hwdkit.measure.types import ClassDivergence, ClassRow, PerClassReport
from hwdkit.report.palette import hex_colour
from hwdkit.report.render import (
    UNKNOWN,
    csv_text,
    markdown_section,
    number,
    percent,
    points,
    printable,
)
from hwdkit.report.table import Cell, Column, Table
from hwdkit.types import Order


class Quantity(NamedTuple):
    """One way to say how a student differs from the teacher; `Column` says what the texts are for."""

    field: Literal["td", "ntd", "ratio", "image_ratio", "weight"]
    key: str
    heading: str
    label: str
    unit: str
    digits: int
    spare: int

    def of(self, one: ClassDivergence) -> Cell:
        value: float | None = getattr(one, self.field)
        return Cell(number(value, self.digits), value)


QUANTITIES = (
    Quantity("td", "td", "TD", "", "target", 3, 1),
    Quantity("ntd", "ntd", "NTD", "", "non-target", 3, 2),
    Quantity("ratio", "td_ntd_ratio", "TD/NTD", "", "whole split", 4, 6),
    Quantity("image_ratio", "td_ntd_image_ratio", "per image", "TD/NTD", "per image", 4, 3),
    Quantity("weight", "hwd_weight", "weight", "", "mean HWD", 3, 4),
)
PAPER = QUANTITIES[:3]
"""Those of the HWD paper's Table I."""


class ClassColumn(NamedTuple):
    """A column of a table with a row a class, and the text of its last row."""

    column: Column
    cells: list[Cell]
    last: str


def class_table(report: PerClassReport, sort: Order | None = None, only: Collection[str] = ()) -> Table:
    """IoU of every model, and how the compared student differs from the teacher.

    Args:
        report: what to show.
        sort: order of the rows, see `PerClassReport.ordered`.
        only: the classes to show, none means all; the last row is about all in any case.
    """
    rows = report.ordered(sort, only)
    name, teacher_name = report.pair
    student, teacher, baseline = report.model(name), report.model(teacher_name), report.baseline
    gain = points(student.miou - baseline.miou) if student and baseline else UNKNOWN
    gap = points(teacher.miou - student.miou) if teacher and student else UNKNOWN
    over = f"Δ {baseline.name if baseline else 'no baseline'}"
    columns = [
        ClassColumn(
            Column("share %", label="share", unit="% pixels", spare=5),
            [Cell(percent(row.share), row.share) for row in rows],
            "",
        ),
        *_scores(report, rows),
        ClassColumn(
            Column("Δ base", label=over, unit=name), [_change(report.delta(row)) for row in rows], gain
        ),
        ClassColumn(
            Column("gap", label=f"gap to {teacher_name}", unit=name),
            [Cell(points(value), value) for value in map(report.gap, rows)],
            gap,
        ),
        *_divergence(report, rows, name),
    ]
    caption = (
        f"{report.images} images; absent classes: {report.absent}. Δ: {name} over the baseline; "
        f"gap: {teacher_name} over {name}; TD, NTD: {_measured(report)}; "
        "per image: mean of the images' TD/NTD. "
        "Weight: HWD's at mu = 0, sigma = 1, beta = 0.1, no area correction."
    )
    title = f"{report.dataset} {report.split}: IoU per class, %"
    return _table(report, rows, columns, title=title, caption=caption)


def divergence_table(
    report: PerClassReport,
    sort: Order | None = None,
    only: Collection[str] = (),
    *,
    quantities: Sequence[Quantity] = PAPER,
) -> Table | None:
    """How every student differs from the teacher; None where there is only the compared one."""
    rows, students = report.ordered(sort, only), report.students()
    if len(students) < 2:
        return None
    columns: list[ClassColumn] = []
    for name in students:
        model = next(i for i, model in enumerate(report.models) if model.name == name)
        for quantity, (column, cells, last) in zip(QUANTITIES, _divergence(report, rows, name), strict=True):
            if quantity in quantities:
                spare = column.spare if quantity.field != "ratio" else 0
                columns.append(
                    ClassColumn(replace(column, group=name, model=model, spare=spare), cells, last)
                )
    title = f"{report.dataset} {report.split}: divergence from {report.pair[1]}"
    caption = f"{report.images} images; TD, NTD: {_measured(report)}."
    return _table(report, rows, columns, title=title, caption=caption)


def confusion_table(report: PerClassReport) -> Table | None:
    """The strongest confusions of the compared student, and how the other models fare with them."""
    pairs = strongest(report)
    if not pairs:
        return None
    models = [(i, model.name) for i, model in enumerate(report.models) if model.name in report.confusions]
    return Table(
        [
            Column("labelled", left=True, unit="label"),
            Column("taken for", left=True, unit="prediction"),
            *(Column(name, unit="% of the class", model=index) for index, name in models),
            Column("area", unit="% of all pixels"),
        ],
        [
            [
                _name(report.rows[one.label]),
                _name(report.rows[one.predicted]),
                *(Cell(percent(one.shares[name]), one.shares[name]) for _, name in models),
                Cell(percent(one.area), one.area),
            ]
            for one in pairs
        ],
    )


def per_class_tables(
    report: PerClassReport, sort: Order | None = None, *, only: Collection[str] = ()
) -> list[Table]:
    """The classes, and where several students were measured, how each differs from the teacher."""
    second = divergence_table(report, sort, only)
    return [class_table(report, sort, only), *([second] if second else [])]


def per_class_markdown(
    report: PerClassReport, sort: Order | None = None, *, only: Collection[str] = ()
) -> str:
    """Write the tables as Markdown, the report's notes below the first."""
    return "\n".join(
        markdown_section(table.title, [table.markdown()], [table.caption, *([] if index else report.notes)])
        for index, table in enumerate(per_class_tables(report, sort, only=only))
    )


def per_class_latex(report: PerClassReport, sort: Order | None = None, *, only: Collection[str] = ()) -> str:
    """Write the tables as LaTeX, to be read in by `\\input`."""
    tables = per_class_tables(report, sort, only=only)
    notes = "".join(f"% {printable(note)}\n" for note in report.notes)
    labelled = zip(tables, ("per-class", "td-ntd"), strict=False)
    return f"% needs \\usepackage{{booktabs}}\n{notes}\n" + "\n".join(
        table.latex(label) for table, label in labelled
    )


def per_class_json(report: PerClassReport) -> str:
    """Write a report as one JSON document; null stands for what could not be measured."""
    return json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)


def per_class_csv(report: PerClassReport, only: Collection[str] = ()) -> str:
    """Write one line a class in class order, at full precision, scores in 0..1; an empty cell is unknown.

    After the columns of the compared pair come those of every student, with its name behind an underscore.
    """
    keys = [quantity.key for quantity in QUANTITIES]
    students = report.students()
    head = ["class", "colour", "share", *(f"iou_{model.name}" for model in report.models)]
    head += ["delta_to_baseline", "gap_to_teacher", *keys]
    head += [f"{key}_{name}" for name in students for key in (*keys, "ratio_images")]
    rows = []
    for row in report.ordered(only=only):
        fields: list[str | float | None] = [row.name, hex_colour(row.colour), row.share]
        fields += [row.iou.get(model.name) for model in report.models]
        fields += [report.delta(row), report.gap(row), *_values(report.divergence_of(row, report.pair[0]))]
        for one in (report.divergence_of(row, name) for name in students):
            fields += [*_values(one), one.images]
        rows.append(fields)
    return csv_text(head, rows)


def _values(one: ClassDivergence) -> list[float | None]:
    return [quantity.of(one).value for quantity in QUANTITIES]


def _scores(report: PerClassReport, rows: list[ClassRow]) -> Iterator[ClassColumn]:
    """IoU of every model; the best of those that are no teacher is marked."""
    rivals = [model.name for model in report.models if model.role != "teacher"]
    best = [max((row.iou[name] for name in rivals if row.iou.get(name, 0) > 0), default=None) for row in rows]
    for index, model in enumerate(report.models):
        column = Column(model.name, unit="IoU %", model=index, bold=model.name == report.pair[0])
        scores = [row.iou.get(model.name) for row in rows]
        cells = [
            Cell(percent(score), score, "best" if model.name in rivals and score and score == top else "")
            for score, top in zip(scores, best, strict=True)
        ]
        yield ClassColumn(column, cells, percent(model.miou))


def _divergence(report: PerClassReport, rows: list[ClassRow], name: str) -> Iterator[ClassColumn]:
    """How one student differs from the teacher."""
    for each in QUANTITIES:
        yield ClassColumn(
            Column(each.heading, label=each.label, unit=each.unit, spare=each.spare),
            [each.of(report.divergence_of(row, name)) for row in rows],
            each.of(report.mean_divergence(name)).text,
        )


def _table(
    report: PerClassReport, rows: list[ClassRow], columns: Sequence[ClassColumn], *, title: str, caption: str
) -> Table:
    part = len(rows) < len(report.rows)
    return Table(
        [Column("class", left=True, unit="name"), *(each.column for each in columns)],
        zip([_name(row) for row in rows], *(each.cells for each in columns), strict=True),
        last=[f"mean of all {len(report.rows)}" if part else "mean", *(each.last for each in columns)],
        title=title,
        caption=caption,
    )


def _name(row: ClassRow) -> Cell:
    return Cell(row.name, colour=hex_colour(row.colour))


def _change(value: float) -> Cell:
    return Cell(points(value), value, "up" if value > 0 else "down" if value < 0 else "")


def _measured(report: PerClassReport) -> str:
    distance = "squared difference" if report.divergence == "mse" else "KL"
    if report.divergence_on == "logits":
        return f"{distance} of the logits"
    return f"{distance} of the activation maps at tau = {report.temperature:g}"
