"""Where distillation helped: per class, the IoU of every network and how student and teacher diverge.

Computes a `PerClassReport` in one pass over the images with one forward pass per network; memory does not
grow with the number of images. Rendering is elsewhere.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hwdkit.losses.channel_wise import log_activation
from hwdkit.losses.hwd import HWD
from hwdkit.metrics import Absent, ConfusionMatrix
from hwdkit.models.segmenter import Segmenter
from hwdkit.report.profile import count_macs, count_parameters
from hwdkit.report.types import ClassRow, Example, ModelSummary, PerClassReport, Role
from hwdkit.types import IGNORE


@dataclass(frozen=True)
class Entrant:
    """One network in the report."""

    name: str
    role: Role
    model: Segmenter
    checkpoint: str
    digest: str


@dataclass(frozen=True)
class Subject:
    """The data that the report is about.

    Attributes:
        dataset, split, fingerprint: what is evaluated on.
        classes, palette: in class order.
        image_name: index -> how the dataset calls that image.
    """

    dataset: str
    split: str
    fingerprint: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    image_name: Callable[[int], str]


class Divergence:
    """TD and NTD of every channel (HWD, Sun et al., ICME 2023, Table I), summed in float64.

    TD_c is the mean of (p^T_c,i - p^S_c,i)^2 over all positions i labelled c, NTD_c the mean over all
    positions with another label; p are the activation maps (Eq. 2) at the logits' resolution, ignored
    positions count nowhere. TD/NTD is the ratio of these two means over the whole split.
    """

    def __init__(self, classes: int, *, temperature: float, device: torch.device) -> None:
        self.temperature = temperature
        zeros = torch.zeros(classes, dtype=torch.float64, device=device)
        self.target, self.everywhere, self.weight = zeros.clone(), zeros.clone(), zeros.clone()
        self.target_pixels = zeros.clone()
        self.images = 0
        self._hwd = HWD(temperature=temperature)

    def update(self, student: Tensor, teacher: Tensor, label: Tensor) -> None:
        """Add images.

        Args:
            student: (N, C, h, w) logits.
            teacher: (N, C, h, w) logits.
            label: (N, H, W) int64, 255 = ignore.
        """
        classes = student.shape[1]
        p_s = log_activation(student.double(), temperature=self.temperature).exp()
        p_t = log_activation(teacher.double(), temperature=self.temperature).exp()
        squared = (p_t - p_s).square()  # (N, C, h*w)
        small = F.interpolate(label[:, None].float(), student.shape[-2:], mode="nearest").long().flatten(1)
        counted = (small >= 0) & (small < classes)
        bins = torch.where(counted, small, classes)
        own = squared.new_zeros(len(label), classes + 1, squared.shape[2])
        own.scatter_(1, bins[:, None], 1.0)  # one-hot; ignored positions go to the extra class
        self.target += (squared * own[:, :classes]).sum((0, 2))
        self.everywhere += (squared * counted[:, None]).sum((0, 2))
        self.target_pixels += own[:, :classes].sum((0, 2))
        self.weight += self._hwd.channel_weights(student, teacher, label).double().sum(0)
        self.images += len(label)

    def td(self) -> Tensor:
        """(C,) mean squared difference over the class's own pixels; NaN for a class without any."""
        return self.target / self.target_pixels

    def ntd(self) -> Tensor:
        """(C,) mean squared difference over the other classes' pixels."""
        return (self.everywhere - self.target) / (self.target_pixels.sum() - self.target_pixels)

    def mean_weight(self) -> Tensor:
        """(C,) mean HWD channel weight over the images, area correction off, mu 0, sigma 1, beta 0.1."""
        return self.weight / self.images


@dataclass(order=True)
class _Kept:
    disagreement: float
    index: int
    example: Example = field(compare=False)


