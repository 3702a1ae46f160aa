"""How a dataset lies on disk: the description that each dataset file fills in, and the pairing of its files.

Only names of files are looked at here; their content is checked by `prepare/verify.py`.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from hwdkit.errors import DataError


class SplitFiles(NamedTuple):
    """Images and labels of one split by the key that pairs them; paths relative to the root."""

    images: dict[str, str]
    labels: dict[str, str]

    def only(self, keys: Collection[str]) -> SplitFiles:
        """Those of these keys, in their order."""
        images, labels = ({key: side[key] for key in keys if key in side} for side in self)
        return SplitFiles(images, labels)


@dataclass(frozen=True)
class Layout:
    """What hwdkit knows of a dataset before it has seen a file.

    Attributes:
        name: key in `DATASETS`.
        classes, palette: official names and RGB colours in class order.
        label_map: raw id in the label files -> class, 255 = ignore. An id that is not a key is an error.
        licence: one line, as far as known.
        list_files: finds the files of each split below the root.
        published: pairs per split as published; empty for a user's own data.
        optional: splits that may be absent.
        inner_folders: folders that the dataset's archive unpacks to, looked for below --source.
        must_have: files or folders (alternatives joined by "|") without which this is not the dataset.
        expected: the files on disk, as text for people.
        how_to_get: where it comes from, as text for people.
        label_colours: colour -> raw id for labels that are painted; None = the files hold the ids.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    label_map: Mapping[int, int]
    licence: str
    list_files: Callable[[Path], dict[str, SplitFiles]]
    published: Mapping[str, int] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    inner_folders: tuple[str, ...] = ()
    must_have: tuple[str, ...] = ()
    expected: str = ""
    how_to_get: str = ""
    label_colours: Mapping[tuple[int, int, int], int] | None = None

    def list_pairs(self, root: Path) -> dict[str, list[tuple[str, str]]]:
        """List (image, label) by split, sorted by key; files without a partner are left out.

        Args:
            root: what `locate` returned.
        """
        return {split: paired(files) for split, files in self.list_files(root).items()}


def rows_of(table: str) -> list[dict[str, str]]:
    """Read a table of classes, `tables/TABLE.csv`."""
    with (Path(__file__).parent / "tables" / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def files_in(root: Path, folder: str | PurePosixPath, suffix: str) -> dict[str, str]:
    """List the files of one folder and of the folders directly below it, by key.

    Args:
        root: paths are returned relative to it.
        folder: below root; one that does not exist has no files.
        suffix: end of the name. The key is the path below `folder` without it.

    Returns:
        key -> path relative to root, with forward slashes.
    """
    files: dict[str, str] = {}
    start = root / folder
    if not start.is_dir():
        return files
    for below in ("", *sorted(entry.name for entry in os.scandir(start) if entry.is_dir())):
        for entry in os.scandir(start / below):
            # Hidden files are the litter of archivers (._x.png), never data.
            if entry.name.endswith(suffix) and not entry.name.startswith("."):
                key = f"{below}/{entry.name}" if below else entry.name
                files[key.removesuffix(suffix)] = f"{folder}/{key}"
    return files


def names_in(path: Path) -> list[str]:
    """Read a list of names, one a line; a list that does not exist names nothing.

    Raises:
        DataError: it is there and cannot be read as text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("cannot be read as a list of names", where=str(path)) from error
    return [line.strip() for line in lines if line.strip()]


def first_folder(root: Path, *candidates: str) -> str:
    """Choose the first of these folders that exists below the root, or else the first of all."""
    return next((folder for folder in candidates if (root / folder).is_dir()), candidates[0])


def paired(files: SplitFiles) -> list[tuple[str, str]]:
    """Join images and labels that share a key, sorted by key."""
    return [
        (files.images[key], files.labels[key]) for key in sorted(files.images.keys() & files.labels.keys())
    ]


def unpaired(files: SplitFiles) -> list[str]:
    """Name every image without a label and every label without an image, one line each."""
    without_label = sorted(files.images.keys() - files.labels.keys())
    without_image = sorted(files.labels.keys() - files.images.keys())
    return [f"{files.images[key]}: has no label" for key in without_label] + [
        f"{files.labels[key]}: has no image" for key in without_image
    ]


def locate(layout: Layout, source: Path, *, allow_partial: bool = False) -> Path:
    """Find the dataset's root: the folder that was named, or the one that its archive unpacks to inside.

    Args:
        layout: which dataset.
        source: where to look.
        allow_partial: some of the expected folders are enough.

    Raises:
        DataError: no such folder, or a folder without the expected layout.
    """
    if not source.is_dir():
        raise DataError(f"{source} is not a folder", hint=how_to_get(layout))
    for root in (source, *(source / inner for inner in layout.inner_folders)):
        missing = _missing(layout, root)
        some = len(missing) < len(layout.must_have)
        if not missing or (some and allow_partial):
            return root
        if some:
            # Part of it is here, so this is the folder that was meant: say what is lacking in it.
            raise DataError(f"{root} has no {' and no '.join(missing)}", hint=how_to_get(layout))
    raise DataError(f"{source} does not look like {layout.name}", hint=how_to_get(layout))


def how_to_get(layout: Layout) -> str:
    """Say where a dataset comes from, what it must look like on disk, and the command to type."""
    expected = "\n".join(f"    {line}" for line in layout.expected.splitlines())
    return (
        f"{layout.how_to_get}\n  Expected files:\n{expected}\n"
        f"  Then: hwdkit prepare-data {layout.name} --source FOLDER   (or --source ARCHIVE, for each of them)"
    )


def _missing(layout: Layout, root: Path) -> list[str]:
    missing = []
    for alternatives in layout.must_have:
        first, *others = alternatives.split("|")
        if not any((root / path).exists() for path in (first, *others)):
            missing.append(f"{first} (or {', '.join(others)})" if others else first)
    return missing
