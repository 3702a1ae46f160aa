"""The augmentation against the whole-image way and a naive reference, and what it must leave alone."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.data.transforms import (
    PAD_COLOUR,
    Pixels,
    augment,
    distort,
    nearest_window,
    recolour,
    resized_window,
    sources,
)

PAPER_SCALES = [round(0.5 + k / 10, 1) for k in range(16)]
EXACT = {0.5, 0.8, 1.0, 1.6, 2.0}
"""Scales whose weights float32 holds exactly: no order of sums can differ."""


def pair(height: int, width: int, seed: int = 0) -> tuple[Pixels, Pixels]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image, rng.integers(0, 20, (height, width), dtype=np.uint8)


def chw(image: Pixels) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


def cut(image: Pixels, label: Pixels, seed: int = 0, **options: Any) -> tuple[Tensor, Tensor]:
    defaults: dict[str, Any] = {"crop": (16, 16), "scales": [1.0], "flip": 0.0}
    return augment(image, label, rng=np.random.default_rng(seed), **{**defaults, **options})


def whole(image: Pixels, label: Pixels, scale: float) -> tuple[Tensor, Tensor]:
    """Resize all of a pair, as the papers' code does."""
    options: dict[str, Any] = {"scale_factor": scale, "recompute_scale_factor": False}
    smooth = F.interpolate(chw(image)[None].float(), mode="bilinear", align_corners=False, **options)
    nearest = F.interpolate(torch.from_numpy(label)[None, None], mode="nearest", **options)
    return smooth[0].round().to(torch.uint8), nearest[0, 0]


def plain_augment(
    image: Pixels, label: Pixels, seed: int, crop: tuple[int, int], scales: list[float], flip: float
) -> tuple[Tensor, Tensor]:
    """Resize the whole pair, pad it, crop it, flip it."""
    rng = np.random.default_rng(seed)
    scale = scales[int(rng.integers(len(scales)))]
    at_y, at_x, flipped = rng.random(), rng.random(), rng.random() < flip
    pixels, classes = whole(image, label, scale)
    height, width = classes.shape
    shape = max(height, crop[0]), max(width, crop[1])
    padded = torch.tensor(PAD_COLOUR, dtype=torch.uint8)[:, None, None].repeat(1, *shape)
    padded_label = torch.full(shape, 255, dtype=torch.uint8)
    padded[:, :height, :width], padded_label[:height, :width] = pixels, classes
    top, left = int(at_y * (shape[0] - crop[0] + 1)), int(at_x * (shape[1] - crop[1] + 1))
    padded = padded[:, top : top + crop[0], left : left + crop[1]]
    padded_label = padded_label[top : top + crop[0], left : left + crop[1]]
    return (padded.flip(-1), padded_label.flip(-1)) if flipped else (padded, padded_label)


def assert_same_pixels(ours: Tensor, expected: Tensor, scale: float) -> None:
    assert ours.dtype == expected.dtype == torch.uint8
    assert ours.shape == expected.shape
    off = (ours.int() - expected.int()).abs()
    if scale in EXACT:
        assert not off.any()
    # Ties, which the last bit of a float32 decides; there are most near the first pixel.
    assert off.max() <= 1
    assert (off > 0).sum() <= 10 + 2e-3 * off.numel()


@pytest.mark.parametrize("scale", PAPER_SCALES)
@pytest.mark.parametrize(
    ("size", "crop"),
    [
        ((201, 303), (96, 128)),  # odd, larger than the crop
        ((67, 131), (96, 128)),  # larger or smaller, as the scale says
        ((31, 45), (96, 128)),  # always smaller
        ((40, 300), (96, 33)),  # padded below, cropped at the sides
    ],
)
def test_a_crop_is_what_resizing_the_whole_pair_gives(
    scale: float, size: tuple[int, int], crop: tuple[int, int]
) -> None:
    image, label = pair(*size)
    for seed in range(4):
        ours, our_label = cut(image, label, seed, crop=crop, scales=[scale], flip=0.5)
        expected, expected_label = plain_augment(image, label, seed, crop, [scale], 0.5)
        assert torch.equal(our_label, expected_label)
        assert_same_pixels(ours, expected, scale)
        assert ours.is_contiguous()
        assert our_label.is_contiguous()


@pytest.mark.parametrize("scale", [*PAPER_SCALES, 0.1, 1 / 3, 0.77, 1.234, 3.3])
def test_windows_in_the_corners_are_those_of_the_whole(scale: float) -> None:
    image, label = pair(210, 331)
    pixels, classes = whole(image, label, scale)
    height, width = classes.shape
    h, w = min(height, 50), min(width, 70)
    for top in (0, height - h):
        for left in (0, width - w):
            rows, columns = (
                sources(210, scale, start=top, count=h),
                sources(331, scale, start=left, count=w),
            )
            window = pixels[:, top : top + h, left : left + w]
            assert_same_pixels(resized_window(image, rows, columns), window, scale)
            expected = classes[top : top + h, left : left + w]
            assert torch.equal(nearest_window(label, rows, columns), expected)


