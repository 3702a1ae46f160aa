"""From what a user downloaded, or owns, to a checked dataset with an index: what `hwdkit prepare-data` does.

Folders are read where they are, archives are unpacked first; no index is written until all has been checked.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwdkit.data.index import FILE_NAME, DatasetIndex, load_index, prepare_command, save_index
from hwdkit.data.parallel import Progress
from hwdkit.datasets.layout import Layout, how_to_get, locate
from hwdkit.datasets.scenes import SCENES
from hwdkit.datasets.table import layout_of
from hwdkit.errors import DataError
from hwdkit.prepare.own.folder import FolderOptions, describe
from hwdkit.prepare.scenes import SceneOptions, generate
from hwdkit.prepare.unpack import FILES, gather, unfinished
from hwdkit.prepare.verify import stamp_of, verify


def prepare(
    name: str,
    *,
    root: Path,
    source: Path | Sequence[Path] | None = None,
    own: FolderOptions | None = None,
    check: bool = False,
    allow_partial: bool = False,
    overwrite: bool = False,
    scenes: SceneOptions | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> DatasetIndex:
    """Check a dataset completely and write `root/name/dataset.json`, or draw the one that is drawn.

    The index refers to the files where they are; archives are unpacked to `root/name/files`. A second call
    finds nothing changed and returns at once.

    Args:
        name: key in `DATASETS`, or with `own` what the user's data is called.
        root: data root.
        source: the downloaded archives, the unpacked dataset, or the folder around it. None: it already lies
            in `root/name`, or was prepared from elsewhere before; for own data, else the current folder.
        own: of the user's own data; what it leaves open is as in the earlier index.
        check: check everything again, compare with the index if there is one, write nothing.
        allow_partial: accept counts other than the published ones, or files without a partner in own data;
            the index says so.
        overwrite: check again even if nothing changed; for scenes: draw again.
        scenes: what to draw; only for the dataset of that name.
        workers: processes; None = one a core.
        progress: called every few files.

    Raises:
        DataError: everything that is wrong with the data, at once. No index was written.
    """
    sources = [source] if isinstance(source, Path) else list(source or ())
    folder = root / name
    earlier = _index_or_none(folder)
    published = layout_of(name) if own is None else None
    if published is SCENES and sources:
        raise DataError("scenes are drawn by hwdkit: leave --source out")
    if published is SCENES and not check:
        drawn = scenes or SceneOptions()
        return generate(root, drawn, overwrite=overwrite, workers=workers, progress=progress)
    _require_unpacked(sources, folder, earlier)
    if sources:
        parts = () if published is None else published.must_have
        files = gather(
            sources, folder / FILES, parts=parts, write=not check, again=overwrite, progress=progress
        )
        if published is not None:
            files = locate(published, files, allow_partial=allow_partial)
        elif own is not None:
            files = _around(files, own.images or (earlier.options.get("images") if earlier else None))
    else:
        files = _files_below(folder, published, earlier, allow_partial=allow_partial)
    if own is not None:
        layout, options = describe(name, files, own, earlier=earlier, leave_out=allow_partial)
    else:
        layout, options = layout_of(name), {}
    if layout is SCENES and earlier is not None:
        options = earlier.options
        layout = replace(layout, published={split: options[split] for split in ("train", "val")})
    may_stay = earlier is not None and (allow_partial or not earlier.partial) and not (check or overwrite)
    if earlier is not None and may_stay and _is_current(earlier, layout, files, options):
        return earlier
    index = verify(
        layout, files, allow_partial=allow_partial, options=options, workers=workers, progress=progress
    )
    index = replace(index, partial=index.partial or options.get("left_out", False))
    if not check:
        save_index(index, folder)
    elif earlier is not None and earlier.fingerprint != index.fingerprint:
        raise DataError(
            f"{files} has no errors, but is not what {folder / FILE_NAME} describes: fingerprint "
            f"{index.fingerprint[:12]}, the index has {earlier.fingerprint[:12]}",
            hint=f"Run without --check to index it again: {prepare_command(folder)}",
        )
    return index


def _require_unpacked(sources: Sequence[Path], folder: Path, earlier: DatasetIndex | None) -> None:
    """Refuse to read what a stopped run has begun to unpack, unless this run will unpack it."""
    unpacked = folder / FILES
    if sources and not (len(sources) == 1 and sources[0].is_dir()):
        return  # to be unpacked now, or `gather` complains
    reads = sources[0] if sources else _indexed(earlier) or unpacked
    stopped = unfinished(unpacked)
    if stopped and reads.resolve().is_relative_to(unpacked.resolve()):
        raise DataError(
            f"{', '.join(stopped)} was not unpacked to the end",
            where=str(unpacked),
            hint="Run the command again with --source and the archive.",
        )


def _indexed(earlier: DatasetIndex | None) -> Path | None:
    """Where an earlier run found the files; None: nowhere, or they have moved away."""
    return earlier.root if earlier is not None and earlier.root.is_dir() else None


def _files_below(
    folder: Path, published: Layout | None, earlier: DatasetIndex | None, *, allow_partial: bool
) -> Path:
    """Find the files of a dataset without --source."""
    indexed, below = _indexed(earlier), [path for path in (folder / FILES, folder) if path.is_dir()]
    if indexed is not None:
        return indexed
    if published is not None and below:
        return locate(published, below[0], allow_partial=allow_partial)
    if published is not None:
        raise DataError(f"{folder} does not exist", hint=how_to_get(published))
    if earlier is not None:
        raise DataError(
            f"the files of {folder.name} are gone: {earlier.root} does not exist",
            where=str(folder / FILE_NAME),
            hint=f"Run: {prepare_command(folder)} --source …",
        )
    return below[0] if below else Path()


def _is_current(index: DatasetIndex, layout: Layout, files: Path, options: dict[str, Any]) -> bool:
    """Say whether a check would find nothing new. Looks at names, sizes and times, not at content."""
    # The splits and colours of a user's data may change while its files stay the same.
    pairs = {split: [(p.image, p.label) for p in pairs] for split, pairs in index.splits.items()}
    return (
        (index.root, index.options, index.palette) == (files.resolve(), options, layout.palette)
        and index.stamp == stamp_of(layout, files)
        and pairs == {split: listed for split, listed in layout.list_pairs(files).items() if listed}
    )


def _around(folder: Path, images: str | None) -> Path:
    """An archive often unpacks to one folder; the pattern may mean what is in it."""
    inside = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if not images or len(inside) != 1 or glob.glob(images, root_dir=folder, recursive=True):
        return folder
    return inside[0]


def _index_or_none(folder: Path) -> DatasetIndex | None:
    try:
        return load_index(folder, files_must_exist=False)
    except DataError:
        return None  # none yet, or one that cannot be used: make a new one
