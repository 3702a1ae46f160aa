"""Evaluation: whole images or sliding windows, several scales and flips, counted exactly over any ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hwdkit.distributed import Ranks, sum_over_ranks
from hwdkit.kernels.bilinear_argmax import upsampled_argmax
from hwdkit.metrics import ConfusionMatrix
from hwdkit.models.network import Network
from hwdkit.recipe.protocol import Protocol


def predict(model: Network, image: Tensor, protocol: Protocol) -> Tensor:
    """Class map of one image.

    Args:
        model: in eval mode.
        image: (3, H, W) uint8 RGB, on the model's device.
        protocol: see `Protocol`.

    Returns:
        (H, W) integers, of any integer type.
    """
    if protocol.mode == "whole" and protocol.scales == (1.0,) and not protocol.flip:
        logits = model(image[None]).logits[0]
        size = (image.shape[-2], image.shape[-1])
        return upsampled_argmax(logits, size, align_corners=model.align_corners)
    return image_logits(model, image, protocol).argmax(0)


def image_logits(model: Network, image: Tensor, protocol: Protocol) -> Tensor:
    """Logits of one image at its full size: (C, H, W) float32, summed over scales and flips."""
    size = (image.shape[-2], image.shape[-1])
    total: Tensor | None = None
    for scale in protocol.scales:
        scaled = _resize(image, scale)
        for view in (scaled, scaled.flip(-1)) if protocol.flip else (scaled,):
            if protocol.mode == "slide":
                logits = _slide(model, view, protocol)
            else:
                logits = model(view[None]).logits.float()
            if view is not scaled:
                logits = logits.flip(-1)
            logits = model.upsample(logits, size)[0]
            total = logits if total is None else total + logits
    assert total is not None
    return total


def _resize(image: Tensor, scale: float) -> Tensor:
    if scale == 1.0:
        return image
    size = [max(32, round(side * scale)) for side in image.shape[-2:]]
    return F.interpolate(image[None].float(), size, mode="bilinear", align_corners=False)[0]


def _slide(model: Network, image: Tensor, protocol: Protocol) -> Tensor:
    """Mean of the windows' logits, (1, C, H, W); the last window of a row or column is shifted inside."""
    height, width = image.shape[-2:]
    window = (min(protocol.window[0], height), min(protocol.window[1], width))
    total = image.new_zeros(1, model.classes, height, width, dtype=torch.float32)
    counts = image.new_zeros(1, 1, height, width, dtype=torch.float32)
    for top in _starts(height, window[0], protocol.stride[0]):
        for left in _starts(width, window[1], protocol.stride[1]):
            region = (..., slice(top, top + window[0]), slice(left, left + window[1]))
            total[region] += model.upsample(model(image[region][None]).logits.float(), window)
            counts[region] += 1
    return total / counts


def _starts(length: int, window: int, stride: int) -> list[int]:
    starts = list(range(0, length - window, stride))
    return [*starts, length - window]


@dataclass(frozen=True)
class Evaluation:
    """The numbers of one evaluation, all in 0..1; `iou` is NaN for a class that never occurs."""

    images: int
    miou: float
    macc: float
    pixel_accuracy: float
    iou: tuple[float, ...]
    share: tuple[float, ...]
    protocol: Protocol

    def scores(self) -> dict[str, float]:
        """The numbers over all classes."""
        return {"miou": self.miou, "macc": self.macc, "pixel_accuracy": self.pixel_accuracy}

    def to_dict(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """JSON-able, with class names; NaN becomes None."""
        per_class = [
            {"name": name, "iou": None if iou != iou else iou, "share": share}
            for name, iou, share in zip(classes, self.iou, self.share, strict=True)
        ]
        return {
            "images": self.images,
            **self.scores(),
            "per_class": per_class,
            "absent_classes": [row["name"] for row in per_class if row["iou"] is None],
            "protocol": self.protocol.model_dump(),
        }


@torch.no_grad()
def evaluate(
    model: Network,
    pairs: Iterable[tuple[int, Tensor, Tensor]],
    protocol: Protocol,
    *,
    ranks: Ranks,
    on_image: Callable[[int, Tensor], None] | None = None,
) -> Evaluation:
    """Evaluate on this rank's images, in float32; the result is that of all ranks, no image counted twice.

    Args:
        model: put into eval mode.
        pairs: (index, image (3, H, W) uint8, label (H, W)) of this rank.
        protocol: see `Protocol`.
        ranks: which process this is.
        on_image: called with (index, class map on the device) after each image.
    """
    model.eval()
    matrix = ConfusionMatrix(model.classes, ranks.device)
    images = torch.zeros((), dtype=torch.int64, device=ranks.device)
    for index, image, label in pairs:
        image, label = image.to(ranks.device, non_blocking=True), label.to(ranks.device, non_blocking=True)
        prediction = predict(model, image, protocol)
        matrix.update(label, prediction)
        images += 1
        if on_image:
            on_image(index, prediction)
    total = matrix.sum_over_ranks()
    return Evaluation(
        images=int(sum_over_ranks(images)),
        miou=total.miou(protocol.absent),
        macc=total.macc(),
        pixel_accuracy=total.pixel_accuracy(),
        iou=tuple(total.iou().tolist()),
        share=tuple(total.share().tolist()),
        protocol=protocol,
    )
