"""Where distillation helped: per class, the IoU of every network and how students differ from the teacher.

Computes a `PerClassReport` in one pass over the images with one forward pass per network; memory does not
grow with the number of images. What a divergence is lives in `divergence.py`; rendering is elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

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
    """The data that the report is about; `image_name` is what the dataset calls the image of an index."""

    dataset: str
    split: str
    fingerprint: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    image_name: Callable[[int], str]


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
        measure: what TD, NTD and the weights compare; None is the paper's, at temperature 4.
        examples: how many images to keep: those where student and teacher differ most.
        advance: called with the number of images done.
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
    kept: list[Example] = []
    done = 0
    for done, (index, image, label) in enumerate(pairs, start=1):
        image, label = image.to(device), label.to(device)
        logits = {network.name: network.model(image[None]).logits.float() for network in networks}
        maps = {network.name: _class_map(network.model, logits[network.name], label) for network in networks}
        for name, matrix in matrices.items():
            matrix.update(label, maps[name])
        _compare(divergences, learners, logits, label=label, measure=measure)
        differing = (maps[student.name] != maps[teacher.name]) & (label != IGNORE)
        disagreement = float(differing.sum() / (label != IGNORE).sum().clamp(min=1))
        if len(kept) < examples or (kept and disagreement > kept[0].disagreement):
            kept.append(_example(subject.image_name(index), image, label, maps, disagreement))
            kept.sort(key=lambda example: example.disagreement)
            del kept[:-examples]
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
        examples=tuple(reversed(kept)),
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
        target = teacher if align_corners is None else models[names[0]].upsample(teacher, size)
        students = {name: logits[name][0] for name in names}
        for name, sums in image_sums(students, target[0], label, measure).items():
            divergences[name].update(sums)


def _example(
    name: str, image: Tensor, label: Tensor, maps: dict[str, Tensor], disagreement: float
) -> Example:
    return Example(
        name=name,
        height=label.shape[0],
        width=label.shape[1],
        image=image.permute(1, 2, 0).cpu().numpy(),
        label=_uint8(label),
        predictions={model: _uint8(prediction) for model, prediction in maps.items()},
        disagreement=disagreement,
    )


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
    measured = {name: divergence.classes() for name, divergence in divergences.items()}
    return tuple(
        ClassRow(
            name=name,
            colour=subject.palette[c],
            share=share[c],
            iou={model: values[c] for model, values in iou.items()},
            td=pair.td,
            ntd=pair.ntd,
            ratio=pair.ratio,
            weight=pair.weight,
            image_ratio=pair.image_ratio,
            ratio_images=pair.images,
            divergences={model: values[c] for model, values in measured.items()},
        )
        for c, (name, pair) in enumerate(zip(subject.classes, measured[student], strict=True))
    )


def _fingerprint(subject: Subject, networks: tuple[NamedNetwork, ...]) -> str:
    parts = [subject.fingerprint, subject.split, *(network.digest for network in networks)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
