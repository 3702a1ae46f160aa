"""A user's own images and films, without labels or an index: finding, naming what is made of them, reading.

Free of torch. Pairs of a prepared dataset are `pairs.py`'s business, what is in a film `video.py`'s.
"""

from __future__ import annotations

import glob
import io
import os
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from hwdkit.commands.predict import video
from hwdkit.data.decode import FORMATS, decode_image, read_bytes
from hwdkit.data.file_names import is_too_long
from hwdkit.errors import DataError

Pixels = npt.NDArray[np.uint8]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""What is an image in a folder or by a pattern; a file that is named itself may be called anything."""


class MediaFile(NamedTuple):
    """An image or a film: where it is, and how it is called below what the command line named."""

    path: Path
    name: PurePosixPath

    @property
    def is_film(self) -> bool:
        return self.path.suffix.lower() in video.SUFFIXES


def find_images(sources: list[str]) -> list[MediaFile]:
    """List what the command line names, each file once, in its order and sorted within a folder.

    A folder stands for its images; films are named, or matched by a pattern.

    Raises:
        DataError: naming every source that does not exist or holds no image.
    """
    files: dict[str, MediaFile] = {}
    problems = []
    for source in sources:
        if not source:  # an empty variable of the shell; as a path it would be the working directory
            problems.append("an empty name")
            continue
        try:
            matches = list(_expand(source))
        except (OSError, ValueError) as error:  # a name that is too long; a null character
            problems.append(f"{source[:60]}…: {getattr(error, 'strerror', None) or error}")
            continue
        for file in matches:
            files.setdefault(os.path.abspath(file.path), file)
        if not matches:
            kind = _empty_folder(source) if Path(source).is_dir() else "no such file, or nothing matches"
            problems.append(f"{source}: {kind}")
    if problems:
        raise DataError(
            "\n".join(problems),
            hint=f"nothing was written; folders and patterns give {', '.join(SUFFIXES)}, "
            f"patterns also {', '.join(video.SUFFIXES)}",
        )
    return list(files.values())


def _expand(source: str) -> Iterator[MediaFile]:
    path = Path(source)
    if path.is_dir():
        yield from _below(path, path)
    elif os.path.lexists(path):
        yield MediaFile(path, PurePosixPath(path.name))
    elif glob.has_magic(source):
        parts = path.parts
        start = Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])
        for match in sorted(map(Path, glob.glob(source, recursive=True))):
            if match.is_dir():
                yield from _below(match, start)
            elif match.suffix.lower() in (*SUFFIXES, *video.SUFFIXES):
                yield MediaFile(match, _relative(match, start))


def _empty_folder(source: str) -> str:
    films = sorted(file for file in Path(source).iterdir() if file.suffix.lower() in video.SUFFIXES)
    hint = f"; name films, or match them: '{glob.escape(source)}/*{films[0].suffix}'" if films else ""
    return f"no image in this folder{hint}"


def _below(folder: Path, start: Path) -> Iterator[MediaFile]:
    """Walk a folder without what is hidden, such as `._a.jpg` and `.thumbnails`."""
    for parent, folders, files in os.walk(folder, onerror=_refuse_folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                yield MediaFile(path, _relative(path, start))


def _refuse_folder(error: OSError) -> None:
    raise DataError(f"cannot be read ({error.strerror})", where=str(error.filename)) from error


def _relative(path: Path, start: Path) -> PurePosixPath:
    full, base = Path(os.path.abspath(path)), Path(os.path.abspath(start))
    # A pattern such as */../../x leads out of its own start.
    return PurePosixPath(
        (full.relative_to(base) if full.is_relative_to(base) else Path(full.name)).as_posix()
    )


def output_names(files: list[MediaFile]) -> list[str]:
    """Name a PNG for every image and an MP4 for every film, relative and with forward slashes.

    No two meet, on any file system, nor does the folder that a film's frames go to, which has its name.

    Of these the first that will do for all: the name below its source, that below the folder which all
    share, both with the old suffix kept (a.jpg beside a.png), and numbers.
    """
    paths = [Path(os.path.abspath(file.path)) for file in files]
    shared = os.path.commonpath([path.parent for path in paths])
    short = [file.name for file in files]
    longer = [PurePosixPath(path.relative_to(shared).as_posix()) for path in paths]
    ends = [".mp4" if file.is_film else ".png" for file in files]
    for stems in (
        [name.with_suffix("") for name in short],
        [name.with_suffix("") for name in longer],
        short,
        longer,
    ):
        names = [f"{stem}{end}" for stem, end in zip(stems, ends, strict=True)]
        if _can_be_files(names):
            return names
    return [f"{i:06}-{path.stem[:40]}{end}" for i, (path, end) in enumerate(zip(paths, ends, strict=True), 1)]


def _can_be_files(names: list[str]) -> bool:
    """All differ, also where a and A are one file; none is a folder of another or too long to be written."""
    files = {name.casefold() for name in names}
    folders = {str(parent) for name in files for parent in PurePosixPath(name).parents}
    too_long = any(is_too_long(part) for name in names for part in name.split("/"))
    return len(files) == len(names) and not files & folders and not too_long


def read_upright(path: Path) -> Pixels:
    """Read an image as `evaluate` does, and turn it as its EXIF orientation says, which `evaluate` does not.

    Returns:
        (H, W, 3) uint8, RGB; without its alpha channel, of several frames the first.

    Raises:
        DataError: missing, damaged, not an image, or gray of more than 8 bits.
    """
    if path.exists() and not path.is_file():
        raise DataError("is no regular file", where=str(path))  # reading a pipe or a device may never end
    data = read_bytes(path)
    pixels = decode_image(data, where=str(path))
    return np.ascontiguousarray(_TURNS.get(_orientation(data), lambda upright: upright)(pixels))


_TURNS = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored),
}
"""EXIF orientation -> what makes the stored pixels upright."""


def _orientation(data: bytes) -> int:
    """What is left to be turned after decoding: TIFF files Pillow turns itself."""
    with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        warnings.simplefilter("ignore")  # decoding has told already
        if image.format == "TIFF":
            return 1
        try:
            return int(image.getexif().get(ExifTags.Base.Orientation, 1))
        except (OSError, SyntaxError, ArithmeticError, ValueError, TypeError, KeyError, struct.error):
            return 1  # the pixels are sound, only the notes beside them are not
