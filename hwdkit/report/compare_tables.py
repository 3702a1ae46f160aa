"""A comparison in tables and plain words, and as a page for a terminal; files are `compare_formats.py`.

Scores arrive in 0..1 and leave as percent and points.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from hwdkit.measure.bootstrap import FEW, Interval
from hwdkit.measure.comparison import Comparison, Difference, Method, per_hour
from hwdkit.report.render import UNKNOWN, number, percent, points, printable

MANY = 5
"""So many differences at once, and one that is beyond noise by chance is no surprise."""

SOME = 20
"""Below so many images an interval is noticeably too narrow; below `FEW` it claims nothing."""

ENDS = 5
"""So many resamples should lie beyond each end of an interval."""


def sentence(difference: Difference) -> str:
    """Say in words whether a difference is more than noise."""
    pair = f"{printable(difference.method)} − {printable(difference.against)}"
    basis = _basis(difference)
    interval = difference.miou
    if difference.same_networks:
        return f"{pair}: the same networks under two names; no difference."
    if math.isnan(interval.delta):
        return f"{pair}: nothing to compare, no pixel of these images is labelled."
    if interval.images == 1:
        return f"{pair}: {points(interval.delta)}: of one labelled image, which tells nothing of others."
    numbers = f"{points(interval.delta)} {_brackets(interval)}"
    if interval.images < FEW:
        return f"{pair}: {numbers}: too few images with labels ({interval.images}) to tell it from noise."
    if not interval.beyond_noise:
        return f"{pair}: {numbers}: within noise on {basis}."
    if 1 not in difference.seeds:
        return f"{pair}: {numbers}: more than the noise of {basis}."
    whose = "seeds differ" if difference.seeds == (1, 1) else f"seeds of {_of_one_seed(difference)} differ"
    return f"{pair}: {numbers}: more than the noise of {basis}; how {whose} is unknown."


def closing_notes(comparison: Comparison, *, per_class: bool) -> list[str]:
    """What a reader of the intervals must know, the plainest first."""
    setting, pairs = comparison.setting, comparison.differences
    notes = []
    if any(1 in difference.seeds for difference in pairs):
        notes.append(
            "A method of one seed: the interval is of these trained networks on other images like these. How "
            "far another seed would land it cannot know; train several to compare methods."
        )
    if any(2 in difference.seeds for difference in pairs):
        notes.append("Two seeds say little of how far seeds differ, hence the wide intervals; train a third.")
    few = min((difference.miou.images for difference in pairs), default=SOME)
    if FEW <= few < SOME:
        notes.append(f"{few} images with labels are few: intervals are somewhat too narrow.")
    tail = setting.resamples * (100 - setting.confidence) / 200
    if pairs and tail < ENDS:
        notes.append(
            f"{setting.resamples} resamples are few for {setting.confidence:g} %: {tail:.2g} lie beyond each "
            "end of an interval; raise --resamples."
        )
    if len(pairs) >= MANY:
        chance = 100 - setting.confidence
        notes.append(
            f"{len(pairs)} differences: of such that are nothing at all, {chance:g} in 100 lie beyond noise."
        )
    if per_class and pairs:
        notes.append(
            f"*: the interval leaves out 0, and the class is in {FEW} images or more. Of many classes some "
            "have a star by chance: one star is no finding."
        )
    if not pairs:
        notes.append("No differences: name the method to compare with (--baseline NAME), or add --all-pairs.")
    return [*notes, *map(printable, setting.notes)]


def comparison_page(comparison: Comparison, *, per_class: bool) -> Group:
    """Lay a comparison out for a terminal: methods, costs, classes where asked for, words, notes."""
    parts: list[Any] = []
    for grid in grids(comparison, per_class=per_class):
        parts += [Text(grid.title, style="bold")] if grid.title else []
        parts.append(_rich(grid))
    parts += [Text(sentence(difference)) for difference in comparison.differences]
    parts += [Text(), Text(caption(comparison), style="dim")]
    parts += [Text(note, style="dim") for note in closing_notes(comparison, per_class=per_class)]
    return Group(*parts)


def said(comparison: Comparison, *, per_class: bool) -> list[str]:
    """Everything that is said beside the tables."""
    verdicts = [sentence(difference) for difference in comparison.differences]
    return [*verdicts, caption(comparison), *closing_notes(comparison, per_class=per_class)]


def caption(comparison: Comparison) -> str:
    """What was measured, and how the intervals were made."""
    setting = comparison.setting
    part = "" if setting.images == setting.images_in_split else f" of {setting.images_in_split}"
    return printable(
        f"{setting.dataset} {setting.split}, {setting.images}{part} images, whole; absent classes: "
        f"{setting.absent}. {setting.confidence:g} % intervals: {setting.resamples} paired resamples of the "
        f"images (seed {setting.seed}), seeds by Student's t. Params and GMACs (512x512) as deployed."
    )


def _of_one_seed(difference: Difference) -> str:
    return printable(difference.method if difference.seeds[0] == 1 else difference.against)


def _basis(difference: Difference) -> str:
    images = f"these {difference.miou.images} images"
    ours, theirs = difference.seeds
    if ours == theirs == 1:
        return f"{images}, one seed each"
    if ours == theirs:
        return f"{images} and {ours} seeds each"
    return f"{images} and {ours} against {theirs} seed{'s' if theirs > 1 else ''}"


class Grid(NamedTuple):
    """One table as text: names in the first column, numbers in the others."""

    title: str
    headings: list[str]
    rows: list[list[str]]


def grids(comparison: Comparison, *, per_class: bool) -> Iterator[Grid]:
    """The papers' table, what training cost, and one table a difference with its classes."""
    base = comparison.baseline
    interval = f"{comparison.setting.confidence:g} %"
    against = ["Δ base", interval] if base else []
    head = ["method", "seeds", "params M", "GMACs", "mIoU %", *against]
    yield Grid("", head, [_row(comparison, method) for method in comparison.methods])
    costs = ["trained", "s/step", "MiB/step", "hours", "mIoU %/hour"]
    yield Grid("", costs, [_cost_row(comparison, method) for method in comparison.methods])
    for each in comparison.differences if per_class else ():
        names = [printable(each.method), printable(each.against)]
        rows = _class_rows(comparison, each)
        yield Grid(" − ".join(names), ["class", "share %", "images", *names, "Δ", interval], rows)


