"""Endless synthetic street scenes with exact labels: the dataset that needs no download.

`hwdkit demo` and the tests run the whole pipeline on it. It is drawn to be hard in the ways real streets are:
long-tailed classes, thin structures, and colours and materials that several classes share, so that context
decides. This file is the public face; the drawing is in the files beside it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hwdkit.datasets.scenes import PALETTE
from hwdkit.scenes.light import develop, draw_weather
from hwdkit.scenes.stage import IGNORE, Dice, Stage
from hwdkit.scenes.street import build_street, draw_camera


def render(
    seed: int, index: int, *, size: tuple[int, int] = (128, 128)
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw scene number `index` of the dataset `seed`, whichever others were drawn before.

    The same on every platform, to within what the libraries promise: a Pillow release may move a pixel of an
    outline (7 labels in a million from 10.4 to 13.0), a CPU may round a grey level differently.

    Args:
        seed: which dataset, >= 0. Use different seeds for training and validation.
        index: which scene, >= 0.
        size: (height, width) in pixels. More rows show the same street in more detail, more columns
            more of it.

    Returns:
        image (H, W, 3) uint8 RGB and label (H, W) uint8: a class number, or 255 = ignore for the camera car's
        bonnet and for street furniture without a class.

    Raises:
        ValueError: if seed or index is negative, or a side is shorter than 16 pixels.
    """
    if seed < 0 or index < 0 or min(size) < 16:
        raise ValueError(f"scenes need seed >= 0, index >= 0 and sides >= 16, got {seed}, {index}, {size}")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))
    dice = Dice(rng)
    weather = draw_weather(dice)
    half_road = dice.between(2.9, 5.4)
    stage = Stage(draw_camera(dice, size, half_road), size)
    build_street(stage, dice, weather, half_road)
    return develop(stage, weather, rng)


def colour_label(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) picture of a (H, W) label; ignored pixels are black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(PALETTE)] = PALETTE
    table[IGNORE] = 0
    return table[label]


def contact_sheet(seed: int, count: int, *, columns: int = 6) -> Image.Image:
    """Scenes 0..count-1 of a dataset on one page, each above its coloured label."""
    gap, side = 4, 128
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * (side + gap) + gap, rows * (2 * side + 2 * gap) + gap), "white")
    for index in range(count):
        image, label = render(seed, index)
        x = gap + index % columns * (side + gap)
        y = gap + index // columns * (2 * side + 2 * gap)
        sheet.paste(Image.fromarray(image), (x, y))
        sheet.paste(Image.fromarray(colour_label(label)), (x, y + side))
    return sheet
