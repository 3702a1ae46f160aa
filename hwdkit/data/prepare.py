"""From files on a disk to a checked dataset with an index: what `hwdkit prepare-data` does.

Nothing is copied and nothing is written until everything has been checked.
"""

from __future__ import annotations

from pathlib import Path

from hwdkit.data.datasets import layout_of
from hwdkit.data.generate import SCENES, SceneOptions, generate
from hwdkit.data.index import FILE_NAME, DatasetIndex, load_index, save_index
from hwdkit.data.layout import Layout, how_to_get, locate
from hwdkit.data.parallel import Progress
from hwdkit.data.verify import stamp_of, verify
from hwdkit.errors import DataError


def prepare(
    name: str,
    *,
    root: Path,
    source: Path | None = None,
    check: bool = False,
    allow_partial: bool = False,
    overwrite: bool = False,
    scenes: SceneOptions | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> DatasetIndex:
    """Check a dataset completely and write `root/name/dataset.json`, or draw the one that is drawn.

    The index refers to the files where they are. A second call finds nothing changed and returns at once.

    Args:
        name: key in `DATASETS`.
        root: data root.
        source: the unpacked dataset, or the folder around it. None: it already lies in `root/name`, or was
            prepared from elsewhere before.
        check: check everything again, compare with the index if there is one, write nothing.
        allow_partial: accept counts other than the published ones; the index says so.
        overwrite: check again even if nothing changed; for scenes: draw again.
        scenes: what to draw; only for the dataset of that name.
        workers: processes; None = one a core.
        progress: told of every few files.

    Raises:
        DataError: whatever is wrong with the data, all of it at once. Nothing was written.
    """
    layout = layout_of(name)
    if layout is SCENES:
        if source is not None:
            raise DataError(
                "scenes is drawn by hwdkit: it takes no --source", hint="Run: hwdkit prepare-data scenes"
            )
        if not check:
            options = scenes or SceneOptions()
            return generate(root, options, overwrite=overwrite, workers=workers, progress=progress)
    folder = root / name
    before = _index_or_none(folder)
    files = _find_files(layout, folder, source, before=before, allow_partial=allow_partial)
    if not (check or overwrite) and before is not None and _is_current(before, layout, files, allow_partial):
        return before
    published = layout.published
    if layout is SCENES and before is not None:
        published = {split: before.options[split] for split in ("train", "val")}
    index = verify(
        layout,
        files,
        published=published,
        allow_partial=allow_partial,
        options=before.options if layout is SCENES and before is not None else None,
        workers=workers,
        progress=progress,
    )
    if not check:
        save_index(index, folder)
    elif before is not None and before.fingerprint != index.fingerprint:
        raise DataError(
            f"{files} is sound, but is not what {folder / FILE_NAME} describes: fingerprint "
            f"{index.fingerprint[:12]}, the index has {before.fingerprint[:12]}",
            hint=f"Run without --check to index it anew: hwdkit prepare-data {name} --data-root {root}",
        )
    return index


def is_prepared(name: str, *, root: Path, source: Path | None = None, allow_partial: bool = False) -> bool:
    """Say whether `prepare` would find nothing to do. Looks at names, sizes and times, not at content."""
    layout, folder = layout_of(name), root / name
    before = _index_or_none(folder)
    if before is None:
        return False
    files = _find_files(layout, folder, source, before=before, allow_partial=allow_partial)
    return _is_current(before, layout, files, allow_partial)


def _index_or_none(folder: Path) -> DatasetIndex | None:
    try:
        return load_index(folder)
    except DataError:
        return None  # none yet, or one that is worth nothing: make a new one


def _is_current(index: DatasetIndex, layout: Layout, files: Path, allow_partial: bool) -> bool:
    return (
        index.root == files.resolve()
        and (allow_partial or not index.partial)
        and index.stamp == stamp_of(layout, files)
    )


def _find_files(
    layout: Layout, folder: Path, source: Path | None, *, before: DatasetIndex | None, allow_partial: bool
) -> Path:
    if source is not None:
        return locate(layout, source, allow_partial=allow_partial)
    if before is not None:
        return before.root
    if not folder.is_dir():
        raise DataError(f"data root {folder} does not exist", hint=how_to_get(layout))
    return locate(layout, folder, allow_partial=allow_partial)
