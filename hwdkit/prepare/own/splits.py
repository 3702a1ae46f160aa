"""Which images of a user's own data are trained on and which are kept for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from hwdkit.data.index import DatasetIndex
from hwdkit.datasets.layout import names_in
from hwdkit.errors import DataError, UsageError

SPLITS = ("train", "val")
FRACTION, SEED = 0.1, 0


@dataclass(frozen=True)
class SplitRule:
    """How images are divided; all None = one in ten for validation.

    Attributes:
        train, val: a file that lists images, one a line, or their folder. If one is None, it gets the rest.
        val_fraction: share of the images that are kept for validation.
        seed: which ones.
    """

    train: str | None = None
    val: str | None = None
    val_fraction: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse two rules at once.

        Raises:
            UsageError: lists and a fraction, or a fraction that leaves one split empty.
        """
        if self.named() and (self.val_fraction is not None or self.seed is not None):
            raise UsageError("--val-fraction and --seed have no effect with --train-split or --val-split")
        if self.val_fraction is not None and not 0 < self.val_fraction < 1:
            raise UsageError(f"--val-fraction {self.val_fraction:g} must lie between 0 and 1")

    def named(self) -> bool:
        """Say whether the images are listed, not drawn."""
        return self.train is not None or self.val is not None

    def or_else(self, earlier: dict[str, Any]) -> SplitRule:
        """Return this rule, completed by what an index remembers, else by the defaults."""

        def value(name: str, default: Any = None) -> Any:
            typed = getattr(self, name)
            return earlier.get(name, default) if typed is None else typed

        remembers_lists = bool(earlier) and "val_fraction" not in earlier
        if self.named() or (self == SplitRule() and remembers_lists):
            return SplitRule(train=value("train"), val=value("val"))
        return SplitRule(val_fraction=value("val_fraction", FRACTION), seed=value("seed", SEED))

    def resolved(self, root: Path) -> SplitRule:
        """Return this rule with its lists as absolute paths, so that it means the same from elsewhere."""

        def absolute(source: str | None) -> str | None:
            is_list = source is not None and not (root / source).is_dir() and Path(source).is_file()
            return str(Path(source).resolve()) if source is not None and is_list else source

        return replace(self, train=absolute(self.train), val=absolute(self.val))

    def to_dict(self) -> dict[str, Any]:
        """Return what the index records."""
        return {name: value for name, value in vars(self).items() if value is not None}


def divide(
    images: Sequence[str], rule: SplitRule, *, root: Path, earlier: DatasetIndex | None = None
) -> dict[str, list[str]]:
    """Divide sorted paths into train and val; the same images and rule always give the same answer.

    Without names an image's place depends on its path and the seed alone, so that a new image moves at most
    one other. A list that the index already holds is taken from there when its file is gone.

    Raises:
        DataError: a name without image, an image in both splits, or a split without images.
    """
    if rule.named():
        split_of = {"train": rule.train, "val": rule.val}
        chosen = {
            split: _members(source, split, images, root, earlier)
            for split, source in split_of.items()
            if source is not None
        }
        for split, other in (("train", "val"), ("val", "train")):
            if split not in chosen:
                chosen[split] = set(images) - chosen[other]
    else:
        assert rule.val_fraction is not None
        kept = max(1, round(rule.val_fraction * len(images)))
        val = set(sorted(images, key=lambda path: _dice(path, rule.seed))[:kept])
        chosen = {"train": set(images) - val, "val": val}
    both = sorted(chosen["train"] & chosen["val"])
    if both:
        raise DataError(
            f"{len(both)} images are in train and in val, the first is {both[0]}", where=str(root)
        )
    empty = [split for split in SPLITS if not chosen[split]]
    if empty:
        raise DataError(f"{len(images)} images leave none for split {' and '.join(empty)}", where=str(root))
    return {split: sorted(chosen[split]) for split in SPLITS}


def _members(
    source: str, split: str, images: Sequence[str], root: Path, earlier: DatasetIndex | None
) -> set[str]:
    if (root / source).is_dir():
        folder = PurePosixPath(source)
        return {path for path in images if folder in PurePosixPath(path).parents}
    file = next((path for path in (Path(source), root / source) if path.is_file()), None)
    if file is not None:
        return _named(names_in(file), images, file)
    if earlier is not None and earlier.options.get("splits", {}).get(split) == source:
        return {pair.image for pair in earlier.splits[split]}
    raise DataError(f"--{split}-split {source} is neither a file nor a folder below {root}")


def _named(lines: Sequence[str], images: Sequence[str], file: Path) -> set[str]:
    """Find the images that a list names: by path below the root, or by file name with or without suffix."""
    paths_of: dict[str, set[str]] = {}
    for image in images:
        path = PurePosixPath(image)
        for name in {image, str(path.with_suffix("")), path.name, path.stem}:
            paths_of.setdefault(name, set()).add(image)
    chosen: set[str] = set()
    unknown: list[str] = []
    for line in lines:
        name = line.removeprefix("./").lstrip("/")
        matches = {name} if name in paths_of.get(name, ()) else paths_of.get(name, set())
        if len(matches) > 1:
            raise DataError(f"{line!r} may be {' or '.join(sorted(matches)[:2])}", where=str(file))
        if not matches:
            unknown.append(line)
        chosen |= matches
    if unknown:
        listed = ", ".join(repr(line) for line in unknown[:3]) + (" …" if len(unknown) > 3 else "")
        raise DataError(f"{len(unknown)} of {len(lines)} lines name no image: {listed}", where=str(file))
    return chosen


def _dice(path: str, seed: int | None) -> str:
    return hashlib.sha256(f"{seed}/{path}".encode("utf-8", "surrogateescape")).hexdigest()
