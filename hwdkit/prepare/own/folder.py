"""A user's own images and masks, described like a published dataset: what `prepare-data folder` does.

What comes out is a `Layout`, so that checking, indexing and reading are those of every dataset. Which files
belong together is `own_pairs.py`, what the classes file may say `class_table.py`, who is in which split
`own_splits.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image, UnidentifiedImageError

from hwdkit.data.decode import FORMATS
from hwdkit.data.index import DatasetIndex
from hwdkit.datasets.layout import Layout, SplitFiles, unpaired
from hwdkit.errors import DataError, UsageError
from hwdkit.prepare.own.class_table import ClassTable, read_class_table
from hwdkit.prepare.own.pairs import EXAMPLE, Found, below_source, check_template, find_pairs
from hwdkit.prepare.own.splits import SplitRule, divide

Encoding = Literal["ids", "colours"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
PAINTED_MODES = ("RGB", "RGBA", "CMYK", "YCbCr")


@dataclass(frozen=True)
class FolderOptions:
    """What the command line says of a user's own data; None = as the index has it, or the default.

    Attributes:
        images: glob below the source; `**` is any number of folders.
        labels: where an image's label lies, below the source, with the fields of `own_pairs.FIELDS`.
        classes: what `read_class_table` reads.
        encoding: whether labels hold ids or colours; None = look at the first.
        splits: how to divide them.
    """

    images: str | None = None
    labels: str | None = None
    classes: Path | None = None
    encoding: Encoding | None = None
    splits: SplitRule = field(default_factory=SplitRule)


def require_name(name: str | None, taken: Mapping[str, object]) -> str:
    """Return the name of a user's dataset if it can be one.

    Raises:
        UsageError: none given, not the name of a folder, or one that hwdkit uses itself.
    """
    if not name:
        raise UsageError(
            "folder needs --name: what your data is called, in recipes as `data.dataset`", hint=EXAMPLE
        )
    if not NAME.fullmatch(name):
        raise UsageError(f"--name {name!r}: letters, digits, '.', '_' and '-' only: it names a folder")
    if name == "folder" or name.lower() in taken:
        raise UsageError(f"--name {name}: this is a name of hwdkit's own; choose another")
    return name


@dataclass(frozen=True)
class OwnData:
    """A user's dataset before its files have been read: how it lies, and what its index shall record.

    Attributes:
        layout: as of a published dataset.
        options: to be recorded in the index.
        without_partner: images without label and labels without image: faults, or left out.
    """

    layout: Layout
    options: dict[str, Any]
    without_partner: int


def describe(
    name: str, root: Path, asked: FolderOptions, *, before: DatasetIndex | None, leave_out: bool
) -> OwnData:
    """Bring together what is asked for and what an earlier index remembers.

    Args:
        name: of the dataset.
        root: folder that pattern and template are relative to.
        asked: what the command line says.
        before: the index of an earlier run, if any.
        leave_out: images without label, and labels without image, are left out and not a fault.

    Raises:
        UsageError: something is missing that nobody remembers.
        DataError: the pattern finds nothing, the template no label, or classes and masks do not fit.
    """
    known = before.options if before is not None else {}
    images = below_source("--images", asked.images or known.get("images"))
    template = below_source("--labels", asked.labels or known.get("labels"))
    check_template(template)
    found = find_pairs(root, images, template)
    encoding = asked.encoding or (known.get("label_encoding") if asked.classes is None else None)
    painted = (encoding or _encoding_of(root, found)) == "colours"
    table = _class_table(asked.classes, before, painted=painted)
    rule = asked.splits.or_else(known.get("splits")).resolved(root)
    everything = _list_files(found, rule, root, before, leave_out=False)  # complains before hours of checking
    without_partner = sum(len(unpaired(files)) for files in everything.values())

    def list_files(root: Path) -> dict[str, SplitFiles]:
        return _list_files(find_pairs(root, images, template), rule, root, before, leave_out=leave_out)

    layout = Layout(
        name=name,
        classes=table.names,
        palette=table.palette,
        label_map=table.label_map,
        label_colours=table.label_colours if painted else None,
        published={},
        inner_folders=(),
        must_have=(),
        expected=f"{images} and {template}",
        how_to_get="Your own data.",
        licence="your own data",
        list_files=list_files,
    )
    options = {
        "kind": "folder",
        "images": images,
        "labels": template,
        "label_encoding": "colours" if painted else "ids",
        "splits": rule.to_dict(),
        "left_out": leave_out and without_partner > 0,
    }
    return OwnData(layout, options, without_partner)


def _list_files(
    found: Found, rule: SplitRule, root: Path, before: DatasetIndex | None, *, leave_out: bool
) -> dict[str, SplitFiles]:
    splits = {}
    for split, members in divide(found.images, rule, root=root, before=before).items():
        labels = {path: found.labels[path] for path in members if path in found.labels}
        splits[split] = SplitFiles(
            {path: path for path in members if path in labels or not leave_out}, labels
        )
    if not leave_out:
        splits["train"].labels.update({label: label for label in found.orphans})  # each is a fault
    return splits


def _class_table(path: Path | None, before: DatasetIndex | None, *, painted: bool) -> ClassTable:
    if path is None:
        if before is None:
            raise UsageError("folder needs --classes: a file with the names of the classes", hint=EXAMPLE)
        assert before.label_map is not None
        table = ClassTable(before.classes, before.palette, before.label_map, before.label_colours)
    else:
        table = read_class_table(path)
    if painted and table.label_colours is None:
        raise DataError(
            "labels are painted in colours (RGB), but the classes have none to tell them by",
            where=str(path or "the index"),
            hint="Give each class its colour in the classes file, or save the labels as PNGs of ids.",
        )
    return table


def _encoding_of(root: Path, found: Found) -> Encoding:
    """Look at the header of the first label; what the others are, the check of all of them says."""
    first = root / found.labels[min(found.labels)]
    try:
        with Image.open(first, formats=FORMATS) as image:
            return "colours" if image.mode in PAINTED_MODES else "ids"
    except (OSError, UnidentifiedImageError):
        return "ids"
