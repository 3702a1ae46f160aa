"""Films: read one frame at a time, upright and in time, and written so that every player takes them."""

from __future__ import annotations

import sys
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")

import av
from av.stream import Disposition
from films import film

from hwdkit.commands.predict import video
from hwdkit.errors import DataError, EnvironmentFailure


def copied(source: Path, out: Path, *, rows: int | None = None) -> list[video.Frame]:
    """Copy a film, perhaps its first rows only; what was read."""
    with video.opened(source) as opened, video.recording(out, opened) as recorder:
        frames = list(opened.read())
        for frame in frames:
            recorder.write(frame.pixels[:rows], frame.seconds)
    return frames


def read(path: Path) -> list[video.Frame]:
    with video.opened(path) as opened:
        return list(opened.read())


@pytest.mark.parametrize("encoders", [("libx264", "mpeg4"), ("no such", "mpeg4")])
def test_a_copy_has_the_pictures_rate_and_times_of_the_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoders: tuple[str, ...]
) -> None:
    monkeypatch.setattr(video, "ENCODERS", encoders)
    frames = copied(film(tmp_path / "a.mp4"), tmp_path / "b.mp4")
    again = read(tmp_path / "b.mp4")
    assert [float(frame.seconds) for frame in again] == pytest.approx([0, 0.1, 0.2, 0.3])
    for before, after in zip(frames, again, strict=True):
        assert before.pixels.shape == after.pixels.shape == (48, 64, 3)
        assert np.abs(before.pixels.astype(int) - after.pixels).mean() < 12
    with video.opened(tmp_path / "b.mp4") as opened:
        stream = opened.container.streams.video[0]
        assert (opened.rate, opened.frames, stream.format.name) == (10, 4, "yuv420p")
        assert stream.codec_context.name == ("h264" if "libx264" in encoders else "mpeg4")


def test_frames_that_come_at_uneven_times_keep_them(tmp_path: Path) -> None:
    copied(film(tmp_path / "a.mp4", times=[0, 1, 5, 6]), tmp_path / "b.mp4")
    assert [float(frame.seconds) for frame in read(tmp_path / "b.mp4")] == pytest.approx([0, 0.1, 0.5, 0.6])


def test_an_odd_side_is_doubled_at_its_edge_and_not_cut(tmp_path: Path) -> None:
    frames = copied(film(tmp_path / "a.mp4"), tmp_path / "b.mp4", rows=31)
    again = read(tmp_path / "b.mp4")
    assert again[0].pixels.shape == (32, 64, 3)
    assert np.abs(again[0].pixels[31].astype(int) - frames[0].pixels[30]).mean() < 40


def test_a_picture_that_comes_first_is_not_taken_for_the_film(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        streams = [container.add_stream("mpeg4", rate=10) for _ in range(2)]
        streams[1].disposition = Disposition.default
        for stream, side in zip(streams, (16, 64), strict=True):
            stream.height, stream.width, stream.pix_fmt = side, side, "yuv420p"
        for stream, side, count in zip(streams, (16, 64), (1, 3), strict=True):
            for i in range(count):
                frame = av.VideoFrame.from_ndarray(np.zeros((side, side, 3), np.uint8), format="rgb24")
                frame.pts = i
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    assert [frame.pixels.shape for frame in read(tmp_path / "a.mp4")] == [(64, 64, 3)] * 3


@pytest.mark.parametrize("angle", [90, 180, -90])
def test_a_film_that_was_taken_upright_is_read_upright(tmp_path: Path, angle: int) -> None:
    stored = read(film(tmp_path / "stored.mp4"))[0].pixels
    upright = read(film(tmp_path / "turned.mp4", rotation=angle))[0].pixels
    assert np.array_equal(upright, np.rot90(stored, angle // 90))


def test_a_telephones_matrix_turns_to_the_right(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    stored = read(path)[0].pixels
    data, one = path.read_bytes(), (1 << 16).to_bytes(4, "big", signed=True)
    zero, minus = bytes(4), (-1 << 16).to_bytes(4, "big", signed=True)
    upright = one + zero * 3 + one + zero * 3
    assert data.count(upright) >= 1
    # x' = -y, y' = x: ISO 14496-12, as every telephone held upright writes it; the last is the track's.
    where = data.rindex(upright)
    turned = zero + one + zero + minus + zero * 4
    path.write_bytes(data[:where] + turned + data[where + len(turned) :])
    assert np.array_equal(read(path)[0].pixels, np.rot90(stored, -1))


def test_one_frame_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[weakref.ref[Any]] = []
    real = video._upright

    def watched(frame: Any) -> Any:
        pixels = real(frame)
        seen.append(weakref.ref(pixels))
        return pixels

    monkeypatch.setattr(video, "_upright", watched)
    path = film(tmp_path / "a.mp4", frames=9)
    with video.opened(path) as opened:
        for _ in opened.read():
            assert sum(one() is not None for one in seen) <= 2
    assert len(seen) == 9


@pytest.mark.parametrize(
    "content",
    [b"", b"not a film", b"#EXTM3U\n#EXTINF:1,\nother.mp4\n", b"ffconcat version 1.0\nfile other.mp4\n"],
)
def test_what_is_no_film_or_leads_elsewhere_is_refused(tmp_path: Path, content: bytes) -> None:
    film(tmp_path / "other.mp4")
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DataError, match="cannot be opened as a film"), video.opened(tmp_path / "a.mp4"):
        pass


def test_frames_of_another_size_end_the_film(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    with video.opened(path) as opened, video.recording(tmp_path / "b.mp4", opened) as recorder:
        frame = next(opened.read())
        recorder.write(frame.pixels, Fraction(0))
        with pytest.raises(DataError, match="16x64"):
            recorder.write(frame.pixels[:16], Fraction(1))


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(EnvironmentFailure) as failure, video.opened(tmp_path / "a.mp4"):
        pass
    assert "pip install 'hwdkit[video]'" in failure.value.hint
