"""Films: their frames one at a time, upright, and a new film of pictures. The home of PyAV (extra `video`).

Free of torch. Sound is left out.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwdkit.errors import DataError, EnvironmentFailure

Pixels = npt.NDArray[np.uint8]

SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm")

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
"""What may be opened. FFmpeg knows three hundred more, among them playlists, which name files elsewhere."""

ENCODERS = ("libx264", "mpeg4")
"""Tried in this order: H.264 plays everywhere, MPEG-4 part 2 is in every FFmpeg."""

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""Encoders use the system's other numbers for pictures and times that they refuse, even EPERM."""

SIXTIETH_OF_A_MILLISECOND = Fraction(1, 60_000)
"""MPEG-4 counts time in steps of 1/65535 s at the finest."""


class Frame(NamedTuple):
    """One picture of a film: (H, W, 3) uint8 RGB, upright, and when it is shown, in seconds."""

    pixels: Pixels
    seconds: Fraction


@dataclass(frozen=True)
class Film:
    """A film that is open.

    Attributes:
        rate: frames per second, on average.
        frames: how many there are, as far as the file says; 0 = it does not.
        time_base: the unit in which it counts time, in seconds.
    """

    path: Path
    rate: Fraction
    frames: int
    time_base: Fraction
    container: Any

    def read(self) -> Iterator[Frame]:
        """Decode one frame after the other; none is kept.

        Raises:
            DataError: the file is damaged.
        """
        av = require_av()
        first: Fraction | None = None
        try:
            for number, frame in enumerate(self.container.decode(_pictures(self.container))):
                counted = frame.pts is None or self.container.format.name == "avi"  # it knows no times
                shown = number / self.rate if counted else frame.pts * frame.time_base
                first = shown if first is None else first
                yield Frame(_upright(frame), shown - first)
        except av.error.FFmpegError as error:
            raise DataError(f"cannot be decoded ({error.strerror})", where=str(self.path)) from error


def require_av() -> Any:
    """PyAV, which the extra `video` brings.

    Raises:
        EnvironmentFailure: it is not installed, or cannot be loaded.
    """
    try:
        import av
    except ImportError as error:
        raise EnvironmentFailure(
            f"films need PyAV ({error})", hint="pip install 'hwdkit[video]'   (or leave the films out)"
        ) from error
    return av


@contextmanager
def opened(path: Path) -> Iterator[Film]:
    """Open a film.

    Raises:
        DataError: missing, damaged, no film, or without pictures.
        EnvironmentFailure: PyAV is missing.
    """
    av = require_av()
    if not path.is_file():
        raise DataError("is no regular file" if path.exists() else "no such file", where=str(path))
    # An absolute path cannot be taken for a protocol, and no container may lead to another file.
    allowed = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    try:
        container = av.open(str(path.absolute()), options=allowed)
    except (av.error.FFmpegError, OSError) as error:
        raise DataError(f"cannot be opened as a film ({error.strerror})", where=str(path)) from error
    with container:
        stream = _pictures(container)
        if stream is None:
            raise DataError("has no pictures", where=str(path))
        stream.thread_type = "AUTO"
        rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        length = float(stream.duration * stream.time_base) if stream.duration else 0.0
        yield Film(path, rate, stream.frames or round(length * rate), Fraction(stream.time_base), container)


class Recorder:
    """Writes a film into a file that the caller makes final; see `recording`.

    Args:
        path: an MP4 file, whatever it is called.
        like: whose rate and times it has.
    """

    def __init__(self, path: Path, like: Film) -> None:
        self.av = require_av()
        self.container = self.av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self.encoder = next(name for name in ENCODERS if name in self.av.codecs_available)
        self.like = like
        self.stream: Any = None
        self.last = -1

    def write(self, pixels: Pixels, seconds: Fraction) -> None:
        """Append a picture (H, W, 3), all of one size, to be shown at a time later than the one before.

        Its last row and column are doubled where a side is odd: yuv420p has one colour for 2x2 pixels.
        """
        height, width = pixels.shape[:2]
        even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self.stream is None:
            self._begin(even)
        size = (self.stream.height, self.stream.width)
        if even.shape[:2] != size:
            raise DataError(
                f"a frame of {height}x{width} in a film that began with {size[0]}x{size[1]}",
                where=str(self.like.path),
            )
        frame = self.av.VideoFrame.from_ndarray(even, format="rgb24").reformat(format="yuv420p")
        self.last = max(self.last + 1, round(seconds / self.time_base))
        frame.pts, frame.time_base = self.last, self.time_base
        self.container.mux(self.stream.encode(frame))

    def size(self) -> str:
        """Say how large the pictures are, once that is known."""
        return "" if self.stream is None else f" of {self.stream.height}x{self.stream.width}"

    def close(self) -> None:
        """Write what the encoder still holds, and the index."""
        if self.stream is not None:
            self.container.mux(self.stream.encode(None))
        self.container.close()

    def _begin(self, picture: Pixels) -> None:
        self.stream = self.container.add_stream(self.encoder, rate=self.like.rate)
        self.stream.height, self.stream.width = picture.shape[:2]
        self.stream.pix_fmt = "yuv420p"
        fine = self.like.time_base
        if self.encoder == "mpeg4":
            fine = max(fine, SIXTIETH_OF_A_MILLISECOND)
            # A fifth of a bit for each pixel: mpeg4's own choice is a fixed 1 Mbit/s, whatever the size.
            self.stream.bit_rate = int(picture.shape[0] * picture.shape[1] * self.like.rate / 5)
        else:
            self.stream.options = {"crf": "20", "preset": "veryfast"}
        self.time_base = self.stream.codec_context.time_base = fine


@contextmanager
def recording(path: Path, like: Film) -> Iterator[Recorder]:
    """Write a film; it is complete when the block ends without an error.

    Raises:
        DataError: no film can be made of these pictures: too large for the encoder, at impossible times.
    """
    recorder = Recorder(path, like)
    try:
        try:
            yield recorder
        except BaseException:
            recorder.container.close()
            raise
        recorder.close()
    except recorder.av.error.FFmpegError as error:
        if error.errno in DISK_ERRORS:
            raise  # whoever replaces the file says so
        raise DataError(
            f"its pictures{recorder.size()} cannot be encoded ({error.strerror})", where=str(like.path)
        ) from error


def _pictures(container: Any) -> Any:
    """The stream to show, as players choose it: not the cover that some files carry first."""
    return container.streams.best("video")


def _upright(frame: Any) -> Pixels:
    """RGB pixels, turned as the file says: telephones store what the sensor saw."""
    pixels: Pixels = frame.to_ndarray(format="rgb24")
    quarters = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarters))
