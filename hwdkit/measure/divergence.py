"""TD and NTD: how far a student's maps are from its teacher's, on a class's own pixels and elsewhere.

HWD (Sun et al., ICME 2023), Table I; its authors' code computes none of this. One image at a time, a few
channels at a time: memory grows neither with the images nor with the classes. What is shown is elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hwdkit.losses.hwd import smooth, standardise
from hwdkit.losses.labels import class_ids, members, small_label
from hwdkit.measure.types import ClassDivergence
from hwdkit.types import DivergenceKind, DivergenceOn

CHUNK_BYTES = 2 * 2**20
"""Size of one float64 map of a chunk of channels; about six are alive at once, and fit into a cache."""


@dataclass(frozen=True)
class Measure:
    """What divergence means at one position of one channel.

    Attributes:
        kind: `mse` is (p_T - p_S)^2 (Eq. 5); `kl` is p_T ln(p_T / p_S) - p_T + p_S.
        on: `activation` maps, the softmax over the positions of each channel (Eq. 2), or raw `logits`.
        temperature: tau of the activation maps.

    The last two terms of `kl` sum to 0 over a map, so the sum over all positions is KL(p_T || p_S), HWD's
    own; they make every single term non-negative, without which a part of the sum would mean nothing.
    """

    kind: DivergenceKind = "mse"
    on: DivergenceOn = "activation"
    temperature: float = 4.0

    def __post_init__(self) -> None:
        if self.kind not in ("mse", "kl"):
            raise ValueError(f"kind is mse or kl, not {self.kind!r}")
        if self.on not in ("activation", "logits"):
            raise ValueError(f"on is activation or logits, not {self.on!r}")
        if self.kind == "kl" and self.on == "logits":
            raise ValueError("kl compares distributions: it needs activation maps, not logits")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be positive, not {self.temperature}")

    def maps(self, logits: Tensor) -> Tensor:
        """What is compared: (k, h, w) logits -> (k, h*w) float64; for kl the log of the activation maps."""
        flat = logits.double().flatten(1)
        if self.on == "logits":
            return flat
        log_p = (flat / self.temperature).log_softmax(1)
        return log_p if self.kind == "kl" else log_p.exp()

    def between(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The divergence at every position of two `maps`: (k, M), non-negative."""
        if self.kind == "mse":
            return (teacher - student).square_()
        p_t = teacher.exp()
        # Rounding may take it below 0 by some 1e-16 of p_T.
        return (p_t * (teacher - student)).sub_(p_t).add_(student.exp()).clamp_(min=0)


class ImageSums(NamedTuple):
    """Sums over the positions of one image, each (C,) float64.

    `own` and `other`: divergence over positions of the channel's class and of any other class; `ignored`:
    over positions without a class; `pixels`: how many positions each class has.
    """

    own: Tensor
    other: Tensor
    ignored: Tensor
    pixels: Tensor


def image_sums(
    students: Mapping[str, Tensor],
    teacher: Tensor,
    label: Tensor,
    measure: Measure,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> dict[str, ImageSums]:
    """Compare several students with one teacher on one image; the teacher's maps are computed once.

    Args:
        students: name -> (C, h, w) logits.
        teacher: (C, h, w) logits.
        label: (H, W) int64, 255 = ignore; down-sampled to (h, w) by nearest, as in training.
        chunk_bytes: see `CHUNK_BYTES`; at least one channel is taken.
    """
    classes, height, width = teacher.shape
    ids = class_ids(small_label(label[None], (height, width)), classes)
    counted = (ids[0] < classes).double()
    positions = torch.stack([counted, 1 - counted], 1)  # (M, 2): positions with a class, and without
    pixels = torch.zeros(classes + 1, dtype=torch.float64, device=teacher.device)
    pixels = pixels.index_add_(0, ids[0], torch.ones_like(counted))[:classes]
    sums = {name: teacher.new_empty(3, classes, dtype=torch.float64) for name in students}
    step = max(1, chunk_bytes // (8 * height * width))
    for first in range(0, classes, step):
        part = slice(first, first + step)
        teacher_maps = measure.maps(teacher[part])
        on_class = members(ids - first, len(teacher_maps))[0]
        for name, student in students.items():
            divergence = measure.between(measure.maps(student[part]), teacher_maps)
            sums[name][0, part] = divergence.masked_fill(~on_class, 0).sum(1)
            # Without the class's positions, not by subtracting their sum: what is left may be far smaller.
            sums[name][1:, part] = (divergence.masked_fill_(on_class, 0) @ positions).T
    return {name: ImageSums(three[0], three[1], three[2], pixels) for name, three in sums.items()}


class Divergence:
    """TD, NTD, their ratios and the HWD weight of every channel of one student, over a split.

    TD_c is the mean divergence over all positions labelled c, NTD_c over all positions with another label;
    ignored positions count in neither.

    - `ratio`: TD_c / NTD_c of the whole split; none where NTD_c is 0.
    - `image_ratio`: the mean of the ratios of single images, over the `images` that have positions of c and
      of another class and whose NTD is not 0.
    - `weight`: the mean over all images of Eq. 7 with mu 0, sigma 1, beta 0.1 and no area correction. Its
      divergence is that of whole channels, ignored positions included, as in training.
    """

    def __init__(self, classes: int, *, device: torch.device | str = "cpu") -> None:
        zeros = torch.zeros(7, classes, dtype=torch.float64, device=device)
        self._total = ImageSums(*zeros[:4])
        self._ratios, self._images_with_ratio, self._weights = zeros[4:]
        self._images = 0

    def update(self, sums: ImageSums) -> None:
        """Add an image."""
        for total, one in zip(self._total, sums, strict=True):
            total += one
        td, ntd = _means(sums)
        has_ratio = (sums.pixels > 0) & (ntd > 0)  # false where ntd is NaN: no position of another class
        self._ratios += torch.where(has_ratio, td / ntd, 0.0)
        self._images_with_ratio += has_ratio
        whole = (sums.own + sums.other + sums.ignored)[None]
        weights = smooth(standardise(whole, mu=0.0, sigma=1.0), smoothing="effective_number", beta=0.1)
        self._weights += weights[0]
        self._images += 1

    def classes(self) -> list[ClassDivergence]:
        """The numbers of every class; None where there is none."""
        td, ntd = _means(self._total)
        columns = {
            "td": td,
            "ntd": ntd,
            "ratio": td / ntd,
            "image_ratio": self._ratios / self._images_with_ratio,
            "weight": self._weights / self._images,
        }
        rows = torch.stack([*columns.values()], 1).tolist()
        return [
            ClassDivergence(
                **{name: x if math.isfinite(x) else None for name, x in zip(columns, row, strict=True)},
                images=int(images),
            )
            for row, images in zip(rows, self._images_with_ratio.tolist(), strict=True)
        ]


def _means(sums: ImageSums) -> tuple[Tensor, Tensor]:
    """(TD, NTD), each (C,); NaN where there is no position to average over."""
    return sums.own / sums.pixels, sums.other / (sums.pixels.sum() - sums.pixels)
