"""Prepared datasets with their caches, and recipes, as `hwdkit doctor` checks them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwdkit.commands.doctor.finding import Finding, counted, findings_of, first_line
from hwdkit.errors import HwdkitError

if TYPE_CHECKING:
    from hwdkit.data.index import DatasetIndex

SAMPLE = 64
"""Pairs of every split whose files are looked for."""


def datasets(data_root: Path) -> Iterator[Finding]:
    """Every prepared dataset can be read, its files are there, and its cache is its own."""
    from hwdkit.data.index import prepared_in

    if data_root.exists() and not data_root.is_dir():
        value = f"{data_root} is a file, not a folder"
        yield Finding("prepared", value, "problem", "hwdkit doctor --data-root …")
        return
    names = prepared_in(data_root)
    if not names:
        fix = f"hwdkit prepare-data scenes --data-root {shlex.quote(str(data_root))}"
        yield Finding("prepared", f"nothing in {data_root}", "note", fix)
    for name in names:
        yield from findings_of(name, partial(_dataset, data_root / name))


def _dataset(folder: Path) -> Iterator[Finding]:
    from hwdkit.data.cache_files import FOLDER, CachedSplit
    from hwdkit.data.index import load_index, prepare_command

    name, again = folder.name, prepare_command(folder)
    try:
        index = load_index(folder, files_must_exist=False)
    except HwdkitError as error:
        yield Finding(name, first_line(error), "problem", again + _source(name, {}), {"readable": False})
        return
    missing = _missing(index)
    caches = {split: CachedSplit(index, folder / FOLDER, split) for split in index.splits}
    states = {
        split: (cached.problem() or "current") if cached.header.exists() else "none"
        for split, cached in caches.items()
    }
    images = {split: len(pairs) for split, pairs in index.splits.items()}
    facts = {
        "images": images,
        "partial": index.partial,
        "fingerprint": index.fingerprint,
        "files_root": str(index.root),
        "missing": missing,
        "cache": states,
    }
    shown = sorted(set(states.values()), key=lambda state: state in ("none", "current"))
    counts = ", ".join(f"{count} {split}" for split, count in images.items())
    partly = ", partial" if index.partial else ""
    value = f"{counts}{partly}, fingerprint {index.fingerprint[:8]}, cache {' and '.join(shown)}"
    if missing:
        value = f"files are missing, such as {index.root / missing[0]}; {value}"
        yield Finding(name, value, "problem", again + _source(name, index.options), facts)
    elif not {"none", "current"}.issuperset(shown):
        yield Finding(name, value, "note", f"{again} --cache", facts)
    else:
        yield Finding(name, value, "note" if index.partial else "ok", facts=facts)


def _source(name: str, options: Mapping[str, Any]) -> str:
    """Say where files come from: from a download, or drawn again."""
    if name != "scenes":
        return " --source …"
    drawn = ((key, options.get(key)) for key in ("train", "val", "seed"))
    return "".join(f" --{key} {value}" for key, value in drawn if isinstance(value, int)) + " --overwrite"


def _missing(index: DatasetIndex) -> list[str]:
    """Files that are missing among an even sample of each split, the first and the last pair included."""
    missing: list[str] = []
    for pairs in index.splits.values():
        count = min(SAMPLE, len(pairs))
        sample = sorted({i * (len(pairs) - 1) // max(count - 1, 1) for i in range(count)})
        files = (file for i in sample for file in (pairs[i].image, pairs[i].label))
        missing += [file for file in files if not (index.root / file).is_file()]
    return missing


def recipes() -> Iterator[Finding]:
    """Every recipe that can be named loads."""
    from hwdkit.commands.recipes.listing import list_recipes
    from hwdkit.recipe.find import search_path, shipped, tree

    rows = list_recipes()
    folders = {folder.resolve(): folder for folder in reversed(search_path())}  # in a checkout two are one
    for path, folder in reversed(folders.items()):
        name = "shipped" if path == shipped().resolve() else str(folder)
        count = sum(path == tree(Path(row["path"])).resolve() for row in rows)
        facts = {"path": str(path), "recipes": count}
        if folder.is_dir():
            yield Finding(name, f"{counted(count, 'recipe')} in {path}", facts=facts)
        elif folder != Path("recipes"):  # which need not be there
            fix = "unset HWDKIT_RECIPES   (or let it name folders that exist, joined by :)"
            yield Finding(name, "named by HWDKIT_RECIPES, but no such folder", "note", fix, facts)
    for row in rows:
        if row["error"]:
            fix = f"hwdkit recipes validate {shlex.quote(row['path'] or row['name'])}"
            value = f"does not load: {row['error']}"
            yield Finding(row["name"], value, "problem", fix, {"path": row["path"]})
