"""The papers' training augmentation: a discrete scale, a padded random crop, a horizontal flip.

Pure functions of their input and a random generator. No colour jitter: the HWD and CIRKD code has none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hwdkit.types import IGNORE

PAD_COLOUR = (124, 116, 104)
"""ImageNet's mean RGB. The papers' code pads with 0 after subtracting the mean; images here travel as uint8
and each network subtracts its own mean later, so the mean is what comes closest to that 0."""


def augment(
    image: Tensor,
    label: Tensor,
    *,
    rng: np.random.Generator,
    crop: tuple[int, int],
    scales: Sequence[float],
    flip: float,
) -> tuple[Tensor, Tensor]:
    """Cut one training crop out of a pair.

    HWD and CIRKD training code: scale, then pad bottom and right, then a uniform crop, then a flip.

    Args:
        image: (3, H, W) uint8.
        label: (H, W) uint8.
        rng: four numbers are drawn from it whatever happens, so that options do not shift one another.
        crop: height, width in pixels.
        scales: factors of which one is drawn, all equally likely.
        flip: probability of a horizontal flip.

    Returns:
        (3, *crop) uint8 and (*crop) uint8.
    """
    scale = scales[int(rng.integers(len(scales)))]
    at_y, at_x, flipped = float(rng.random()), float(rng.random()), bool(rng.random() < flip)
    image, label = resize(image, label, scale=scale)
    top = int(at_y * (max(label.shape[0] - crop[0], 0) + 1))
    left = int(at_x * (max(label.shape[1] - crop[1], 0) + 1))
    image, label = crop_with_padding(image, label, corner=(top, left), size=crop)
    if flipped:
        image, label = image.flip(-1), label.flip(-1)
    return image, label


def resize(image: Tensor, label: Tensor, *, scale: float) -> tuple[Tensor, Tensor]:
    """Resize a pair by one factor: bilinear without antialiasing for the image, nearest for the label.

    The factor itself maps the coordinates, as in OpenCV's resize(fx=, fy=): asking for the rounded size
    instead would change grey levels by up to 30.

    Args:
        image: (3, H, W) uint8.
        label: (H, W) uint8.
        scale: > 0.

    Returns:
        (3, floor(H * scale), floor(W * scale)) uint8 and the label at that size.
    """
    if scale == 1.0:
        return image, label
    smooth = F.interpolate(
        image[None].float(),
        scale_factor=scale,
        mode="bilinear",
        align_corners=False,
        recompute_scale_factor=False,
    )
    nearest = F.interpolate(
        label[None, None], scale_factor=scale, mode="nearest", recompute_scale_factor=False
    )
    return smooth[0].round_().to(torch.uint8), nearest[0, 0]


def crop_with_padding(
    image: Tensor, label: Tensor, *, corner: tuple[int, int], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Cut a window out of a pair; what lies beyond the bottom and right edges is padding.

    Args:
        image: (3, H, W) uint8.
        label: (H, W) uint8.
        corner: top, left of the window, inside the pair.
        size: height, width of the window.

    Returns:
        (3, *size) uint8 padded with `PAD_COLOUR`, and (*size) uint8 padded with 255.
    """
    (top, left), (height, width) = corner, size
    image = image[:, top : top + height, left : left + width]
    label = label[top : top + height, left : left + width]
    inside_y, inside_x = label.shape
    if (inside_y, inside_x) == size:
        return image, label
    padded = torch.tensor(PAD_COLOUR, dtype=torch.uint8)[:, None, None].repeat(1, height, width)
    padded[:, :inside_y, :inside_x] = image
    padded_label = torch.full(size, IGNORE, dtype=torch.uint8)
    padded_label[:inside_y, :inside_x] = label
    return padded, padded_label
