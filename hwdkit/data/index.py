"""The index of a prepared dataset (`dataset.json`): what every reader of pixels starts from.

The value types and their JSON form live here; checking files and making an index is `hwdkit/prepare`.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hwdkit.datasets.table import DATASETS
from hwdkit.errors import DataError
from hwdkit.types import IGNORE

SCHEMA_VERSION = 1
MAX_SIDE = 2**20
MAX_RAW_ID = 2**16 - 1
"""No image is larger, and no label file holds larger ids."""

FILE_NAME = "dataset.json"


class Pair(NamedTuple):
    """One image and its label.

    Attributes:
        image, label: paths relative to the index's root, with forward slashes.
        height, width: pixels, the same for both files.
    """

    image: str
    label: str
    height: int
    width: int


@dataclass(frozen=True)
class SplitStatistics:
    """What the labels of one split contain.

    Attributes:
        images: number of pairs.
        pixels: pixels per class, in class order.
        ignored: pixels that are mapped to 255.
        raw_ids: pixels per id in the files, before the label map.
    """

    images: int
    pixels: tuple[int, ...]
    ignored: int
    raw_ids: dict[int, int]


@dataclass(frozen=True)
class DatasetIndex:
    """A dataset that has been checked: its classes, its pairs, and what its labels contain.

    Attributes:
        name: key in `DATASETS`, or what a user calls data of their own.
        classes, palette: names and RGB colours in class order.
        label_map: raw id in the files -> class (255 = ignore); None = identity with 255 = ignore.
        splits: pairs by split, sorted by path.
        root: folder that the pairs' paths are relative to.
        statistics: by split.
        fingerprint: sha256 over the class table, the label map, and every path and file content.
        partial: True when the counts are not the published ones.
        licence: one line, as far as known.
        options: how a generated dataset was made, or where a user's own one lies; empty for downloaded ones.
        stamp: sha256 over paths, sizes and modification times: says cheaply that nothing was touched.
        label_colours: colour -> raw id for labels that are painted; None = the files hold the ids.
            `colours.label_reader` reads either.
        folder: where `dataset.json` was read from, and where a cache lies; None before it was written.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    label_map: dict[int, int] | None
    splits: dict[str, tuple[Pair, ...]]
    root: Path
    statistics: dict[str, SplitStatistics]
    fingerprint: str
    partial: bool = False
    licence: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    stamp: str = ""
    label_colours: dict[tuple[int, int, int], int] | None = None
    folder: Path | None = field(default=None, compare=False)


