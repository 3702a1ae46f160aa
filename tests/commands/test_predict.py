"""What `hwdkit predict` finds, writes, names and refuses."""

from __future__ import annotations

import json
import os
import re
import struct
import weakref
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_runs import Outcome, Pair, hwdkit

from hwdkit.checkpoints.files import load_model, save_model
from hwdkit.commands.predict import prediction, progress
from hwdkit.commands.predict.images import MediaFile, find_images, output_names, read_upright
from hwdkit.data.index import load_index
from hwdkit.datasets.cityscapes import CITYSCAPES
from hwdkit.datasets.cityscapes import CLASSES as CITYSCAPES_CLASSES
from hwdkit.engine.networks import FORMAT, load_network
from hwdkit.errors import OutOfMemory
from hwdkit.measure.overlay import colourise, overlay
from hwdkit.models.segmenter import NetworkSpec, build
from hwdkit.terminal import values


@pytest.fixture(scope="module")
def lively(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pair's student with its logits centred: after two steps it sees one class everywhere."""
    model = load_network(pair.student).model.eval()
    state, description = load_model(pair.student / "student.safetensors")
    with torch.no_grad():
        images = [torch.from_numpy(pixels_of(path)).permute(2, 0, 1) for path in val_images(pair)]
        mean = model(torch.stack(images)).logits.mean((0, 2, 3))
    (bias,) = [name for name in state if name.startswith("head.") and state[name].shape == (12,)]
    path = tmp_path_factory.mktemp("lively") / "student.safetensors"
    save_model(path, {**state, bias: state[bias] - mean}, description)
    return path


def predicted(pair: Pair, *arguments: object) -> Outcome:
    own = () if "-c" in arguments else ("-c", pair.student)
    return hwdkit("predict", *arguments, *own, "--gpus", 0, "-q")


def succeeded(pair: Pair, *arguments: object) -> dict[str, Any]:
    done = predicted(pair, *arguments, "--json")
    assert done.code == 0, done.err
    return done.document


def val_images(pair: Pair) -> list[Path]:
    index = load_index(pair.data / "scenes")
    return [index.root / of.image for of in index.splits["val"]]


def pixels_of(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(path) as image:
        return np.array(image)


def files_below(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def picture(path: Path, *, size: tuple[int, int] = (40, 36), mode: str = "RGB", **options: Any) -> Path:
    """A picture without symmetry, in any mode and format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    array = rng.integers(0, 256, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
    array = array.repeat(4, 0).repeat(4, 1)
    Image.fromarray(array).convert(mode).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ([], []),
        (["--slide", "64x48"], ["--mode", "slide", "--window", 64, 48, "--stride", 42, 32]),
        (["--slide", "512X512"], ["--mode", "slide"]),
        (["--scales", "0.75,1.0", "--flip"], ["--scales", "0.75,1.0", "--flip"]),
        (
            ["--slide", "64x48", "--stride", "32x9", "--flip"],
            ["--mode", "slide", "--window", 64, 48, "--stride", 32, 9, "--flip"],
        ),
    ],
)
def test_masks_are_those_of_evaluate_byte_for_byte(
    pair: Pair, lively: Path, tmp_path: Path, mine: list[object], theirs: list[object]
) -> None:
    saved = ["--save-masks", tmp_path / "evaluated", "--save-overlays", tmp_path / "laid"]
    line = ["evaluate", "-c", lively, "--data-root", pair.data, "--gpus", 0, "-q", *saved]
    done = hwdkit(*line, *theirs)
    assert done.code == 0, done.err
    result = succeeded(pair, *val_images(pair), "-c", lively, "-o", tmp_path / "out", "--overlay", *mine)
    assert result["protocol"]["mode"] == ("slide" if "--slide" in mine else "whole")
    evaluated = files_below(tmp_path / "evaluated")
    assert len(evaluated) == 4
    assert len(set(evaluated.values())) == 4
    assert files_below(tmp_path / "out" / "masks") == evaluated
    assert files_below(tmp_path / "out" / "overlays") == files_below(tmp_path / "laid")


def test_windows_are_not_the_whole_image(pair: Pair, lively: Path, tmp_path: Path) -> None:
    line = [val_images(pair)[0], "-c", lively, "-o"]
    succeeded(pair, *line, tmp_path / "whole")
    succeeded(pair, *line, tmp_path / "slide", "--slide", "32x32")
    assert files_below(tmp_path / "whole") != files_below(tmp_path / "slide")


def test_only_what_is_asked_for_is_written(pair: Pair, lively: Path, tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    succeeded(pair, image, "-o", tmp_path / "plain")
    assert files_below(tmp_path / "plain").keys() == {"masks/a.png"}
    result = succeeded(pair, image, "-c", lively, "-o", tmp_path / "all", "--overlay", "--side-by-side")
    out = tmp_path / "all"
    assert files_below(out).keys() == {"masks/a.png", "overlays/a.png", "side-by-side/a.png"}
    palette = [tuple(row["colour"]) for row in result["classes"]]
    mask, photo = pixels_of(out / "masks" / "a.png"), pixels_of(image)
    with Image.open(out / "masks" / "a.png") as written:
        assert written.mode == "P"
        assert written.getpalette()[:36] == [value for colour in palette for value in colour]
    assert np.array_equal(pixels_of(out / "overlays" / "a.png"), overlay(photo, mask, palette))
    both = np.concatenate([photo, colourise(mask, palette)], axis=1)
    assert np.array_equal(pixels_of(out / "side-by-side" / "a.png"), both)


def test_the_document_has_the_shares_of_each_image_and_of_all(
    pair: Pair, lively: Path, tmp_path: Path
) -> None:
    small, large = picture(tmp_path / "in" / "s.png", size=(40, 32)), tmp_path / "in" / "x" / "l.png"
    picture(large, size=(96, 64))
    result = succeeded(pair, tmp_path / "in", "-c", lively, "-o", tmp_path / "out")
    assert result["checkpoint"] == str(lively)
    assert (result["found"], result["images"], result["unreadable"]) == (2, 2, [])
    assert [row["image"] for row in result["per_image"]] == [str(small), str(large)]
    total = np.zeros(12)
    for row in result["per_image"]:
        mask = pixels_of(tmp_path / "out" / row["mask"])
        assert mask.shape == (row["height"], row["width"])
        counts = np.bincount(mask.ravel(), minlength=12)
        total += counts
        expected = {int(c): counts[c] / mask.size for c in np.flatnonzero(counts)}
        assert {share["index"]: share["share"] for share in row["shares"]} == pytest.approx(expected)
        assert all(share["name"] == result["classes"][share["index"]]["name"] for share in row["shares"])
    assert np.count_nonzero(total) > 1
    assert [row["share"] for row in result["classes"]] == pytest.approx(list(total / total.sum()))


def test_a_checkpoint_file_is_as_good_as_its_run_and_people_read_a_table(pair: Pair, tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    succeeded(pair, image, "-o", tmp_path / "run")
    line = ["predict", image, "-c", pair.student / "student.safetensors", "--gpus", 0]
    done = hwdkit(*line, "-o", tmp_path / "file")
    assert done.code == 0, done.err
    assert files_below(tmp_path / "run") == files_below(tmp_path / "file")
    assert "share %" in done.out
    assert f"1 image, whole: {tmp_path / 'file'}" in done.out
    (tmp_path / "b.png").touch()
    done = predicted(pair, image, tmp_path / "b.png", "-o", tmp_path / "slide", "--slide", "64x48")
    assert f"1 of 2 images, slide 64x48: {tmp_path / 'slide'}" in done.out


def test_an_unreadable_image_stops_no_other_and_is_listed_at_the_end(pair: Pair, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    picture(folder / "a.png")
    picture(folder / "z.jpg")
    (folder / "empty.jpg").touch()
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:200])
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere")
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(folder / "deep.png")
    done = predicted(pair, folder, "-o", tmp_path / "out", "--json")
    assert done.code == 4
    result = done.document
    assert (result["status"], result["exit_code"], result["error"]["kind"]) == ("error", 4, "data")
    assert (result["found"], result["images"]) == (6, 2)
    reasons = {Path(row["image"]).name: row["reason"] for row in result["unreadable"]}
    assert reasons.keys() == {"empty.jpg", "cut.png", "gone.jpg", "deep.png"}
    assert "8-bit RGB or gray" in reasons["deep.png"]
    assert "4 of 6 images could not be read, the other 2 are written" in done.err
    assert all(f"{folder / name}: {reason}" in done.err for name, reason in reasons.items())
    assert files_below(tmp_path / "out").keys() == {"masks/a.png", "masks/z.png"}


def test_when_nothing_can_be_read_nothing_is_written(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("hello")
    done = predicted(pair, tmp_path / "a.jpg", "-o", tmp_path / "out")
    assert done.code == 4
    assert "1 of 1 images could not be read, nothing is written" in done.err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_as_it_is(pair: Pair, tmp_path: Path) -> None:
    image, out = picture(tmp_path / "a.png"), tmp_path / "out"
    out.mkdir()
    succeeded(pair, image, "-o", out)
    before = files_below(out)
    again = predicted(pair, image, "-o", out)
    assert again.code == 2
    assert f"{out} is not an empty folder" in again.err
    assert files_below(out) == before
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for taken in ("file", "dangling"):
        assert predicted(pair, image, "-o", tmp_path / taken).code == 2
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_predictions_may_go_below_the_images(pair: Pair, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    assert succeeded(pair, tmp_path, "-o", tmp_path / "out")["images"] == 1


@pytest.mark.parametrize("source", ["nothing.jpg", "*.webp", "empty"])
def test_a_source_without_images_is_told_before_anything_is_written(
    pair: Pair, tmp_path: Path, source: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    image = picture(tmp_path / "a.png")
    done = predicted(pair, image, tmp_path / source, "-o", tmp_path / "out")
    assert done.code == 4
    assert str(tmp_path / source) in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text", ["512", "0x64", "31x64", "axb", "64x64x3", "-64x64", "", "512x²", "512x100000"]
)
def test_a_window_that_cannot_be_meant_is_refused(tmp_path: Path, text: str) -> None:
    done = hwdkit("predict", "a.png", "-c", "x", "-o", tmp_path / "out", f"--slide={text}")
    assert done.code == 2
    assert "--slide" in done.err


def test_a_window_is_height_by_width() -> None:
    assert values.height_by_width("--slide", "64X48", least=32) == (64, 48)


def test_a_missing_checkpoint_leaves_no_folder_behind(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    done = hwdkit("predict", image, "-c", tmp_path / "no.safetensors", "-o", tmp_path / "out", "--gpus", 0)
    assert done.code == 5
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (33, 2)])
@pytest.mark.parametrize("slide", [[], ["--slide", "32x32"]])
def test_images_of_any_size_can_be_predicted(
    pair: Pair, tmp_path: Path, size: tuple[int, int], slide: list[str]
) -> None:
    Image.new("RGB", size, (200, 30, 90)).save(tmp_path / "a.png")
    succeeded(pair, tmp_path / "a.png", "-o", tmp_path / "out", *slide)
    assert pixels_of(tmp_path / "out" / "masks" / "a.png").shape == size[::-1]


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.png", "L"), ("a.png", "RGBA"), ("a.png", "LA"), ("a.png", "P"), ("a.png", "1"), ("a.jpg", "CMYK")],
)
def test_other_modes_are_predicted_as_the_rgb_they_show(
    pair: Pair, lively: Path, tmp_path: Path, name: str, mode: str
) -> None:
    image = picture(tmp_path / name, mode=mode)
    with Image.open(image) as opened:
        assert opened.mode == mode
        opened.convert("RGB").save(tmp_path / "rgb.png")
    succeeded(pair, image, "-c", lively, "-o", tmp_path / "one", "--overlay")
    succeeded(pair, tmp_path / "rgb.png", "-c", lively, "-o", tmp_path / "two", "--overlay")
    one, two = (sorted(files_below(tmp_path / folder).values()) for folder in ("one", "two"))
    assert len(one) == 2
    assert one == two


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = np.array([[0, 60, 120], [250, 180, 220]], np.uint8).repeat(24, 0).repeat(24, 1)
    # Where the standard says that row 0 and column 0 of the stored pixels are, seen upright.
    stored = {
        1: upright,
        2: np.fliplr(upright),
        3: np.rot90(upright, 2),
        4: np.flipud(upright),
        5: upright.T,
        6: np.rot90(upright),
        7: np.rot90(upright, 2).T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).convert("RGB").save(path, exif=exif, **options)
    read = read_upright(path)
    assert read.shape == (48, 72, 3)
    assert np.abs(read[..., 0].astype(int) - upright).max() <= (8 if suffix == "jpg" else 0)


def test_the_mask_of_a_turned_photograph_is_upright(pair: Pair, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "a.png", size=(80, 40), exif=exif)
    row = succeeded(pair, tmp_path / "a.png", "-o", tmp_path / "out", "--overlay")["per_image"][0]
    assert (row["height"], row["width"]) == (80, 40)
    assert pixels_of(tmp_path / "out" / "overlays" / "a.png").shape == (80, 40, 3)


def test_damaged_exif_leaves_the_pixels_as_they_are(tmp_path: Path) -> None:
    for number, exif in enumerate([b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b""]):
        path = picture(tmp_path / f"{number}.jpg", exif=exif)
        assert read_upright(path).shape == (36, 40, 3)


def test_folders_are_searched_and_patterns_take_images_only(tmp_path: Path) -> None:
    names = ["a.JPG", "b/c.jpeg", "b/d/e.webp", "f.bmp", "g.tif", "h.png", "i.TIFF"]
    for name in [*names, "notes.txt", "b/x.gif", "._a.jpg", ".thumbnails/a.jpg", "b/jpg"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def found(*sources: str) -> list[str]:
        return sorted(str(image.name) for image in find_images([f"{tmp_path}/{one}" for one in sources]))

    assert found("") == sorted(names)
    assert found("**") == sorted(names)
    assert found("*.[JT]*") == ["a.JPG", "i.TIFF"]
    assert found("b/**/*") == ["c.jpeg", "d/e.webp"]
    assert found("*") == sorted(names)  # b/ is a folder that matches
    assert found("notes.txt", "a.JPG", "") == sorted([*names, "notes.txt"])  # named; each file once
    (tmp_path / "b" / "again").symlink_to(tmp_path)
    assert found("") == sorted(names)
    (tmp_path / "[1].png").touch()
    assert found("[1].png") == ["[1].png"]


def test_names_keep_the_structure_and_fall_back_where_two_meet(tmp_path: Path) -> None:
    def named(*sources: tuple[str, str]) -> list[str]:
        return output_names([MediaFile(tmp_path / path, PurePosixPath(name)) for path, name in sources])

    assert named(("p/x/a.jpg", "x/a.jpg"), ("p/b.tif", "b.tif")) == ["x/a.png", "b.png"]
    assert named(("p/a.jpg", "a.jpg"), ("q/a.jpg", "a.jpg")) == ["p/a.png", "q/a.png"]
    assert named(("p/a.jpg", "a.jpg"), ("p/a.png", "a.png")) == ["a.jpg.png", "a.png.png"]
    assert named(("p/a.jpg", "a.jpg"), ("p/A.jpg", "A.jpg")) == ["000001-a.png", "000002-A.png"]
    assert named(("p/a.jpg", "a.jpg"), ("p/a.png/b.jpg", "a.png/b.jpg")) == ["a.jpg.png", "a.png/b.jpg.png"]


PARTS = st.sampled_from(["a", "A", "a.png", "a.jpg", "a.png.png", "b", ".jpg", "000001-a.jpg", "ß", "SS"])


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.lists(st.tuples(st.lists(PARTS, min_size=1, max_size=3), st.integers(0, 2)), min_size=1, max_size=6)
)
def test_no_two_names_meet_and_none_leaves_the_folder(chosen: list[tuple[list[str], int]]) -> None:
    paths = {Path("/r", *parts): len(parts) - 1 - min(cut, len(parts) - 1) for parts, cut in chosen}
    found = [MediaFile(path, PurePosixPath(*path.parts[-1 - kept :])) for path, kept in paths.items()]
    names = output_names(found)
    folded = [PurePosixPath(name.casefold()) for name in names]
    assert len(set(folded)) == len(found)
    assert not any(one in other.parents for one in folded for other in folded)
    assert all(name.endswith(".png") and not name.startswith("/") for name in names)
    assert not any(".." in path.parts for path in folded)


def test_the_longest_and_strangest_names_are_written(pair: Pair, tmp_path: Path) -> None:
    latin = b"caf\xe9\n.png".decode(errors="surrogateescape")
    for name in ("ü" * 125 + ".png", "a" * 251 + ".png", latin):
        picture(tmp_path / "in" / name)
    result = succeeded(pair, tmp_path / "in", "-o", tmp_path / "out")
    assert len(files_below(tmp_path / "out")) == result["images"] == 3
    succeeded(pair, tmp_path / "in" / latin, "-o", tmp_path / "one")
    assert files_below(tmp_path / "one").keys() == {f"masks/{latin}"}


def test_a_pattern_that_climbs_stays_in_the_folder(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "x" / "y" / "a.png")
    picture(tmp_path / "outside.png")
    monkeypatch.chdir(tmp_path / "x")
    result = succeeded(pair, "*/../../*.png", "../x/*/*.png", "y/../../outside.png", "-o", "out")
    assert [row["mask"] for row in result["per_image"]] == ["masks/outside.png", "masks/y/a.png"]
    assert files_below(tmp_path / "x" / "out").keys() == {"masks/outside.png", "masks/y/a.png"}
    assert len(files_below(tmp_path)) == 4


def test_no_pixels_of_one_image_are_kept_when_another_is_read(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big: list[weakref.ref[Any]] = []
    kept_when_next_is_read: list[int] = []

    def watched(name: str) -> None:
        real = getattr(prediction, name)

        def watching(*arguments: Any) -> Any:
            if name == "read_upright":
                kept_when_next_is_read.append(sum(one() is not None for one in big))
            value = real(*arguments)
            seen = (value, *arguments)
            big.extend(weakref.ref(one) for one in seen if isinstance(one, np.ndarray | torch.Tensor))
            return value

        monkeypatch.setattr(prediction, name, watching)

    for name in ("read_upright", "class_map", "mask_png", "overlay", "colourise"):
        watched(name)
    images = [picture(tmp_path / f"{i}.png") for i in range(6)]
    succeeded(pair, *images, "-o", tmp_path / "out", "--overlay", "--side-by-side")
    assert len(big) >= 6 * 5
    assert kept_when_next_is_read == [0] * 6


def test_running_out_of_memory_names_the_image(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(prediction, "class_map", hungry)
    image = picture(tmp_path / "a.png")
    done = predicted(pair, image, "-o", tmp_path / "out")
    assert done.code == OutOfMemory.exit_code
    assert str(image) in done.err
    assert "--slide" in done.err


def test_more_classes_than_a_mask_can_hold_are_refused(pair: Pair, tmp_path: Path) -> None:
    state, description = load_model(pair.student / "student.safetensors")
    wide = {k: v.new_zeros(300, *v.shape[1:]) if v.shape[:1] == (12,) else v for k, v in state.items()}
    named = {"classes": [str(c) for c in range(300)], "palette": [[0, 0, c % 256] for c in range(300)]}
    network = {**description["network"], "classes": 300}
    save_model(tmp_path / "wide.safetensors", wide, {**description, **named, "network": network})
    image = picture(tmp_path / "a.png")
    line = ["predict", image, "-c", tmp_path / "wide.safetensors", "-o", tmp_path / "out", "--gpus", 0]
    done = hwdkit(*line)
    assert done.code == 5
    assert "300 classes; a palette PNG holds 256" in done.err


def test_a_pipe_hears_of_the_progress(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    images = [picture(tmp_path / f"{i}.png") for i in range(3)]
    line = ["predict", *images, "-c", pair.student, "--gpus", 0]
    done = hwdkit(*line, "-o", tmp_path / "out")
    assert re.search(r"1 of 3 images, [\d.]+ images/s, about \d+ s left", done.err)
    assert "2 of 3 images, " in done.err
    assert "1 of 3" not in hwdkit(*line, "-o", tmp_path / "quiet", "-q").err


def test_a_pipe_among_the_images_is_listed_and_not_waited_for(pair: Pair, tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    os.mkfifo(tmp_path / "in" / "b.png")
    done = predicted(pair, tmp_path / "in", "-o", tmp_path / "out")
    assert done.code == 4
    assert "is no regular file" in done.err
    assert (tmp_path / "out" / "masks" / "a.png").is_file()


def test_an_orientation_that_is_no_number_stops_no_other_image(tmp_path: Path) -> None:
    entry = struct.pack("<HHII", 0x0112, 12, 1, 26)  # orientation, a double, at offset 26
    infinite = struct.pack("<2sHIH", b"II", 42, 8, 1) + entry + struct.pack("<Id", 0, float("inf"))
    path = picture(tmp_path / "a.jpg", exif=b"Exif\0\0" + infinite)
    assert np.array_equal(read_upright(path), np.array(Image.open(path)))


def cityscapes_network(path: Path) -> Path:
    """An untrained network for the 19 classes that sees several of them."""
    torch.manual_seed(1)
    options = {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)}
    spec = NetworkSpec("resnet18", 19, backbone_options=options, head_channels=8, aux=False)
    model = build(spec)
    metadata = {
        "format": FORMAT,
        "network": model.spec.to_dict(),
        "classes": list(CITYSCAPES.classes),
        "palette": [list(colour) for colour in CITYSCAPES.palette],
        "dataset": "cityscapes",
    }
    save_model(path, model.state_dict(), metadata)
    return path


def test_ids_are_those_of_evaluate_byte_for_byte(pair: Pair, lively: Path, tmp_path: Path) -> None:
    line = ["evaluate", "-c", lively, "--data-root", pair.data, "--gpus", 0, "-q"]
    assert hwdkit(*line, "--save-predictions", tmp_path / "evaluated").code == 0
    succeeded(pair, *val_images(pair), "-c", lively, "-o", tmp_path / "out", "--ids")
    assert len(files_below(tmp_path / "evaluated")) == 4
    assert files_below(tmp_path / "out" / "ids") == files_below(tmp_path / "evaluated")


def test_the_test_split_of_cityscapes_becomes_what_its_server_takes(pair: Pair, tmp_path: Path) -> None:
    names = ["berlin/berlin_000000_000019_leftImg8bit", "bonn/bonn_000001_000019_leftImg8bit"]
    for name in names:
        picture(tmp_path / "leftImg8bit" / "test" / f"{name}.png", size=(96, 64))
    network = cityscapes_network(tmp_path / "net.safetensors")
    folder = tmp_path / "leftImg8bit" / "test"
    succeeded(pair, folder, "-c", network, "-o", tmp_path / "out", "--ids")
    assert files_below(tmp_path / "out" / "ids").keys() == {f"{name}.png" for name in names}
    raw = np.array([raw for raw, _ in CITYSCAPES_CLASSES.values()])
    for name in names:
        with Image.open(tmp_path / "out" / "ids" / f"{name}.png") as written:
            assert (written.mode, written.size) == ("L", (96, 64))
        mask = pixels_of(tmp_path / "out" / "masks" / f"{name}.png")
        assert len(np.unique(mask)) > 1
        assert np.array_equal(pixels_of(tmp_path / "out" / "ids" / f"{name}.png"), raw[mask])


def test_ids_of_a_dataset_of_ones_own_need_its_index(pair: Pair, lively: Path, tmp_path: Path) -> None:
    state, description = load_model(lively)
    save_model(tmp_path / "mine.safetensors", state, {**description, "dataset": "mine"})
    image = picture(tmp_path / "a.png")
    line = [image, "-c", tmp_path / "mine.safetensors", "-o", tmp_path / "out", "--ids", "--data-root"]
    done = predicted(pair, *line, pair.data)
    assert done.code == 4
    assert "unknown dataset 'mine'" in done.err
    (tmp_path / "file").touch()
    done = predicted(pair, *line, tmp_path / "file")
    assert done.code == 2
    assert f"--data-root: {tmp_path / 'file'} is a file, not a folder" in done.err
    assert not (tmp_path / "out").exists()
    index = json.loads((pair.data / "scenes" / "dataset.json").read_text())
    index |= {"name": "mine", "label_map": {str(c + 30): c for c in range(12)}}
    (tmp_path / "data" / "mine").mkdir(parents=True)
    (tmp_path / "data" / "mine" / "dataset.json").write_text(json.dumps(index))
    succeeded(pair, *line, tmp_path / "data")
    mask = pixels_of(tmp_path / "out" / "masks" / "a.png")
    assert np.array_equal(pixels_of(tmp_path / "out" / "ids" / "a.png"), mask + 30)


@pytest.mark.parametrize(
    "options", [["--stride", "32x32"], ["--slide", "64x64", "--stride", "65x9"], ["--scales", "0"]]
)
def test_steps_and_scales_that_cannot_be_meant_are_refused(tmp_path: Path, options: list[str]) -> None:
    done = hwdkit("predict", "a.png", "-c", "x", "-o", tmp_path / "out", *options)
    assert done.code == 2
    assert options[-2] in done.err


def test_an_empty_name_is_not_the_working_directory(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    done = predicted(pair, "", "-o", "out")
    assert done.code == 4
    assert "an empty name" in done.err
    assert not (tmp_path / "out").exists()


def test_frame_masks_of_images_are_refused(pair: Pair, tmp_path: Path) -> None:
    done = predicted(pair, picture(tmp_path / "a.png"), "-o", tmp_path / "out", "--frame-masks")
    assert done.code == 2
    assert "--frame-masks is for films" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("error")
def test_a_palette_with_transparency_is_read_without_a_warning_in_its_own_colours(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", mode="P", transparency=bytes(range(256)))
    with Image.open(path) as image:
        palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
        assert np.array_equal(read_upright(path), palette[np.array(image)])


def test_names_that_no_file_can_have_are_told_in_one_line(pair: Pair, tmp_path: Path) -> None:
    image, long = picture(tmp_path / "a.png"), tmp_path / ("a" * 300)
    for code, line in (
        (2, [image, "-o", long]),
        (2, [image, "-o", image / "x"]),
        (2, [image, "-c", long, "-o", tmp_path / "out"]),
        (4, [image, long, "-o", tmp_path / "out"]),
    ):
        done = predicted(pair, *line)
        assert done.code == code, done.err
        assert "Traceback" not in done.err
        assert "File name too long" in done.err or "is a file, not a folder" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
