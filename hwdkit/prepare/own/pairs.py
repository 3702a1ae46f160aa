"""Finds a user's own images and the label of each: a pattern for the ones, a template for the others."""

from __future__ import annotations

import glob
import itertools
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hwdkit.errors import DataError, UsageError

FIELDS = {
    "stem": "a of trip/photos/a.jpg",
    "name": "a.jpg",
    "parent": "photos",
    "folder": "its folders below the part of the pattern that has no wildcard",
}
EXAMPLE = (
    "As in: hwdkit prepare-data folder --name NAME --source ROOT --images 'photos/**/*.jpg' "
    "--labels 'masks/{stem}.png' --classes classes.yaml"
)


@dataclass(frozen=True)
class Files:
    """What lies below a root: images and their labels, and labels without an image.

    Attributes:
        images: sorted paths relative to the root.
        labels: image -> label, for those whose label exists.
        orphans: labels that belong to no image.
    """

    images: list[str]
    labels: dict[str, str]
    orphans: list[str]


def find_pairs(root: Path, images: str, template: str) -> Files:
    """Look for images and their labels.

    Raises:
        DataError: no image, no label at all, or a template that gives two images the same label.
    """
    paths = _files(root, images)
    folders = PurePosixPath(images).parts[:-1]
    start = PurePosixPath(*itertools.takewhile(lambda part: not glob.has_magic(part), folders))
    label_of = {path: _label_of(path, template, start) for path in paths}
    masks = set(label_of.values())
    # Where masks lie among the images, the pattern may find them too; a mask is not an image without a mask.
    label_of = {path: label for path, label in label_of.items() if path not in masks or label == path}
    if not label_of:
        entries = sorted(path.name + "/" * path.is_dir() for path in root.iterdir() if path.name[0] != ".")
        raise DataError(
            f"no image matches {images!r} below {root}",
            hint=f"It holds: {', '.join(entries[:12]) or 'nothing'}{' …' if len(entries) > 12 else ''}",
        )
    owner: dict[str, str] = {}
    for path, label in label_of.items():
        if label == path:
            raise DataError(f"--labels {template!r} gives the image {path} itself", hint=EXAMPLE)
        if label in owner:
            raise DataError(
                f"--labels {template!r} gives {owner[label]} and {path} the same label {label}",
                hint="Distinguish them by {parent}, {folder} or {name}.",
            )
        owner[label] = path
    everywhere = set(_files(root, _as_pattern(template)))
    labels = {
        path: label for path, label in label_of.items() if label in everywhere or (root / label).is_file()
    }
    if not labels:
        path, label = next(iter(label_of.items()))
        raise DataError(
            f"no image has a label: {label} does not exist, which --labels {template!r} gives for {path}",
            where=str(root),
            hint="Fields: " + "; ".join(f"{{{field}}} {what}" for field, what in FIELDS.items()),
        )
    return Files(sorted(label_of), labels, sorted(everywhere - masks - label_of.keys()))


def _files(root: Path, pattern: str) -> list[str]:
    matches = (PurePosixPath(path).as_posix() for path in glob.glob(pattern, root_dir=root, recursive=True))
    return sorted({path for path in matches if (root / path).is_file()})


def _label_of(image: str, template: str, start: PurePosixPath) -> str:
    path = PurePosixPath(image)
    values = {
        "stem": path.stem,
        "name": path.name,
        "parent": path.parent.name,
        "folder": path.parent.relative_to(start).as_posix(),
    }
    filled = re.sub(r"\{(\w+)\}", lambda match: values[match[1]], template)
    return PurePosixPath(filled.lstrip("/")).as_posix()  # `{parent}/…` of an image without a folder


def _as_pattern(template: str) -> str:
    parts = re.split(r"(\{\w+\})", template)
    wild = {f"{{{field}}}": "**" if field == "folder" else "*" for field in FIELDS}
    return "".join(wild.get(part) or glob.escape(part) for part in parts)


def check_template(template: str) -> None:
    """Raise a UsageError unless a label's template has fields that exist, and one that tells images apart."""
    fields = re.findall(r"\{(.*?)\}", template)
    for field in fields:
        if field not in FIELDS:
            listed = ", ".join(f"{{{name}}}" for name in FIELDS)
            raise UsageError(f"--labels {template!r}: there is no field {{{field}}}; there are {listed}")
    if not {"stem", "name"} & set(fields):
        raise UsageError(f"--labels {template!r} gives all images one label: it needs {{stem}} or {{name}}")


def below_source(option: str, value: str | None) -> str:
    """Raise a UsageError unless a pattern is there, and stays below --source."""
    if not value:
        raise UsageError(f"folder needs {option}", hint=EXAMPLE)
    if value.startswith(("/", "~")) or ".." in PurePosixPath(value).parts:
        raise UsageError(f"{option} {value!r} must lie below --source: no leading '/', no '..'", hint=EXAMPLE)
    return value.removeprefix("./")
