"""Whether an exported file computes what the network computes, on pictures."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hwdkit.errors import CheckpointError
from hwdkit.export.deployed import STATIC, Form, first_line
from hwdkit.export.files import Exported
from hwdkit.models.segmenter import Segmenter


class Agreement(NamedTuple):
    """How far a file is from the network at one shape.

    Attributes:
        shape: (N, 3, H, W) that was fed.
        max_difference: the largest absolute difference of a logit; where the file gives class ids, the
            largest margin by which the network prefers its own class to the file's.
        other_class: share of pixels with another class, 0..1.
    """

    shape: tuple[int, int, int, int]
    max_difference: float
    other_class: float


def resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, H, W) uint8 at another size, uint8."""
    if tuple(picture.shape[-2:]) == size:
        return picture
    smooth = F.interpolate(picture[None].float(), size, mode="bilinear", antialias=True)
    return smooth[0].round().clamp(0, 255).to(torch.uint8)


def as_input(images: Tensor, model: Segmenter, form: Form) -> Tensor:
    """(N, 3, H, W) uint8 RGB as a file of this form wants it."""
    return images if form.baked else model.contract.normalise(images).contiguous()


@torch.no_grad()
def agreement(
    model: Segmenter, exported: Exported, pictures: list[Tensor], *, form: Form, shape: tuple[int, int, int]
) -> Agreement:
    """Compare a file with the network on every picture, resized to one shape.

    Args:
        model: the network, in evaluation mode on the CPU.
        pictures: (3, H, W) uint8 RGB, at least one.
        form: of the file.
        shape: (N, H, W); pictures are taken N at a time, from the first again at the end.

    Raises:
        CheckpointError: the file cannot be run at this shape, or gives a map of another size.
    """
    images, height, width = shape
    difference, other, pixels = 0.0, 0, 0
    for start in range(0, len(pictures), images):
        turn = [pictures[(start + i) % len(pictures)] for i in range(images)]
        batch = torch.stack([resized(picture, (height, width)) for picture in turn])
        logits = model(batch).logits
        if form.output != "logits":
            logits = model.upsample(logits, (height, width))
        answer = _run(exported, as_input(batch, model, form), form)
        expected = logits.shape if form.output != "classes" else logits.argmax(1).shape
        if answer.shape != expected:
            raise CheckpointError(
                f"the exported file gives {tuple(answer.shape)} for {tuple(batch.shape)}, "
                f"the network {tuple(expected)}",
                hint=STATIC if form.dynamic else "",
            )
        classes = answer.long() if form.output == "classes" else answer.argmax(1)
        best = logits.max(1)
        if form.output == "classes":
            gaps = best.values - logits.gather(1, classes[:, None])[:, 0]
        else:
            gaps = (logits - answer).abs()
        # Python's max would drop a NaN that comes second.
        worst = float(gaps.max())
        difference = worst if math.isnan(worst) or math.isnan(difference) else max(difference, worst)
        other += int((best.indices != classes).sum())
        pixels += classes.numel()
    return Agreement((images, 3, height, width), difference, other / pixels)


def _run(exported: Exported, batch: Tensor, form: Form) -> Tensor:
    try:
        return exported(batch)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # onnxruntime's own types share no base class
        raise CheckpointError(
            f"the exported file does not run on {tuple(batch.shape)} ({first_line(error)})",
            hint=STATIC if form.dynamic else "",
        ) from error


def require_agreement(shapes: list[Agreement], *, tolerance: float, form: Form) -> None:
    """Refuse a file that is further from the network than `tolerance`.

    Raises:
        CheckpointError: naming the worst shape.
    """
    for at in shapes:
        if not at.max_difference <= tolerance:  # NaN fails too
            raise CheckpointError(
                f"the exported file differs from the network by {at.max_difference:.3g} in its logits at "
                f"{'x'.join(map(str, at.shape))} ({100 * at.other_class:.3g} % of the pixels have another "
                f"class); --tolerance is {tolerance:g}. Nothing was written",
                hint=STATIC if form.dynamic else "raise --tolerance only if you know why they differ",
            )


def generated_picture(size: tuple[int, int]) -> Tensor:
    """(3, H, W) uint8: waves of several lengths and directions, the same on every machine."""
    y, x = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in size), indexing="ij")
    waves = [
        (x * a + y * b).sin() + (x * b - y * a).cos() for a, b in ((0.05, 0.11), (0.23, 0.02), (0.7, 0.4))
    ]
    return ((torch.stack(waves) + 2) * 63.75).round().to(torch.uint8)
