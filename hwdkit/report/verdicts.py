"""What a comparison says in plain words: which differences are more than noise, and what to mind."""

from __future__ import annotations

import math

from hwdkit.measure.bootstrap import FEW, Interval
from hwdkit.measure.comparison import Comparison, Difference
from hwdkit.report.render import UNKNOWN, points, printable

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
    numbers = f"{points(interval.delta)} {brackets(interval)}"
    if interval.images < FEW:
        return f"{pair}: {numbers}: too few images with labels ({interval.images}) to tell it from noise."
    if not interval.beyond_noise:
        return f"{pair}: {numbers}: within noise on {basis}."
    if 1 not in difference.seeds:
        return f"{pair}: {numbers}: more than the noise of {basis}."
    single = printable(difference.method if difference.seeds[0] == 1 else difference.against)
    whose = "seeds differ" if difference.seeds == (1, 1) else f"seeds of {single} differ"
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


def _basis(difference: Difference) -> str:
    images = f"these {difference.miou.images} images"
    seeds, others = difference.seeds
    if seeds == others:
        return f"{images}, one seed each" if seeds == 1 else f"{images} and {seeds} seeds each"
    return f"{images} and {seeds} against {others} seed{'s' if others > 1 else ''}"


def brackets(interval: Interval) -> str:
    """An end that is not 0 does not look like 0: whether the interval holds 0 can be seen."""
    ends = (interval.low, interval.high)
    if any(map(math.isnan, ends)):
        return UNKNOWN
    digits = 2
    while digits < 6 and any(end and points(end, digits) == points(0.0, digits) for end in ends):
        digits += 1
    low, high = (points(end, digits) for end in ends)
    return f"[{low}, {high}]"
