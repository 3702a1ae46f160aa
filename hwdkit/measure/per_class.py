"""Where distillation helped: per class, the IoU of every network and how students differ from the teacher.

Computes a `PerClassReport` in one pass over the images with one forward pass per network; memory does not
grow with the number of images. What a divergence is lives in `divergence.py`; rendering is elsewhere.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hwdkit.engine.opened import NamedNetwork
from hwdkit.kernels.bilinear_argmax import upsampled_argmax
from hwdkit.measure.divergence import Divergence, Measure, image_sums
from hwdkit.measure.profile import count_macs, count_parameters
from hwdkit.measure.types import ClassRow, Example, ModelSummary, PerClassReport
from hwdkit.metrics import ConfusionMatrix
from hwdkit.models.segmenter import Segmenter
from hwdkit.recipe.protocol import Absent
from hwdkit.types import IGNORE


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


@dataclass(order=True)
class _Kept:
    disagreement: float
    index: int
    example: Example = field(compare=False)


@torch.no_grad()
def per_class(
    networks: tuple[NamedNetwork, ...],
    pairs: Iterable[tuple[int, Tensor, Tensor]],
    subject: Subject,
    *,
    measure: Measure | None = None,
    absent: Absent = "present",
    examples: int = 6,
    notes: tuple[str, ...] = (),
    advance: Callable[[int], None] = lambda _: None,
) -> PerClassReport:
    """Compare networks class by class.

    Args:
        networks: exactly one `student` and one `teacher` among them. Every network but the teacher is
            compared with the teacher; the student's divergence is that of the report's rows.
        pairs: (index, image (3, H, W) uint8, label (H, W) int64).
        subject: what the images are.
        measure: what TD, NTD and the weights compare; None is the paper's, at temperature 4.
        absent: the rule for classes that do not occur.
        examples: how many images to keep: those where student and teacher differ most.
        notes: remarks to print with the report.
        advance: told the number of images done.
    """
    measure = measure or Measure()
    student = next(network for network in networks if network.role == "student")
    teacher = next(network for network in networks if network.role == "teacher")
    device = next(student.model.parameters()).device
    classes = len(subject.classes)
    for network in networks:
        network.model.eval()
    matrices = {network.name: ConfusionMatrix(classes, device) for network in networks}
    learners = {network.name: network.model for network in networks if network is not teacher}
    divergences = {name: Divergence(classes, device=device) for name in learners}
    kept: list[_Kept] = []
    done = 0
    for index, image, label in pairs:
        image, label = image.to(device), label.to(device)
        logits = {network.name: network.model(image[None]).logits.float() for network in networks}
        maps = {network.name: _class_map(network.model, logits[network.name], label) for network in networks}
        for name, matrix in matrices.items():
            matrix.update(label, maps[name])
        _compare(divergences, learners, logits, label=label, measure=measure)
        if examples:
            _keep(kept, examples, index, image, label, maps, (student.name, teacher.name), subject)
        done += 1
        advance(done)
    return PerClassReport(
        dataset=subject.dataset,
        split=subject.split,
        images=done,
        temperature=measure.temperature,
        divergence=measure.kind,
        divergence_on=measure.on,
        absent=absent,
        pair=(student.name, teacher.name),
        models=tuple(_summary(network, matrices[network.name], absent) for network in networks),
        rows=_rows(subject, matrices, divergences, student.name),
        examples=tuple(item.example for item in sorted(kept, reverse=True)),
        notes=notes,
        fingerprint=_fingerprint(subject, networks),
        confusions={name: tuple(map(tuple, matrix.matrix.tolist())) for name, matrix in matrices.items()},
    )


def _class_map(model: Segmenter, logits: Tensor, label: Tensor) -> Tensor:
    size = (label.shape[0], label.shape[1])
    return upsampled_argmax(logits[0], size, align_corners=model.contract.align_corners)


def _compare(
    divergences: dict[str, Divergence],
    models: dict[str, Segmenter],
    logits: dict[str, Tensor],
    *,
    label: Tensor,
    measure: Measure,
) -> None:
    """Add an image to the divergence of every student, at the size of the student's logits.

    A teacher of another size is resized as in training; students that need the same maps share them.
    """
    (teacher,) = (one for name, one in logits.items() if name not in models)
    groups: dict[tuple[torch.Size, bool | None], list[str]] = {}
    for name, model in models.items():
        size = logits[name].shape[-2:]
        fits = size == teacher.shape[-2:]
        groups.setdefault((size, None if fits else model.contract.align_corners), []).append(name)
    for (size, align_corners), names in groups.items():
        theirs = teacher if align_corners is None else models[names[0]].upsample(teacher, size)
        students = {name: logits[name][0] for name in names}
        for name, sums in image_sums(students, theirs[0], label, measure).items():
            divergences[name].update(sums)


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


def _summary(network: NamedNetwork, matrix: ConfusionMatrix, absent: Absent) -> ModelSummary:
    return ModelSummary(
        name=network.name,
        role=network.role,
        checkpoint=network.checkpoint,
        params=count_parameters(network.model)[1],
        gmacs=count_macs(network.model, (512, 512)).true / 1e9,
        miou=matrix.miou(absent),
        macc=matrix.macc(),
        pixel_accuracy=matrix.pixel_accuracy(),
    )


def _rows(
    subject: Subject, matrices: dict[str, ConfusionMatrix], divergences: dict[str, Divergence], student: str
) -> tuple[ClassRow, ...]:
    iou = {name: matrix.iou().tolist() for name, matrix in matrices.items()}
    share = next(iter(matrices.values())).share().tolist()
    found = {name: divergence.classes() for name, divergence in divergences.items()}
    return tuple(
        ClassRow(
            name=name,
            colour=subject.palette[c],
            share=share[c],
            iou={model: values[c] for model, values in iou.items()},
            td=found[student][c].td,
            ntd=found[student][c].ntd,
            ratio=found[student][c].ratio,
            weight=found[student][c].weight,
            image_ratio=found[student][c].image_ratio,
            ratio_images=found[student][c].images,
            divergences={model: values[c] for model, values in found.items()},
        )
        for c, name in enumerate(subject.classes)
    )


def _fingerprint(subject: Subject, networks: tuple[NamedNetwork, ...]) -> str:
    parts = [subject.fingerprint, subject.split, *(network.digest for network in networks)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
