"""The papers' training augmentation: a discrete scale, a padded random crop, a horizontal flip.

Functions of their input and a random generator. Only the window that a crop needs is read and resized, which
is what makes a memory-mapped image cheap. Colours stay unless asked: the HWD and CIRKD code has no jitter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hwdkit.data.decode import Pixels
from hwdkit.types import IGNORE

Places = npt.NDArray[np.int64]

PAD_COLOUR = (124, 116, 104)
"""ImageNet's mean RGB. The papers' code pads with 0 after subtracting the mean; images here travel as uint8
and each network subtracts its own mean later, so the mean is what comes closest to that 0."""


def augment(
    image: Pixels,
    label: Pixels,
    *,
    rng: np.random.Generator,
    crop: tuple[int, int],
    scales: Sequence[float],
    flip: float,
    photometric: bool = False,
) -> tuple[Tensor, Tensor]:
    """Cut one training crop out of a pair.

    HWD and CIRKD training code: scale, then pad bottom and right, then a uniform crop, then a flip.

    Args:
        image: (H, W, 3) uint8, RGB; may be read-only and memory-mapped.
        label: (H, W) uint8, likewise.
        rng: four numbers are drawn from it whatever happens, so that options do not shift one another;
            `photometric` draws its own after them.
        crop: height, width in pixels.
        scales: factors of which one is drawn, all equally likely.
        flip: probability of a horizontal flip.
        photometric: also `distort` the colours; padding keeps its own.

    Returns:
        (3, *crop) uint8 and (*crop) uint8, both contiguous.
    """
    scale = scales[int(rng.integers(len(scales)))]
    at_y, at_x, flipped = float(rng.random()), float(rng.random()), bool(rng.random() < flip)
    rows = _draw(label.shape[0], scale, size=crop[0], at=at_y)
    columns = _draw(label.shape[1], scale, size=crop[1], at=at_x)
    if flipped:
        columns = columns.reversed()
    pixels, classes = resized_window(image, rows, columns), nearest_window(label, rows, columns)
    if photometric:
        pixels = distort(pixels, rng=rng)
    return _padded(pixels, classes, size=crop, to_the_left=flipped)


class Sources(NamedTuple):
    """Where the pixels of a crop lie in the source, along one axis.

    Attributes:
        near, far: the two source pixels that a resized pixel lies between.
        weight: of `far`, float32, within 0 and 1; `near` has the rest.
        nearest: the source pixel that gives the label.
    """

    near: Places
    far: Places
    weight: npt.NDArray[np.float32]
    nearest: Places

    def reversed(self) -> Sources:
        """The same pixels from the other end: a flip that costs nothing."""
        return Sources(
            self.near[::-1].copy(), self.far[::-1].copy(), self.weight[::-1].copy(), self.nearest[::-1].copy()
        )


def sources(length: int, scale: float, *, start: int, count: int) -> Sources:
    """Find the source pixels of `count` resized ones, from the `start`-th on.

    The factor itself maps the coordinates, as in OpenCV's resize(fx=, fy=) and in F.interpolate with
    recompute_scale_factor=False: asking for the rounded size instead would change grey levels by up to 30.
    Coordinates are rounded to float32 where F.interpolate rounds them; with s = 1.3 that decides labels.

    Args:
        length: pixels of the source.
        scale: > 0.
        start, count: which pixels of the resized axis, of which there are floor(length * scale).
    """
    # Where the length stays (1.1 on 9 pixels), so do the pixels, as in F.interpolate.
    step = np.float32(1.0 if int(length * scale) == length else 1.0 / scale)
    target = np.arange(start, start + count)
    # Rounded once, as by the fused multiply-add of torch's kernels.
    source = np.maximum(float(step) * (target + 0.5) - 0.5, 0.0).astype(np.float32)
    near = np.minimum(source.astype(np.int64), length - 1)
    far = np.minimum(near + 1, length - 1)
    weight = np.minimum(source - near.astype(np.float32), np.float32(1.0))
    nearest = np.minimum((target.astype(np.float32) * step).astype(np.int64), length - 1)
    return Sources(near, far, weight, nearest)


def _draw(length: int, scale: float, *, size: int, at: float) -> Sources:
    """The sources of a crop of `size` along one axis, `at` (0 to 1) of the way through; padding has none."""
    resized = max(int(length * scale), 1)
    start = int(at * (max(resized - size, 0) + 1))
    return sources(length, scale, start=start, count=min(size, resized - start))


def resized_window(image: Pixels, rows: Sources, columns: Sources) -> Tensor:
    """Resize the part of an image that a crop shows: bilinear, not antialiased.

    F.interpolate on the whole image and a crop out of that give the same, except that torch sums four
    products where this interpolates twice. Where that decides a tie, values differ by one grey level:
    measured 5 in 100,000 over the papers' scales; 2 in 10,000 for s = 1.5 near the first pixel.

    Args:
        image: (H, W, 3) uint8; only the rectangle that they span is read.
        rows, columns: the sources of h rows and w columns.

    Returns:
        (3, h, w) uint8.
    """
    (top, bottom), (left, right) = _span(rows.near, rows.far), _span(columns.near, columns.far)
    part = image[top:bottom, left:right]
    # A copy of what torch must not write to, of which it warns: one pass over a memory map.
    window = torch.from_numpy(part if part.flags.writeable else part.copy())
    resized = np.empty((3, len(rows.near), len(columns.near)), np.uint8)
    for plane, colour in zip(resized, window.unbind(-1), strict=True):  # one colour stays in a core's cache
        # Floats before rows are picked, unless few are.
        source = colour.float() if bottom - top <= len(rows.near) else colour
        lines = _interpolate(source, rows, axis=0, first=top)
        lines = _interpolate(lines, columns, axis=1, first=left)
        # torch's own cast takes four times as long.
        np.copyto(plane, lines.round_().numpy(), casting="unsafe")
    return torch.from_numpy(resized)


def _interpolate(lines: Tensor, at: Sources, *, axis: int, first: int) -> Tensor:
    """Interpolate linearly along one axis of a matrix, which is the source from its position `first` on."""
    near, far = (
        lines.index_select(axis, torch.from_numpy(place - first)).float() for place in (at.near, at.far)
    )
    weight = torch.from_numpy(at.weight)
    return near.lerp_(far, weight[:, None] if axis == 0 else weight)


def nearest_window(label: Pixels, rows: Sources, columns: Sources) -> Tensor:
    """Resize the part of a label that a crop shows: nearest, exactly as F.interpolate on the whole.

    Args:
        label: (H, W) uint8; only the rectangle that they span is read.
        rows, columns: the sources of h rows and w columns.

    Returns:
        (h, w) uint8.
    """
    (top, bottom), (left, right) = _span(rows.nearest), _span(columns.nearest)
    window = np.asarray(label[top:bottom, left:right])
    return torch.from_numpy(window.take(rows.nearest - top, 0).take(columns.nearest - left, 1))


def _span(*places: Places) -> tuple[int, int]:
    return int(min(p.min() for p in places)), int(max(p.max() for p in places)) + 1


def _padded(
    image: Tensor, label: Tensor, *, size: tuple[int, int], to_the_left: bool
) -> tuple[Tensor, Tensor]:
    """Pad a pair to `size` with `PAD_COLOUR` and 255: below, and to the right unless it has been flipped."""
    h, w = label.shape
    if (h, w) == size:
        return image, label
    left = size[1] - w if to_the_left else 0
    padded = torch.tensor(PAD_COLOUR, dtype=torch.uint8)[:, None, None].repeat(1, *size)
    padded[:, :h, left : left + w] = image
    padded_label = torch.full(size, IGNORE, dtype=torch.uint8)
    padded_label[:h, left : left + w] = label
    return padded, padded_label


def distort(image: Tensor, *, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue, each with probability 1/2.

    Order and ranges of mmsegmentation's PhotoMetricDistortion: brightness by up to 32 levels, contrast by a
    factor of 0.5 to 1.5 (before or after the rest, at random), saturation by a factor of 0.5 to 1.5, hue by
    up to 36 degrees. It rounds to uint8 after every one, and hue to 2 degrees; this rounds once, at the end.

    Args:
        image: (3, h, w) uint8, RGB.
        rng: nine numbers are drawn from it whatever happens.

    Returns:
        (3, h, w) uint8.
    """
    coins, lots = rng.random(5) < 0.5, rng.random(4)
    brighter, contrasted, saturated, turned, contrast_first = (bool(coin) for coin in coins)
    contrast = 0.5 + float(lots[1])
    pixels = image.float()
    if brighter:
        pixels = (pixels + 64 * float(lots[0]) - 32).clamp_(0, 255)
    if contrasted and contrast_first:
        pixels = (pixels * contrast).clamp_(0, 255)
    if saturated or turned:
        saturation = 0.5 + float(lots[2]) if saturated else 1.0
        degrees = 72 * float(lots[3]) - 36 if turned else 0.0
        pixels = recolour(pixels, saturation=saturation, degrees=degrees)
    if contrasted and not contrast_first:
        pixels = (pixels * contrast).clamp_(0, 255)
    return pixels.round_().to(torch.uint8)


def recolour(pixels: Tensor, *, saturation: float, degrees: float) -> Tensor:
    """Scale the saturation and turn the hue of colours, as in HSV: their value stays.

    Args:
        pixels: (3, h, w) float, RGB, 0 to 255.
        saturation: factor; the result is at most fully saturated.
        degrees: turn of the hue, from red towards green.
    """
    red, green, blue = pixels
    value = pixels.amax(0)
    chroma = value - pixels.amin(0)
    some = chroma.clamp(min=1e-6)  # gray has no hue: any will do
    hue = torch.where(
        value == red,
        (green - blue) / some,
        torch.where(value == green, (blue - red) / some + 2, (red - green) / some + 4),
    )
    hue = (hue + degrees / 60).remainder_(6)
    chroma = torch.minimum(chroma * saturation, value)
    # How much of each primary a fully saturated colour of this hue holds.
    primaries = torch.stack([(hue - 3).abs_() - 1, 2 - (hue - 2).abs_(), 2 - (hue - 4).abs_()]).clamp_(0, 1)
    return value - chroma * (1 - primaries)