@pytest.mark.parametrize("scale", PAPER_SCALES)
def test_labels_of_a_full_sized_axis_are_those_of_the_whole(scale: float) -> None:
    # float32 coordinates grow coarse to the right: 2048 pixels, as in Cityscapes.
    label = np.random.default_rng(0).integers(0, 256, (16, 2048), dtype=np.uint8)
    _, classes = whole(np.zeros((16, 2048, 3), np.uint8), label, scale)
    rows = sources(16, scale, start=0, count=classes.shape[0])
    columns = sources(2048, scale, start=0, count=classes.shape[1])
    assert torch.equal(nearest_window(label, rows, columns), classes)


def naive_resize(image: Pixels, label: Pixels, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixel by pixel in float64: source = (target + 0.5) / scale - 0.5, nearest = floor(target / scale)."""
    height, width = label.shape
    out_h, out_w = int(height * scale), int(width * scale)
    pixels = image.astype(np.float64).transpose(2, 0, 1)
    smooth, nearest = np.zeros((3, out_h, out_w)), np.zeros((out_h, out_w), np.uint8)
    for y in range(out_h):
        for x in range(out_w):
            sy, sx = max((y + 0.5) / scale - 0.5, 0.0), max((x + 0.5) / scale - 0.5, 0.0)
            y0, x0 = min(int(sy), height - 1), min(int(sx), width - 1)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            wy, wx = sy - y0, sx - x0
            top = pixels[:, y0, x0] * (1 - wx) + pixels[:, y0, x1] * wx
            bottom = pixels[:, y1, x0] * (1 - wx) + pixels[:, y1, x1] * wx
            smooth[:, y, x] = top * (1 - wy) + bottom * wy
            nearest[y, x] = label[min(int(y / scale), height - 1), min(int(x / scale), width - 1)]
    return smooth, nearest


@pytest.mark.parametrize("scale", PAPER_SCALES)
def test_resizing_is_bilinear_and_nearest_by_the_factor_itself(scale: float) -> None:
    image, label = pair(13, 19)
    smooth, nearest = naive_resize(image, label, scale)
    resized, relabelled = cut(image, label, crop=nearest.shape, scales=[scale])
    # Half a grey level of rounding, and the float32 in which a tie may fall to the other side.
    assert np.abs(resized.numpy() - smooth).max() <= 0.5 + 1e-3
    # Where target / scale is a whole number, float32 may land just below it (s = 1.3, as OpenCV's may).
    assert (relabelled.numpy() == nearest).mean() > (0.85 if scale == 1.3 else 0.99)


def test_scale_1_is_the_same_pixels() -> None:
    image, label = pair(13, 19)
    resized, relabelled = cut(image, label, crop=(13, 19))
    assert torch.equal(resized, chw(image))
    assert torch.equal(relabelled, torch.from_numpy(label))


def test_every_corner_of_the_crop_can_be_drawn() -> None:
    image, _ = pair(5, 6)
    label = np.arange(30, dtype=np.uint8).reshape(5, 6)
    drawn = {int(cut(image, label, seed, crop=(3, 3))[1][0, 0]) for seed in range(300)}
    assert drawn == {6 * y + x for y in range(3) for x in range(4)}


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_small_pair_is_padded_at_the_bottom_and_right_before_the_flip(flip: float) -> None:
    image, label = pair(5, 6)
    crop, crop_label = cut(image, label, 1, crop=(8, 7), flip=flip)
    if flip:
        crop, crop_label = crop.flip(-1), crop_label.flip(-1)
    assert torch.equal(crop[:, :5, :6], chw(image))
    assert torch.equal(crop_label[:5, :6], torch.from_numpy(label))
    assert (crop_label[5:] == 255).all()
    assert (crop_label[:, 6:] == 255).all()
    colour = torch.tensor(PAD_COLOUR, dtype=torch.uint8)
    assert torch.equal(crop[:, 7, 6], colour)
    assert torch.equal(crop[:, 0, 6], colour)


def test_options_do_not_shift_one_another() -> None:
    image, label = pair(30, 40)
    one, other = (cut(image, label, 3, scales=[1.3], flip=flip) for flip in (0.0, 1.0))
    assert torch.equal(one[0], other[0].flip(-1))
    assert torch.equal(one[1], other[1].flip(-1))


class Watched(np.ndarray):
    """An array that notes which parts of it are asked for."""

    asked: list[tuple[slice, ...]]

    def __getitem__(self, key: Any) -> Any:
        if hasattr(self, "asked"):
            self.asked.append(key)
        return self.view(np.ndarray)[key]


@pytest.mark.parametrize("scale", PAPER_SCALES)
def test_only_the_window_that_a_crop_needs_is_read(scale: float) -> None:
    image, label = pair(300, 500)
    watched, watched_label = image.view(Watched), label.view(Watched)
    for seed in range(4):
        watched.asked, watched_label.asked = [], []
        options: dict[str, Any] = {"crop": (60, 90), "scales": [scale], "flip": 0.5}
        expected = cut(watched, watched_label, seed, **options)
        outside, outside_label = np.full_like(image, 7), np.full_like(label, 7)
        for array, canaries, source in (
            (watched, outside, image),
            (watched_label, outside_label, label),
        ):
            [(y, x)] = array.asked
            assert y.stop - y.start <= 60 / scale + 3
            assert x.stop - x.start <= 90 / scale + 3
            canaries[y, x] = source[y, x]
        again = cut(outside, outside_label, seed, **options)
        assert all(map(torch.equal, expected, again))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("crop", [(16, 24), (37, 53), (64, 64)])
def test_a_memory_mapped_pair_is_read_but_never_written(tmp_path: Path, crop: tuple[int, int]) -> None:
    image, label = pair(37, 53)
    (tmp_path / "pixels").write_bytes(image.tobytes() + label.tobytes())
    mapped = np.memmap(tmp_path / "pixels", np.uint8, mode="r")
    pixels, classes = mapped[: image.size].reshape(image.shape), mapped[image.size :].reshape(label.shape)
    for scale in (0.7, 1.0, 1.5):
        options: dict[str, Any] = {"crop": crop, "scales": [scale], "flip": 0.5, "photometric": True}
        from_disk, from_memory = cut(pixels, classes, **options), cut(image, label, **options)
        assert all(map(torch.equal, from_disk, from_memory))
        for tensor in from_disk:
            tensor.zero_()  # its own memory: a map of a read-only file would end the process
    assert (tmp_path / "pixels").read_bytes() == image.tobytes() + label.tobytes()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    crop=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    scale=st.one_of(st.sampled_from(PAPER_SCALES), st.floats(0.2, 1.99)),
    seed=st.integers(0, 1000),
)
def test_any_pair_any_crop_and_any_scale_agree_with_the_whole(
    height: int, width: int, crop: tuple[int, int], scale: float, seed: int
) -> None:
    if min(height, width) * scale < 1:
        return
    image, label = pair(height, width, seed)
    pixels, classes = cut(image, label, seed, crop=crop, scales=[scale], flip=0.5)
    expected, expected_label = plain_augment(image, label, seed, crop, [scale], 0.5)
    assert torch.equal(classes, expected_label)
    assert_same_pixels(pixels, expected, scale)
    assert (classes != 255).any()


def test_a_pair_that_shrinks_to_nothing_keeps_one_pixel() -> None:
    image, label = pair(3, 40)
    pixels, classes = cut(image, label, crop=(8, 8), scales=[0.1])
    assert pixels.shape == (3, 8, 8)
    assert (classes != 255).sum() == 4


def test_photometric_distortion_changes_colours_and_nothing_else() -> None:
    image, label = pair(20, 30)
    changed = 0
    for seed in range(20):
        options: dict[str, Any] = {"crop": (24, 16), "scales": [0.6, 1.0, 1.4], "flip": 0.5}
        plain, plain_label = cut(image, label, seed, **options)
        vivid, vivid_label = cut(image, label, seed, photometric=True, **options)
        again, _ = cut(image, label, seed, photometric=True, **options)
        assert torch.equal(vivid, again), "a seed decides"
        assert torch.equal(vivid_label, plain_label), "crops do not move"
        assert vivid.dtype == torch.uint8
        assert vivid.is_contiguous()
        padding = plain_label == 255
        assert torch.equal(vivid[:, padding], plain[:, padding]), "padding keeps its colour"
        changed += not torch.equal(vivid, plain)
    assert 14 <= changed < 20, "15 in 16 are changed"


def test_distortion_stays_within_its_ranges() -> None:
    gray = torch.full((3, 1, 1), 100, dtype=torch.uint8)
    rng, levels = np.random.default_rng(0), []
    for _ in range(2000):
        red, green, blue = distort(gray, rng=rng).flatten().tolist()
        assert red == green == blue, "gray has no hue to turn and no saturation to scale"
        levels.append(red)
    # (100 +- 32) * (0.5 to 1.5), and unchanged when neither brightness nor contrast is drawn.
    assert 34 <= min(levels) < 45
    assert 180 < max(levels) <= 198
    assert 0.22 < levels.count(100) / 2000 < 0.33


def test_distortion_draws_nine_numbers_whatever_it_does() -> None:
    image = torch.full((3, 2, 2), 90, dtype=torch.uint8)
    for seed in range(5):
        rng, other = np.random.default_rng(seed), np.random.default_rng(seed)
        distort(image, rng=rng)
        other.random(9)
        assert rng.random() == other.random()


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    colour=st.tuples(*[st.integers(0, 255)] * 3),
    saturation=st.floats(0.5, 1.5),
    degrees=st.floats(-36, 36),
)
def test_recolouring_is_that_of_hsv(colour: tuple[int, int, int], saturation: float, degrees: float) -> None:
    hue, s, value = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    expected = colorsys.hsv_to_rgb((hue + degrees / 360) % 1, min(s * saturation, 1), value)
    pixel = torch.tensor(colour, dtype=torch.float32).view(3, 1, 1)
    ours = recolour(pixel, saturation=saturation, degrees=degrees).flatten().tolist()
    assert ours == pytest.approx([255 * c for c in expected], abs=0.01)
