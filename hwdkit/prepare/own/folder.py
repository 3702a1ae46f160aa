"""A user's own images and masks, described like a published dataset: what `prepare-data folder` does.

The result is a `Layout`, so that checking, indexing and reading are those of every dataset. `pairs.py` finds
the pairs, `class_table.py` reads the classes file, `splits.py` makes the splits.
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
from hwdkit.prepare.own.pairs import EXAMPLE, Files, below_source, check_template, find_pairs
from hwdkit.prepare.own.splits import SplitRule, divide

Encoding = Literal["ids", "colours"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
PAINTED_MODES = ("RGB", "RGBA", "CMYK", "YCbCr")


@dataclass(frozen=True)
class FolderOptions:
    """The command line's options of a user's own data; None = as the index has it, or the default.

    Attributes:
        images: glob below the source; `**` is any number of folders.
        labels: where an image's label lies, below the source, with the fields of `pairs.FIELDS`.
        classes: what `read_class_table` reads.
        encoding: whether labels hold ids or colours; None = as the first label.
        splits: how to divide the images.
    """

    images: str | None = None
    labels: str | None = None
    classes: Path | None = None
    encoding: Encoding | None = None
    splits: SplitRule = field(default_factory=SplitRule)


def require_name(name: str | None, taken: Mapping[str, object]) -> str:
    """Return the name of a user's dataset if it can be one.

    Raises:
        UsageError: no name, not the name of a folder, or one that hwdkit uses itself.
    """
    if not name:
        raise UsageError(
            "folder needs --name: the name of your data, in recipes `data.dataset`", hint=EXAMPLE
        )
    if not NAME.fullmatch(name):
        raise UsageError(f"--name {name!r}: use letters, digits, '.', '_' and '-' only: it names a folder")
    if name == "folder" or name.lower() in taken:
        raise UsageError(f"--name {name}: hwdkit uses this name itself; choose another")
    return name


def describe(
    name: str, root: Path, options: FolderOptions, *, earlier: DatasetIndex | None, leave_out: bool
) -> tuple[Layout, dict[str, Any]]:
    """Describe a user's data as a layout like a published one's, and by the options that its index records.

    Args:
        name: of the dataset.
        root: folder that pattern and template are relative to.
        options: what the command line says.
        earlier: the index of an earlier run, if any.
        leave_out: images without label, and labels without image, are left out and not a fault.

    Raises:
        UsageError: an option is missing, and no earlier index has it.
        DataError: the pattern finds nothing, the template no label, or classes and masks do not fit.
    """
    earlier_options = earlier.options if earlier is not None else {}
    images = below_source("--images", options.images or earlier_options.get("images"))
    template = below_source("--labels", options.labels or earlier_options.get("labels"))
    check_template(template)
    files = find_pairs(root, images, template)
    encoding = options.encoding or (
        earlier_options.get("label_encoding") if options.classes is None else None
    )
    painted = (encoding or _encoding_of(root, files)) == "colours"
    table = _class_table(options.classes, earlier, painted=painted)
    rule = options.splits.or_else(earlier_options.get("splits", {})).resolved(root)
    # Also raises what is wrong with the splits before hours of checking.
    everything = _list_files(files, rule, root, earlier, leave_out=False)

    def list_files(root: Path) -> dict[str, SplitFiles]:
        return _list_files(find_pairs(root, images, template), rule, root, earlier, leave_out=leave_out)

    layout = Layout(
        name=name,
        classes=table.names,
        palette=table.palette,
        label_map=table.label_map,
        label_colours=table.label_colours if painted else None,
        licence="your own data",
        list_files=list_files,
    )
    recorded = {
        "kind": "folder",
        "images": images,
        "labels": template,
        "label_encoding": "colours" if painted else "ids",
        "splits": rule.to_dict(),
        "left_out": leave_out and any(unpaired(split) for split in everything.values()),
    }
    return layout, recorded


def _list_files(
    files: Files, rule: SplitRule, root: Path, earlier: DatasetIndex | None, *, leave_out: bool
) -> dict[str, SplitFiles]:
    splits = {}
    for split, members in divide(files.images, rule, root=root, earlier=earlier).items():
        labels = {path: files.labels[path] for path in members if path in files.labels}
        splits[split] = SplitFiles(
            {path: path for path in members if path in labels or not leave_out}, labels
        )
    if not leave_out:
        splits["train"].labels.update({label: label for label in files.orphans})  # each is a fault
    return splits


def _class_table(path: Path | None, earlier: DatasetIndex | None, *, painted: bool) -> ClassTable:
    if path is None:
        if earlier is None:
            raise UsageError("folder needs --classes: a file with the names of the classes", hint=EXAMPLE)
        assert earlier.label_map is not None
        table = ClassTable(earlier.classes, earlier.palette, earlier.label_map, earlier.label_colours)
    else:
        table = read_class_table(path)
    if painted and table.label_colours is None:
        raise DataError(
            "labels are painted in colours (RGB), but the classes have no colours",
            where=str(path or "the index"),
            hint="Give each class its colour in the classes file, or save the labels as PNGs of ids.",
        )
    return table


def _encoding_of(root: Path, files: Files) -> Encoding:
    """Look at the header of the first label; the full check looks at the others."""
    first = root / files.labels[min(files.labels)]
    try:
        with Image.open(first, formats=FORMATS) as image:
            return "colours" if image.mode in PAINTED_MODES else "ids"
    except (OSError, UnidentifiedImageError):
        return "ids"
