"""The augmentation against a naive reference, and the cases where it must change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.data.transforms import PAD_COLOUR, augment, crop_with_padding, resize

PAPER_SCALES = [round(0.5 + k / 10, 1) for k in range(16)]


def pair(height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
    return image, torch.from_numpy(rng.integers(0, 20, (height, width), dtype=np.uint8))


def naive_resize(image: Tensor, label: Tensor, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixel by pixel in float64: source = (target + 0.5) / scale - 0.5, nearest = floor(target / scale)."""
    _, height, width = image.shape
    out_h, out_w = int(height * scale), int(width * scale)
    pixels = image.double().numpy()
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
    resized, relabelled = resize(image, label, scale=scale)
    assert resized.dtype == relabelled.dtype == torch.uint8
    assert resized.shape[1:] == relabelled.shape == nearest.shape
    # Half a grey level of rounding, and the float32 in which a tie may fall to the other side.
    assert np.abs(resized.numpy() - smooth).max() <= 0.5 + 1e-3
    # Where target / scale is a whole number, float32 may land just below it (s = 1.3, as OpenCV's may).
    assert (relabelled.numpy() == nearest).mean() > (0.85 if scale == 1.3 else 0.99)


def test_scale_1_is_the_same_pixels() -> None:
    image, label = pair(13, 19)
    resized, relabelled = resize(image, label, scale=1.0)
    assert torch.equal(resized, image)
    assert torch.equal(relabelled, label)


def test_without_scale_flip_and_padding_a_crop_is_a_window_of_the_pair() -> None:
    image, label = pair(30, 40)
    for seed in range(20):
        crop, crop_label = augment(
            image, label, rng=np.random.default_rng(seed), crop=(16, 24), scales=[1.0], flip=0.0
        )
        places = [
            (y, x)
            for y in range(15)
            for x in range(17)
            if torch.equal(image[:, y : y + 16, x : x + 24], crop)
        ]
        assert len(places) == 1
        y, x = places[0]
        assert torch.equal(label[y : y + 16, x : x + 24], crop_label)


def test_every_corner_of_the_crop_can_be_drawn() -> None:
    image, label = pair(5, 6)
    label = torch.arange(30, dtype=torch.uint8).view(5, 6)
    rng = np.random.default_rng(0)
    drawn = {
        int(augment(image, label, rng=rng, crop=(3, 3), scales=[1.0], flip=0.0)[1][0, 0]) for _ in range(300)
    }
    assert drawn == {6 * y + x for y in range(3) for x in range(4)}


def test_a_small_pair_is_padded_at_the_bottom_and_right() -> None:
    image, label = pair(5, 6)
    crop, crop_label = augment(
        image, label, rng=np.random.default_rng(1), crop=(8, 7), scales=[1.0], flip=0.0
    )
    assert torch.equal(crop[:, :5, :6], image)
    assert torch.equal(crop_label[:5, :6], label)
    assert (crop_label[5:] == 255).all()
    assert (crop_label[:, 6:] == 255).all()
    colour = torch.tensor(PAD_COLOUR, dtype=torch.uint8)
    assert torch.equal(crop[:, 7, 6], colour)
    assert torch.equal(crop[:, 0, 6], colour)


def test_a_wide_low_pair_is_cropped_one_way_and_padded_the_other() -> None:
    image, label = pair(4, 20)
    crop, crop_label = crop_with_padding(image, label, corner=(0, 9), size=(6, 8))
    assert torch.equal(crop[:, :4], image[:, :, 9:17])
    assert torch.equal(crop_label[:4], label[:, 9:17])
    assert (crop_label[4:] == 255).all()


def test_a_flip_mirrors_image_and_label_together() -> None:
    image, label = pair(8, 8)
    flipped, flipped_label = augment(
        image, label, rng=np.random.default_rng(0), crop=(8, 8), scales=[1.0], flip=1.0
    )
    assert torch.equal(flipped, image.flip(-1))
    assert torch.equal(flipped_label, label.flip(-1))


def test_options_do_not_shift_one_another() -> None:
    image, label = pair(30, 40)
    options = [
        augment(image, label, rng=np.random.default_rng(3), crop=(16, 16), scales=[1.0], flip=flip)[1]
        for flip in (0.0, 1.0)
    ]
    assert torch.equal(options[0], options[1].flip(-1))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    crop=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    scale=st.sampled_from(PAPER_SCALES),
    seed=st.integers(0, 1000),
)
def test_a_crop_has_its_size_and_no_new_label(
    height: int, width: int, crop: tuple[int, int], scale: float, seed: int
) -> None:
    if min(height, width) * scale < 1:
        return
    image, label = pair(height, width, seed)
    rng = np.random.default_rng(seed)
    cut, cut_label = augment(image, label, rng=rng, crop=crop, scales=[scale], flip=0.5)
    assert cut.shape == (3, *crop)
    assert cut_label.shape == crop
    assert set(cut_label.unique().tolist()) <= {*label.unique().tolist(), 255}
    assert (cut_label != 255).any()
