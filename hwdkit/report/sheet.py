"""The tables of a per-class report before they have a form: columns of texts, with the mean of each.

`tables.py` lays a sheet out for a terminal or as Markdown, `latex.py` for a paper.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from hwdkit.measure.types import ClassDivergence, ClassRow, Order, PerClassReport
from hwdkit.report.render import UNKNOWN, number, percent, points


@dataclass(frozen=True)
class Column:
    """One column of texts.

    Attributes:
        heading: what stands above it.
        cells: one text a class.
        total: the text of the last row.
        group: the model that the column and its neighbours are about; "" for none.
        spare: where the page is too narrow, columns are left out from 1 upwards; 0 always stays.
        is_student: the column of the compared student's IoU.
        is_change: a gain is good, a loss is bad.
    """

    heading: str
    cells: tuple[str, ...]
    total: str
    group: str = ""
    spare: int = 0
    is_student: bool = False
    is_change: bool = False

    @property
    def name(self) -> str:
        return f"{self.group} {self.heading}".strip()


@dataclass(frozen=True)
class Sheet:
    """A table: one row a class, a last row of means over all classes of the report."""

    title: str
    rows: tuple[ClassRow, ...]
    columns: tuple[Column, ...]
    last_row: str
    caption: str


def class_sheet(report: PerClassReport, sort: Order | None = None, only: Collection[str] = ()) -> Sheet:
    """IoU of every model, and how the compared student differs from the teacher.

    Args:
        report: what to show.
        sort: order of the rows, see `PerClassReport.ordered`.
        only: the classes to show, none means all; the last row is about all in any case.
    """
    rows = report.ordered(sort, only)
    student, teacher = report.pair
    mine, theirs, base = report.model(student), report.model(teacher), report.baseline
    columns = [Column("share %", tuple(percent(row.share) for row in rows), "", spare=5)]
    for model in report.models:
        scores = tuple(percent(row.iou.get(model.name)) for row in rows)
        columns.append(Column(model.name, scores, percent(model.miou), is_student=model.name == student))
    gain = points(mine.miou - base.miou) if mine and base else UNKNOWN
    gap = points(theirs.miou - mine.miou) if mine and theirs else UNKNOWN
    columns += [
        Column("Δ base", tuple(points(report.delta(row)) for row in rows), gain, is_change=True),
        Column("gap", tuple(points(report.gap(row)) for row in rows), gap),
        *_divergence_columns(report, rows, student, spare=(1, 2, 6)),
        _column(report, rows, student, "per image", lambda one: number(one.image_ratio, 4), spare=3),
        _column(report, rows, student, "weight", lambda one: number(one.weight), spare=4),
    ]
    caption = (
        f"{report.images} images; absent classes: {report.absent}. Δ: {student} over the baseline; "
        f"gap: {teacher} over {student}; TD, NTD: {_measured(report)}; "
        "per image: mean of the images' TD/NTD. "
        "Weight: HWD's at mu = 0, sigma = 1, beta = 0.1, no area correction."
    )
    return Sheet(
        f"{report.dataset} {report.split}: IoU per class, %",
        tuple(rows),
        tuple(columns),
        _last_row(report, only),
        caption,
    )


def divergence_sheet(
    report: PerClassReport, sort: Order | None = None, only: Collection[str] = ()
) -> Sheet | None:
    """TD, NTD and TD/NTD of every student (HWD paper, Table I); None where there is only the compared one."""
    rows, students = report.ordered(sort, only), report.students()
    if len(students) < 2:
        return None
    columns: list[Column] = []
    for name in students:
        columns += _divergence_columns(report, rows, name, spare=(1, 2, 0), group=name)
    return Sheet(
        f"{report.dataset} {report.split}: divergence from {report.pair[1]}",
        tuple(rows),
        tuple(columns),
        _last_row(report, only),
        f"{report.images} images; TD, NTD: {_measured(report)}.",
    )


def _divergence_columns(
    report: PerClassReport, rows: list[ClassRow], name: str, *, spare: tuple[int, int, int], group: str = ""
) -> Iterator[Column]:
    texts: dict[str, Callable[[ClassDivergence], str]] = {
        "TD": lambda one: number(one.td),
        "NTD": lambda one: number(one.ntd),
        "TD/NTD": lambda one: number(one.ratio, 4),
    }
    for (heading, text), place in zip(texts.items(), spare, strict=True):
        yield _column(report, rows, name, heading, text, spare=place, group=group)


def _column(
    report: PerClassReport,
    rows: list[ClassRow],
    name: str,
    heading: str,
    text: Callable[[ClassDivergence], str],
    *,
    spare: int,
    group: str = "",
) -> Column:
    cells = tuple(text(report.divergence_of(row, name)) for row in rows)
    return Column(heading, cells, text(report.mean_divergence(name)), group, spare)


def _measured(report: PerClassReport) -> str:
    distance = "squared difference" if report.divergence == "mse" else "KL"
    if report.divergence_on == "logits":
        return f"{distance} of the logits"
    return f"{distance} of the activation maps at tau = {report.temperature:g}"


def _last_row(report: PerClassReport, only: Collection[str]) -> str:
    return f"mean of all {len(report.rows)}" if only else "mean"