def _row(comparison: Comparison, method: Method) -> list[str]:
    drawn = comparison.draws[method.name]
    cells = [printable(method.name), str(drawn.seeds), f"{method.params / 1e6:.2f}", f"{method.gmacs:.2f}"]
    cells.append(_mean_std(drawn.point[0], drawn.std[0]))
    if comparison.baseline:
        found = comparison.to_baseline(method)
        cells += [points(found.miou.delta), _brackets(found.miou)] if found else [UNKNOWN, UNKNOWN]
    return cells


def _cost_row(comparison: Comparison, method: Method) -> list[str]:
    rate = per_hour(method, comparison.draws[method.name])
    known = [method.cost(key) for key in ("step_seconds", "memory_mib", "hours")]
    known.append(None if rate is None else 100 * rate)
    return [printable(method.name), *("unknown" if value is None else number(value) for value in known)]


def _class_rows(comparison: Comparison, difference: Difference) -> list[list[str]]:
    """One line a class; a star marks a difference beyond noise."""
    both = [comparison.draws[name] for name in (difference.method, difference.against)]
    rows = []
    for place, name in enumerate(comparison.setting.classes):
        interval = difference.per_class[place]
        cells = [_mean_std(each.point[1 + place], each.std[1 + place]) for each in both]
        cells += [points(interval.delta), _brackets(interval) + (" *" if interval.beyond_noise else "")]
        rows.append([printable(name), percent(comparison.share[place]), str(interval.images), *cells])
    return rows


def _mean_std(mean: float, std: float) -> str:
    return percent(mean) if math.isnan(std) else f"{percent(mean)} ± {percent(std)}"


def _brackets(interval: Interval) -> str:
    """An end that is not 0 does not look like 0: whether the interval holds 0 can be seen."""
    ends = (interval.low, interval.high)
    if any(map(math.isnan, ends)):
        return UNKNOWN
    digits = 2
    while digits < 6 and any(end and points(end, digits) == points(0.0, digits) for end in ends):
        digits += 1
    low, high = (points(end, digits) for end in ends)
    return f"[{low}, {high}]"


def _rich(grid: Grid) -> Table:
    """Numbers are never cut or broken; where the terminal is narrow, names are."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(grid.headings[0], overflow="fold")
    for heading in grid.headings[1:]:
        table.add_column(Text(heading, overflow="fold"), justify="right", no_wrap=True)
    for row in grid.rows:
        table.add_row(*map(Text, row))
    return table
