"""The dataset `scenes` on disk: draws it once, as PNG files, so that training reads it like any other.

What a scene looks like is `scenes/`.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from hwdkit import scenes
from hwdkit.data.index import FILE_NAME, DatasetIndex, load_index, save_index
from hwdkit.data.parallel import Progress, on_all_cores
from hwdkit.datasets.scenes import FIRST_SCENE, SCENES
from hwdkit.errors import DataError
from hwdkit.prepare.verify import stamp_of, verify


@dataclass(frozen=True)
class SceneOptions:
    """How many scenes to draw, how large, and from which seed.

    Attributes:
        train, val: scenes per split.
        size: height, width in pixels.
        seed: of `scenes.render`.
    """

    train: int = 2000
    val: int = 400
    size: tuple[int, int] = (128, 128)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn.

        Raises:
            DataError: an empty split, one so large that it would run into the next, or an image too small.
        """
        if not 1 <= self.train <= FIRST_SCENE["val"] or self.val < 1:
            raise DataError(f"scenes needs 1 to {FIRST_SCENE['val']} train and at least 1 val scenes")
        if min(self.size) < 32 or self.seed < 0:
            raise DataError("scenes needs at least 32 pixels a side and a seed of 0 or more")

    def to_dict(self) -> dict[str, Any]:
        """Return what the index records."""
        return {**dataclasses.asdict(self), "size": list(self.size)}


def generate(
    root: Path,
    options: SceneOptions,
    *,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> DatasetIndex:
    """Draw the dataset into `root/scenes`, or return the one that lies there if it is the one asked for.

    The files are drawn beside it and renamed at the end: a stopped run leaves nothing that looks complete.

    Args:
        root: data root.
        options: what to draw.
        overwrite: replace a dataset that was drawn with other options, or that was damaged.
        workers: processes; None = one a core.
        progress: called every few scenes.

    Raises:
        DataError: another dataset is in the way.
    """
    folder = root / SCENES.name
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        return _existing(folder, options)
    if overwrite and folder.exists() and not (folder / FILE_NAME).is_file():
        raise DataError(f"{folder} was not made by hwdkit; move it away, it will not be deleted")
    root.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".scenes-", dir=root))
    try:
        os.chmod(temporary, 0o755)
        _draw_all(temporary, options, workers, progress)
        layout = dataclasses.replace(SCENES, published={"train": options.train, "val": options.val})
        index = verify(layout, temporary, options=options.to_dict(), workers=workers, progress=progress)
        save_index(index, temporary)
        if overwrite and folder.exists():
            old = Path(tempfile.mkdtemp(prefix=".scenes-old-", dir=root))
            os.replace(folder, old)
            os.replace(temporary, folder)
            shutil.rmtree(old)
        else:
            os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return load_index(folder)


def _existing(folder: Path, options: SceneOptions) -> DatasetIndex:
    elsewhere = "Draw it elsewhere with --data-root DIR, or replace it with --overwrite."
    if not (folder / FILE_NAME).is_file():
        raise DataError(f"{folder} is not empty and was not made by hwdkit", hint="Use --data-root DIR.")
    index = load_index(folder)
    different = [
        f"{key} {index.options.get(key)}, not {value}"
        for key, value in options.to_dict().items()
        if index.options.get(key) != value
    ]
    if different:
        raise DataError(f"{folder} was drawn with {', '.join(different)}", hint=elsewhere)
    if stamp_of(SCENES, index.root) != index.stamp:
        raise DataError(f"files in {folder} have changed since they were drawn", hint=elsewhere)
    return index


def _draw_all(folder: Path, options: SceneOptions, workers: int | None, progress: Progress | None) -> None:
    for split in FIRST_SCENE:
        for side in ("images", "labels"):
            (folder / side / split).mkdir(parents=True)
    tasks = [("train", i) for i in range(options.train)] + [("val", i) for i in range(options.val)]
    on_all_cores(
        partial(_draw, folder, options), tasks, workers=workers, doing="drawing scenes", progress=progress
    )


def _draw(folder: Path, options: SceneOptions, scene: tuple[str, int]) -> None:
    split, i = scene
    image, label = scenes.render(options.seed, FIRST_SCENE[split] + i, size=options.size)
    Image.fromarray(image).save(folder / "images" / split / f"{i:06d}.png")
    Image.fromarray(label).save(folder / "labels" / split / f"{i:06d}.png")
