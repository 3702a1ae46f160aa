"""Checks a dataset down to the last pixel and sums up what it contains, before anything relies on it.

Nothing is written here; when to check and where the index goes is `prepare.py`'s decision. Free of torch.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hwdkit.data.colours import LabelReader, label_reader
from hwdkit.data.decode import LabelLookup, decode_image, histogram, read_bytes
from hwdkit.data.index import DatasetIndex, Pair, SplitStatistics
from hwdkit.data.parallel import Progress, on_all_cores
from hwdkit.datasets.layout import Layout, paired, unpaired
from hwdkit.errors import DataError
from hwdkit.types import IGNORE

LISTED = 20
"""Problems that an error spells out; the rest is counted."""


class PairReport(NamedTuple):
    """What one pair contains.

    Attributes:
        size: height, width of the image; None when it cannot be decoded.
        raw_ids: pixels per id in the label file.
        digest: sha256 over the contents of both files.
        problems: lines for people, each naming its file; empty when the pair is sound.
    """

    size: tuple[int, int] | None
    raw_ids: dict[int, int]
    digest: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class PairCheck:
    """Checks one pair at a time; an object, so that it travels to other processes with its label map.

    Attributes:
        root: folder that paths are relative to.
        lookup: the dataset's label map.
        read_label: decodes its label files.
    """

    root: Path
    lookup: LabelLookup
    read_label: LabelReader

    def __call__(self, pair: tuple[str, str]) -> PairReport:
        """Decode both files of a pair and compare them."""
        image, label = pair
        size: tuple[int, int] | None = None
        raw_ids: dict[int, int] = {}
        problems: list[str] = []
        digest = hashlib.sha256()
        try:
            data = read_bytes(self.root / image)
            digest.update(hashlib.sha256(data).digest())
            height, width, _ = decode_image(data, where=image).shape
            size = (height, width)
        except DataError as error:
            problems.append(str(error))
        try:
            data = read_bytes(self.root / label)
            digest.update(hashlib.sha256(data).digest())
            ids = self.read_label(data, label)
            raw_ids = histogram(ids)
            unknown = self.lookup.unknown(raw_ids)
            if unknown:
                problems.append(f"{label}: {unknown}")
            if size is not None and ids.shape != size:
                problems.append(
                    f"{label}: label is {ids.shape[0]}x{ids.shape[1]}, its image {image} is "
                    f"{size[0]}x{size[1]} (height x width)"
                )
        except DataError as error:
            problems.append(str(error))
        return PairReport(size, raw_ids, digest.hexdigest(), tuple(problems))


def verify(
    layout: Layout,
    root: Path,
    *,
    allow_partial: bool = False,
    options: dict[str, Any] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> DatasetIndex:
    """Check every file of a dataset and return its index, without writing it.

    Args:
        layout: which dataset. Each split must have as many pairs as published.
        root: where its files are.
        allow_partial: accept other counts, and splits without pairs; the index says so.
        options: how a generated dataset was made, or where a user's own lies; recorded.
        workers: processes; None = one a core.
        progress: called every few pairs.

    Raises:
        DataError: with every problem found, of which the first `LISTED` are spelled out.
    """
    listing = layout.list_files(root)
    stamp = stamp_of(layout, root)  # taken first: a file that changes while we read must not look checked
    miscounted = []
    for split, expected in layout.published.items():
        count = len(paired(listing[split])) if split in listing else 0
        if count != expected and not (split in layout.optional and split not in listing):
            miscounted.append(f"{split}: {count} pairs of image and label, {expected} are published")
    damaged = [line for files in listing.values() for line in unpaired(files)]
    may_leave_out = (
        bool(damaged) and not layout.published
    )  # only the user knows how much data there should be
    work = [(split, pair) for split, files in listing.items() for pair in paired(files)]
    lookup = LabelLookup(layout.label_map, classes=len(layout.classes))
    check = PairCheck(root, lookup, label_reader(layout.label_colours))
    reports = on_all_cores(
        check, [pair for _, pair in work], workers=workers, doing=f"checking {layout.name}", progress=progress
    )
    damaged += [line for report in reports for line in report.problems]
    if damaged or (miscounted and not allow_partial) or not work:
        problems = [*([] if allow_partial else miscounted), *damaged] or ["no pair of image and label found"]
        hint = "Repair or replace these files and run the command again. Nothing was written."
        if miscounted and not (allow_partial or damaged):
            hint = "Complete the data, or accept a subset with --allow-partial (recorded in the index)."
        if may_leave_out:
            hint += "\n  Files without a partner are left out with --allow-partial (recorded in the index)."
        raise _failure(layout, root, problems, hint)

    splits: dict[str, list[Pair]] = {}
    raw_ids: dict[str, Counter[int]] = {}
    contents = []
    for (split, (image, label)), report in zip(work, reports, strict=True):
        assert report.size is not None
        splits.setdefault(split, []).append(Pair(image, label, *report.size))
        raw_ids.setdefault(split, Counter()).update(report.raw_ids)
        contents.append((split, image, label, report.digest))
    return DatasetIndex(
        name=layout.name,
        classes=layout.classes,
        palette=layout.palette,
        label_map=dict(layout.label_map),
        splits={split: tuple(pairs) for split, pairs in splits.items()},
        root=root.resolve(),
        statistics={
            split: _statistics(len(pairs), raw_ids[split], layout, lookup) for split, pairs in splits.items()
        },
        fingerprint=_digest([_meaning(layout), contents]),
        partial=bool(miscounted),
        licence=layout.licence,
        options=options or {},
        stamp=stamp,
        label_colours=None if layout.label_colours is None else dict(layout.label_colours),
    )


def stamp_of(layout: Layout, root: Path) -> str:
    """Digest names, sizes and modification times of a dataset's files, and what their ids mean to us.

    Cheap enough to ask on every run whether anything changed since the last full check.
    """
    listing = layout.list_files(root)
    touched: list[tuple[str, int, int]] = []
    for path in sorted(p for files in listing.values() for side in files for p in side.values()):
        try:
            status = (root / path).stat()
            touched.append((path, status.st_size, status.st_mtime_ns))
        except OSError:  # a dangling link: the full check will name it
            touched.append((path, -1, -1))
    return _digest([_meaning(layout), touched])


def _meaning(layout: Layout) -> list[Any]:
    meaning: list[Any] = [layout.name, layout.classes, sorted(layout.label_map.items())]
    if layout.label_colours is not None:
        meaning.append(sorted(layout.label_colours.items()))
    return meaning


def _digest(content: Any) -> str:
    return hashlib.sha256(
        json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogateescape")
    ).hexdigest()


def _statistics(images: int, raw_ids: Counter[int], layout: Layout, lookup: LabelLookup) -> SplitStatistics:
    pixels: Counter[int] = Counter()
    for raw, count in raw_ids.items():
        pixels[lookup.label_map[raw]] += count
    of_classes = tuple(pixels[c] for c in range(len(layout.classes)))
    return SplitStatistics(images, of_classes, pixels[IGNORE], dict(raw_ids))


def _failure(layout: Layout, root: Path, problems: list[str], hint: str) -> DataError:
    shown = [f"  {line}" for line in problems[:LISTED]]
    if len(problems) > LISTED:
        shown.append(f"  and {len(problems) - LISTED} more")
    noun = "problem" if len(problems) == 1 else "problems"
    return DataError("\n".join([f"{layout.name} in {root}: {len(problems)} {noun}", *shown]), hint=hint)
