"""What `hwdkit predict` makes of films."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image
from tiny_runs import Outcome, Pair, hwdkit

pytest.importorskip("av")

from films import film

from hwdkit.commands.predict import prediction, progress, video
from hwdkit.commands.predict.images import MediaFile, output_names
from hwdkit.measure.overlay import colourise, overlay


def predicted(pair: Pair, *arguments: object) -> Outcome:
    return hwdkit("predict", *arguments, "-c", pair.student, "--gpus", 0)


def below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def frames_of(path: Path) -> list[video.Pixels]:
    with video.opened(path) as opened:
        return [frame.pixels for frame in opened.read()]


def mask_of(path: Path) -> video.Pixels:
    with Image.open(path) as image:
        return np.array(image)


def test_a_film_becomes_a_film_of_overlays_and_its_frames_are_predicted_as_images(
    pair: Pair, tmp_path: Path
) -> None:
    path = film(tmp_path / "a.mov", frames=3)
    line = [path, "-o", tmp_path / "out", "--frame-masks", "--ids", "--side-by-side", "--json"]
    done = predicted(pair, *line)
    assert done.code == 0, done.err
    (row,) = done.document["films"]
    assert (row["frames"], row["height"], row["width"], row["rate"]) == (3, 48, 64, 10)
    assert row["seconds"] == pytest.approx(0.3)
    stills = {f"{folder}/a.mp4/00000{i}.png" for folder in ("masks", "ids") for i in (1, 2, 3)}
    assert below(tmp_path / "out") == {"overlays/a.mp4", "side-by-side/a.mp4", *stills}
    frames = frames_of(path)
    for i, frame in enumerate(frames, 1):
        (tmp_path / "frames").mkdir(exist_ok=True)
        Image.fromarray(frame).save(tmp_path / "frames" / f"00000{i}.png")
    assert predicted(pair, tmp_path / "frames", "-o", tmp_path / "images").code == 0
    masks = [tmp_path / "out" / "masks" / "a.mp4" / f"00000{i}.png" for i in (1, 2, 3)]
    stills_of_images = [tmp_path / "images" / "masks" / f"00000{i}.png" for i in (1, 2, 3)]
    assert [path.read_bytes() for path in masks] == [path.read_bytes() for path in stills_of_images]
    palette = [tuple(entry["colour"]) for entry in done.document["classes"]]
    shown, both = (frames_of(tmp_path / "out" / folder / "a.mp4") for folder in ("overlays", "side-by-side"))
    for i in range(3):
        mask = mask_of(masks[i])
        expected = overlay(frames[i], mask, palette).astype(int)
        assert np.abs(shown[i] - expected).mean() < 12
        assert (
            np.abs(both[i] - np.concatenate([frames[i], colourise(mask, palette)], 1).astype(int)).mean() < 12
        )
    counts = sum(np.bincount(mask_of(path).ravel(), minlength=12) for path in masks)
    shares = {entry["index"]: entry["share"] for entry in row["shares"]}
    assert shares == pytest.approx({c: counts[c] / counts.sum() for c in np.flatnonzero(counts)})


def test_an_overlay_alone_is_made_where_nothing_else_is_asked_for(pair: Pair, tmp_path: Path) -> None:
    done = predicted(pair, film(tmp_path / "a.mp4"), "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert below(tmp_path / "out") == {"overlays/a.mp4"}
    assert "a.mp4: 4 frames, " in done.err
    assert "frames/s: overlays/a.mp4" in done.out


def test_a_damaged_film_stops_nothing_else_and_leaves_no_film(pair: Pair, tmp_path: Path) -> None:
    whole = film(tmp_path / "whole.mp4")
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:2000])
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    done = predicted(pair, tmp_path / "cut.mp4", whole, tmp_path / "a.png", "-o", tmp_path / "out")
    assert done.code == 4
    assert "1 of 3 files could not be read, the other 2 are written" in done.err
    assert f"{tmp_path / 'cut.mp4'}: cannot be opened as a film" in done.err
    assert below(tmp_path / "out") == {"overlays/whole.mp4", "masks/a.png"}


def test_a_film_that_cannot_be_encoded_stops_nothing_else(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "ENCODERS", ("mpeg4",))  # whose sides are below 8192
    wide = film(tmp_path / "wide.mkv", frames=1, size=(16, 8000))
    line = [wide, film(tmp_path / "a.mp4", frames=1), "-o", tmp_path / "out", "--side-by-side"]
    done = predicted(pair, *line)
    assert done.code == 4
    assert "1 of 2 files could not be read, the other 1 is written" in done.err
    assert f"{wide}: its pictures of 16x16000 cannot be encoded" in done.err
    assert below(tmp_path / "out") == {"overlays/a.mp4", "side-by-side/a.mp4"}


def test_ids_of_films_alone_need_frame_masks(pair: Pair, tmp_path: Path) -> None:
    done = predicted(pair, film(tmp_path / "a.mp4", frames=1), "-o", tmp_path / "out", "--ids")
    assert done.code == 2
    assert "add --frame-masks" in done.err
    assert not (tmp_path / "out").exists()


def test_the_name_of_a_film_cannot_command_a_terminal(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    done = predicted(pair, film(tmp_path / "[b]\x1b[31m.mp4", frames=2), "-o", tmp_path / "out")
    assert done.code == 0
    assert "[b]\ufffd[31m.mp4: 1 of 2 frames" in done.err
    assert "\x1b" not in done.err + done.out


def test_an_interrupted_film_leaves_no_file_that_looks_complete(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = prediction.Prediction.mask, []

    def interrupted(self: prediction.Prediction, pixels: video.Pixels) -> video.Pixels:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, pixels)

    monkeypatch.setattr(prediction.Prediction, "mask", interrupted)
    done = predicted(pair, film(tmp_path / "a.mp4"), "-o", tmp_path / "out")
    assert done.code == 130
    assert below(tmp_path / "out") == set()


def test_without_pyav_nothing_is_written_and_the_extra_is_named(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    path = film(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    done = predicted(pair, tmp_path / "a.png", path, "-o", tmp_path / "out")
    assert done.code == 6
    assert "pip install 'hwdkit[video]'" in done.err
    assert not (tmp_path / "out").exists()
    assert predicted(pair, tmp_path / "a.png", "-o", tmp_path / "out").code == 0


def test_a_folder_stands_for_its_images_and_says_how_films_are_named(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    film(tmp_path / "in" / "a.mkv")
    done = predicted(pair, tmp_path / "in", "-o", tmp_path / "out")
    assert done.code == 4
    assert f"'{tmp_path}/in/*.mkv'" in done.err
    assert predicted(pair, f"{tmp_path}/in/*.mkv", "-o", tmp_path / "out").code == 0
    assert below(tmp_path / "out") == {"overlays/a.mp4"}


def test_films_and_images_of_one_name_do_not_meet() -> None:
    def named(*names: str) -> list[str]:
        return output_names([MediaFile(Path("/r", name), PurePosixPath(name)) for name in names])

    assert named("a.jpg", "a.mov") == ["a.png", "a.mp4"]
    assert named("a.mp4", "a.mov") == ["a.mp4.mp4", "a.mov.mp4"]
    assert named("a.mp4", "a.mp4/000001.jpg") == ["a.mp4.mp4", "a.mp4/000001.jpg.png"]


def test_a_pipe_hears_of_the_frames(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    done = predicted(pair, film(tmp_path / "a.mp4"), "-o", tmp_path / "out")
    assert "a.mp4: 2 of 4 frames, " in done.err