def save_index(index: DatasetIndex, folder: Path) -> Path:
    """Write `folder/dataset.json` so that a reader sees the old file or the new one, never a half.

    Args:
        index: what to write. Its root is stored relative to `folder` when it lies inside, else absolute.
        folder: created if needed.

    Returns:
        The path written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    handle, temporary = tempfile.mkstemp(prefix=f".{FILE_NAME}.", dir=folder)
    try:
        # surrogateescape: file names that are no UTF-8 come back as they were.
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(_to_json(index, folder), file, indent=1, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; an index is as public as the images beside it.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def load_index(folder: Path, *, files_must_exist: bool = True) -> DatasetIndex:
    """Read the index of a prepared dataset.

    Args:
        folder: `<data root>/<dataset>`.
        files_must_exist: False reads the index of data that has moved, for what it says of itself.

    Raises:
        DataError: no index, an unreadable or foreign one, or its files have moved away.
    """
    path, name = folder / FILE_NAME, folder.name
    again = f"Run: {prepare_command(folder)}"
    if not path.is_file() and name not in DATASETS:
        raise _unknown(folder)
    if not path.is_file():
        needs = "" if name == "scenes" else " --source …"  # scenes is drawn
        raise DataError(f"no prepared dataset at {folder} (no {FILE_NAME})", hint=f"{again}{needs}")
    try:
        index = _from_json(json.loads(path.read_text(encoding="utf-8", errors="surrogateescape")), folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if name in DATASETS:
            needs = "" if name == "scenes" else "\n  with --source …, if its files are elsewhere"
        else:
            needs = " --source … --images … --labels … --classes …"
        raise DataError(
            f"not a dataset index of this version ({error})",
            where=str(path),
            hint=f"{again} --overwrite{needs}",
        ) from error
    for split, pairs in index.splits.items() if files_must_exist else ():
        missing = next((p for p in (pairs[0].image, pairs[0].label) if not (index.root / p).is_file()), None)
        if missing is not None:
            raise DataError(
                f"the files of split {split} are gone: {index.root / missing} does not exist",
                where=str(path),
                hint=f"{again} --source …",
            )
    return index


def prepare_command(folder: Path) -> str:
    """The command that prepares the dataset at `<data root>/<dataset>`, without further options."""
    name = shlex.quote(folder.name)
    kind = name if folder.name in DATASETS else f"folder --name {name}"
    return f"hwdkit prepare-data {kind} --data-root {shlex.quote(str(folder.parent))}"


def prepared_in(root: Path) -> list[str]:
    """Name the datasets that are prepared in a data root."""
    return sorted(path.parent.name for path in root.glob(f"[!.]*/{FILE_NAME}"))


def _unknown(folder: Path) -> DataError:
    prepared = prepared_in(folder.parent)
    close = difflib.get_close_matches(folder.name, [*prepared, *DATASETS], n=1)
    guess = f"Did you mean {close[0]!r}? " if close else ""
    return DataError(
        f"unknown dataset {folder.name!r}",
        hint=f"{guess}Prepared in {folder.parent}: {', '.join(prepared) or 'none'}. hwdkit knows "
        f"{', '.join(DATASETS)}.\n  Your own data: hwdkit prepare-data folder --name {folder.name} …",
    )


def _to_json(index: DatasetIndex, folder: Path) -> dict[str, Any]:
    root, home = index.root.resolve(), folder.resolve()
    colours = index.label_colours
    return {
        "schema_version": SCHEMA_VERSION,
        "name": index.name,
        "fingerprint": index.fingerprint,
        "partial": index.partial,
        "licence": index.licence,
        "options": index.options,
        "files_root": root.relative_to(home).as_posix() if root.is_relative_to(home) else str(root),
        "stamp": index.stamp,
        "classes": [
            {"name": name, "colour": colour}
            for name, colour in zip(index.classes, index.palette, strict=True)
        ],
        "label_map": index.label_map and dict(sorted(index.label_map.items())),
        "label_colours": colours and [[*colour, raw] for colour, raw in colours.items()],
        "statistics": {
            split: {**vars(contents), "raw_ids": dict(sorted(contents.raw_ids.items()))}
            for split, contents in index.statistics.items()
        },
        "splits": index.splits,
    }


def _from_json(document: dict[str, Any], folder: Path) -> DatasetIndex:
    version = document["schema_version"]
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema_version {version}, this hwdkit reads {SCHEMA_VERSION}")
    label_map, classes = document["label_map"], document["classes"]
    # An index from before there were painted labels has no such key.
    colours = document.get("label_colours")
    index = DatasetIndex(
        name=document["name"],
        classes=tuple(entry["name"] for entry in classes),
        palette=tuple((r, g, b) for r, g, b in (entry["colour"] for entry in classes)),
        label_map=None if label_map is None else {int(raw): c for raw, c in label_map.items()},
        splits={split: tuple(Pair(*pair) for pair in pairs) for split, pairs in document["splits"].items()},
        root=(folder / document["files_root"]).resolve(),
        statistics={
            split: SplitStatistics(
                images=contents["images"],
                pixels=tuple(contents["pixels"]),
                ignored=contents["ignored"],
                raw_ids={int(raw): count for raw, count in contents["raw_ids"].items()},
            )
            for split, contents in document["statistics"].items()
        },
        fingerprint=document["fingerprint"],
        partial=document["partial"],
        licence=document["licence"],
        options=document["options"],
        stamp=document["stamp"],
        label_colours=None if colours is None else {(r, g, b): raw for r, g, b, raw in colours},
        folder=folder,
    )
    _require_sound(index)
    return index


def _require_sound(index: DatasetIndex) -> None:
    """An index may come from outside; nothing in it shall surprise those who read pixels or write a cache.

    Raises:
        ValueError: what is not as `save_index` writes it.
    """
    if not index.splits or not all(index.splits.values()):
        raise ValueError("a split without pairs")
    strange = [split for split in index.splits if not re.fullmatch(r"[A-Za-z0-9_-]+", split)]
    if strange or not index.splits.keys() <= index.statistics.keys():
        raise ValueError(f"splits {', '.join(map(repr, index.splits))}")
    for pair in (pair for pairs in index.splits.values() for pair in pairs):
        paths, sides = (pair.image, pair.label), (pair.height, pair.width)
        are_sides = all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in sides)
        if not are_sides or not all(isinstance(path, str) for path in paths):
            raise ValueError(f"pair {pair}")
    for raw, mapped in (index.label_map or {}).items():
        if not -1 <= raw <= MAX_RAW_ID or not (mapped == IGNORE or 0 <= mapped < len(index.classes)):
            raise ValueError(f"label map {raw}: {mapped}")
