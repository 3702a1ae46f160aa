"""The plain ways: what a straightforward PyTorch program does at each hot spot, to be compared with.

Written from the papers and from descriptions of their authors' training code, which is neither copied nor
needed: two loops for N_c, interpolation before cross-entropy and before argmax, histograms for IoU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hwdkit.types import IGNORE


def hwd(
    student: Tensor, teacher: Tensor, label: Tensor, *, temperature: float = 4.0, beta: float = 0.1
) -> Tensor:
    """Holistic weighted distillation, line by line (Sun et al., ICME 2023, Algorithm 1; mu 0, sigma 1)."""
    count, classes, height, width = student.shape
    p_s = (student.flatten(2) / temperature).softmax(-1)
    p_t = (teacher.flatten(2) / temperature).softmax(-1)
    with torch.no_grad():
        divergence = ((p_s - p_t) ** 2).sum(-1)
        small = F.interpolate(label[:, None].float(), (height, width), mode="nearest")[:, 0]
        pixels = torch.zeros(count, classes, device=student.device)
        for i in range(count):
            for c in range(classes):
                pixels[i, c] = 1 + (small[i] == c).sum()
        divergence = divergence / pixels
        centred = divergence - divergence.mean(1, keepdim=True)
        normal = centred / divergence.std(1, keepdim=True)
        weight = classes * ((1 - beta**normal) / (1 - beta)).softmax(1)
    kl = (p_t * (p_t.log() - p_s.log())).sum(-1)
    return (weight * kl).sum() * temperature**2 / (count * classes)


def upsampled_ce(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of the logits stretched to the label."""
    stretched = F.interpolate(logits, label.shape[-2:], mode="bilinear", align_corners=True)
    return F.cross_entropy(stretched, label, ignore_index=IGNORE)


class Areas(NamedTuple):
    """What mIoU is made of in the papers' code: (C,) float32 each, and the share of pixels got right."""

    intersection: Tensor
    union: Tensor
    accuracy: Tensor


def areas(logits: Tensor, label: Tensor, *, align_corners: bool = True) -> Areas:
    """Intersection and union of every class by histograms, from all logits stretched to the image.

    The accuracy is taken of logits cut to integers, as in the papers' code: wrong, but it costs its time.

    Args:
        logits: (C, h, w); label: (H, W), integers.
    """
    classes = len(logits)
    stretched = F.interpolate(logits[None], label.shape, mode="bilinear", align_corners=align_corners)
    counted = label < classes
    cut = stretched.long().argmax(1)[0]
    accuracy = ((cut == label) & counted).sum() / counted.sum()
    return Areas(*histograms(stretched[0].argmax(0), label, classes), accuracy)


def histograms(prediction: Tensor, label: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """(intersection, union) of every class by histograms; 0 is what is ignored."""
    counted = label < classes
    shifted = (prediction + 1) * counted
    truth = (label.long() + 1) * counted
    right = shifted * (shifted == truth)
    found = [torch.histc(one.float(), classes, 1, classes) for one in (right, shifted, truth)]
    return found[0], found[1] + found[2] - found[0]


def confusion(logits: Tensor, label: Tensor) -> Tensor:
    """(C, C): all logits stretched, argmax, the counted pixels picked out and counted once."""
    classes = len(logits)
    stretched = F.interpolate(logits[None], label.shape, mode="bilinear", align_corners=True)
    prediction = stretched[0].argmax(0)
    counted = label < classes
    index = label[counted].long() * classes + prediction[counted]
    return torch.bincount(index, minlength=classes**2).view(classes, classes)