@torch.no_grad()
def per_class(
    entrants: tuple[Entrant, ...],
    pairs: Iterable[tuple[int, Tensor, Tensor]],
    subject: Subject,
    *,
    temperature: float = 4.0,
    absent: Absent = "present",
    examples: int = 6,
    notes: tuple[str, ...] = (),
    advance: Callable[[int], None] = lambda _: None,
) -> PerClassReport:
    """Compare networks class by class.

    Args:
        entrants: exactly one `student` and one `teacher` among them: TD, NTD and weights compare these two.
        pairs: (index, image (3, H, W) uint8, label (H, W) int64).
        subject: what the images are.
        temperature: tau of the activation maps.
        absent: the rule for classes that do not occur.
        examples: how many images to keep: those where student and teacher differ most.
        notes: remarks to print with the report.
        advance: told the number of images done.
    """
    student = next(entrant for entrant in entrants if entrant.role == "student")
    teacher = next(entrant for entrant in entrants if entrant.role == "teacher")
    device = next(student.model.parameters()).device
    classes = len(subject.classes)
    matrices = {entrant.name: ConfusionMatrix(classes, device) for entrant in entrants}
    divergence = Divergence(classes, temperature=temperature, device=device)
    kept: list[_Kept] = []
    done = 0
    for index, image, label in pairs:
        image, label = image.to(device), label.to(device)
        logits = {entrant.name: entrant.model.eval()(image[None]).logits.float() for entrant in entrants}
        maps = {
            entrant.name: entrant.model.upsample(logits[entrant.name], label.shape)[0].argmax(0)
            for entrant in entrants
        }
        for name, matrix in matrices.items():
            matrix.update(label, maps[name])
        ours, theirs = logits[student.name], logits[teacher.name]
        if theirs.shape != ours.shape:
            theirs = student.model.upsample(theirs, ours.shape[-2:])  # as training does
        divergence.update(ours, theirs, label[None])
        if examples:
            _keep(kept, examples, index, image, label, maps, (student.name, teacher.name), subject)
        done += 1
        advance(done)
    return PerClassReport(
        dataset=subject.dataset,
        split=subject.split,
        images=done,
        temperature=temperature,
        divergence_on="activation",
        absent=absent,
        pair=(student.name, teacher.name),
        models=tuple(_summary(entrant, matrices[entrant.name], absent) for entrant in entrants),
        rows=_rows(subject, matrices, divergence),
        examples=tuple(item.example for item in sorted(kept, reverse=True)),
        notes=notes,
        fingerprint=_fingerprint(subject, entrants),
    )


def _keep(
    kept: list[_Kept], most: int, index: int, image: Tensor, label: Tensor, maps: dict[str, Tensor],
    pair: tuple[str, str], subject: Subject,
) -> None:  # fmt: skip
    """Hold on to the images where student and teacher differ most; never more than `most` in memory."""
    labelled = label != IGNORE
    differing = float(((maps[pair[0]] != maps[pair[1]]) & labelled).sum() / labelled.sum().clamp(min=1))
    if len(kept) == most and differing <= kept[0].disagreement:
        return
    example = Example(
        name=subject.image_name(index),
        height=label.shape[0],
        width=label.shape[1],
        image=image.permute(1, 2, 0).cpu().numpy(),
        label=_uint8(label),
        predictions={name: _uint8(prediction) for name, prediction in maps.items()},
        disagreement=differing,
    )
    item = _Kept(differing, index, example)
    if len(kept) < most:
        heapq.heappush(kept, item)
    else:
        heapq.heapreplace(kept, item)


def _uint8(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return tensor.to(torch.uint8).cpu().numpy()


def _summary(entrant: Entrant, matrix: ConfusionMatrix, absent: Absent) -> ModelSummary:
    return ModelSummary(
        name=entrant.name,
        role=entrant.role,
        checkpoint=entrant.checkpoint,
        params=count_parameters(entrant.model)[1],
        gmacs=count_macs(entrant.model, (512, 512)).true / 1e9,
        miou=matrix.miou(absent),
        macc=matrix.macc(),
        pixel_accuracy=matrix.pixel_accuracy(),
    )


def _rows(
    subject: Subject, matrices: dict[str, ConfusionMatrix], divergence: Divergence
) -> tuple[ClassRow, ...]:
    iou = {name: matrix.iou().tolist() for name, matrix in matrices.items()}
    share = next(iter(matrices.values())).share().tolist()
    td, ntd, weight = divergence.td(), divergence.ntd(), divergence.mean_weight()
    columns = [[None if x != x else x for x in tensor.tolist()] for tensor in (td, ntd, td / ntd, weight)]
    return tuple(
        ClassRow(
            name=name,
            colour=subject.palette[c],
            share=share[c],
            iou={model: values[c] for model, values in iou.items()},
            td=columns[0][c],
            ntd=columns[1][c],
            ratio=columns[2][c],
            weight=columns[3][c],
        )
        for c, name in enumerate(subject.classes)
    )


def _fingerprint(subject: Subject, entrants: tuple[Entrant, ...]) -> str:
    parts = [subject.fingerprint, subject.split, *(entrant.digest for entrant in entrants)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
