"""From what a user downloaded, or owns, to a checked dataset with an index: what `hwdkit prepare-data` does.

Folders are read where they are, archives are unpacked first; no index is written until all has been checked.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwdkit.data.index import FILE_NAME, DatasetIndex, load_index, save_index
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
        own: the user's own data; what it leaves open is as in the earlier index.
        check: check everything again, compare with the index if there is one, write nothing.
        allow_partial: accept counts other than the published ones, or files without a partner in own data;
            the index says so.
        overwrite: check again even if nothing changed; for scenes: draw again.
        scenes: what to draw; only for the dataset of that name.
        workers: processes; None = one a core.
        progress: told of every few files.

    Raises:
        DataError: whatever is wrong with the data, all of it at once. No index was written.
    """
    sources = [source] if isinstance(source, Path) else list(source or ())
    folder = root / name
    earlier = _index_or_none(folder)
    if own is None and layout_of(name) is SCENES:
        if sources:
            raise DataError(
                "scenes is drawn by hwdkit: it takes no --source", hint="Run: hwdkit prepare-data scenes"
            )
        if not check:
            drawn = scenes or SceneOptions()
            return generate(root, drawn, overwrite=overwrite, workers=workers, progress=progress)
    origin = _Origin(
        folder, sources, earlier, check=check, overwrite=overwrite, workers=workers, progress=progress
    )
    origin.require_finished()
    if own is None:
        plan = _published(layout_of(name), origin, allow_partial=allow_partial)
    else:
        plan = _own(name, own, origin, allow_partial=allow_partial)
    if earlier is not None and not (check or overwrite) and plan.describes(earlier):
        return earlier
    index = verify(
        plan.layout,
        plan.files,
        published=plan.published,
        allow_partial=plan.allow_partial,
        options=plan.options,
        workers=workers,
        progress=progress,
    )
    index = replace(index, partial=index.partial or plan.without_partner > 0)
    if not check:
        save_index(index, folder)
    elif earlier is not None and earlier.fingerprint != index.fingerprint:
        kind = name if own is None else f"folder --name {name}"
        raise DataError(
            f"{plan.files} is sound, but is not what {folder / FILE_NAME} describes: fingerprint "
            f"{index.fingerprint[:12]}, the index has {earlier.fingerprint[:12]}",
            hint=f"Run without --check to index it again: hwdkit prepare-data {kind} --data-root {root}",
        )
    return index


@dataclass(frozen=True)
class _Origin:
    """Where a dataset is looked for, and what may be done there."""

    folder: Path
    sources: Sequence[Path]
    earlier: DatasetIndex | None
    check: bool
    overwrite: bool
    workers: int | None
    progress: Progress | None

    @property
    def unpacked(self) -> Path:
        return self.folder / FILES

    @property
    def indexed(self) -> Path | None:
        """Where an earlier run found the files; None: nowhere, or they have moved away."""
        return self.earlier.root if self.earlier is not None and self.earlier.root.is_dir() else None

    def require_finished(self) -> None:
        """Refuse to read what a stopped run has begun to unpack, unless this run will unpack it."""
        if len(self.sources) == 1 and self.sources[0].is_dir():
            read = self.sources[0]
        elif self.sources:
            return  # to be unpacked now, or `gather` complains
        else:
            read = self.indexed or self.unpacked
        stopped = unfinished(self.unpacked)
        if stopped and read.resolve().is_relative_to(self.unpacked.resolve()):
            raise DataError(
                f"{', '.join(stopped)} was not unpacked to the end",
                where=str(self.unpacked),
                hint="Run the command again with --source and the archive.",
            )

    def gathered(self, parts: Sequence[str] = ()) -> Path:
        return gather(
            self.sources,
            self.unpacked,
            parts=parts,
            write=not self.check,
            again=self.overwrite,
            progress=self.progress,
        )


@dataclass(frozen=True)
class _Plan:
    """What is to be checked, and what its index will record."""

    layout: Layout
    files: Path
    published: Mapping[str, int]
    allow_partial: bool
    options: dict[str, Any] | None
    without_partner: int = 0

    def describes(self, index: DatasetIndex) -> bool:
        """Say whether the check would find nothing new. Looks at names, sizes and times, not at content."""
        if index.root != self.files.resolve() or index.stamp != stamp_of(self.layout, self.files):
            return False
        if self.options is None or self.layout is SCENES:
            return self.allow_partial or not index.partial
        if self.without_partner and not index.partial:
            return False  # a file has come whose partner has not
        # The splits and colours of own data may change while its files stay the same.
        splits = {split: [(p.image, p.label) for p in pairs] for split, pairs in index.splits.items()}
        same_splits = splits == self.layout.list_pairs(self.files)
        return same_splits and index.options == self.options and index.palette == self.layout.palette


def _published(layout: Layout, origin: _Origin, *, allow_partial: bool) -> _Plan:
    files = _find_files(layout, origin, allow_partial=allow_partial)
    if layout is SCENES and origin.earlier is not None:
        counts = {split: origin.earlier.options[split] for split in ("train", "val")}
        return _Plan(layout, files, counts, allow_partial, origin.earlier.options)
    return _Plan(layout, files, layout.published, allow_partial, None)


def _find_files(layout: Layout, origin: _Origin, *, allow_partial: bool) -> Path:
    if origin.sources:
        return locate(layout, origin.gathered(layout.must_have), allow_partial=allow_partial)
    if origin.indexed is not None:
        return origin.indexed
    if not origin.folder.is_dir():
        raise DataError(f"{origin.folder} does not exist", hint=how_to_get(layout))
    source = origin.unpacked if origin.unpacked.is_dir() else origin.folder
    return locate(layout, source, allow_partial=allow_partial)


def _own(name: str, options: FolderOptions, origin: _Origin, *, allow_partial: bool) -> _Plan:
    earlier = origin.earlier
    if origin.sources:
        images = options.images or (earlier.options.get("images") if earlier else None)
        files = _around(origin.gathered(), images)
    elif origin.indexed is not None:
        files = origin.indexed
    elif earlier is not None:
        raise DataError(
            f"the files of {name} are gone: {earlier.root} does not exist",
            where=str(origin.folder / FILE_NAME),
            hint=f"Run: hwdkit prepare-data folder --name {name} --source …",
        )
    else:
        files = next((folder for folder in (origin.unpacked, origin.folder) if folder.is_dir()), Path())
    data = describe(name, files, options, earlier=earlier, leave_out=allow_partial)
    return _Plan(
        data.layout,
        files,
        {},
        allow_partial=False,
        options=data.options,
        without_partner=data.without_partner,
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
        return None  # none yet, or one that is worth nothing: make a new one
