"""Intra-class feature variation (IFVD, Wang et al., ECCV 2020). IFVD's other terms are kd and holistic."""

from __future__ import annotations

import torch
from torch import Tensor

from hwdkit.losses.features import FeatureLoss
from hwdkit.losses.labels import class_ids, members, small_label
from hwdkit.losses.similarity import unit_channels
from hwdkit.types import SegOutput

_COSINE_EPS = 1e-8
"""Smallest norm that a cosine divides by: that of torch's `cosine_similarity`, which the authors call."""


def intra_class_cosine(feature: Tensor, member: Tensor) -> Tensor:
    """Cosine of each position's feature with the prototype of its class: IFVD's variation map.

    A prototype is the mean feature of a class within one image.

    Args:
        feature: (N, D, h, w). Gradients flow through the prototypes too.
        member: (N, K, h*w) bool, at most one class a position.

    Returns:
        (N, h*w) in [-1, 1]; 1 where a position belongs to no class: it is its own prototype. (In the authors'
        code that is 0 where the feature is zero, and such a position would count.)
    """
    flat = feature.flatten(2)
    one_hot = member.to(flat.dtype)
    # 1e-6 as in the authors' code; a class without a pixel gets the prototype 0, which nothing reads.
    prototype = flat @ one_hot.transpose(1, 2) / (one_hot.sum(-1)[:, None] + 1e-6)
    cosine = unit_channels(prototype, eps=_COSINE_EPS).transpose(1, 2) @ unit_channels(flat, eps=_COSINE_EPS)
    return (one_hot * cosine).sum(1) + (1 - one_hot.sum(1))


def intra_class_variation(student: Tensor, teacher: Tensor, member: Tensor) -> Tensor:
    """Mean squared difference of `intra_class_cosine`: IFVD's L_ifv.

    Args:
        student: (N, D_S, h, w). Gradients flow here only.
        teacher: (N, D_T, h, w).
        member: (N, K, h*w) bool.

    Returns:
        A scalar: the mean over all N*h*w positions, those without a class included, which add 0.
    """
    return (
        (intra_class_cosine(student, member) - intra_class_cosine(teacher.detach(), member)).square().mean()
    )


class IFV(FeatureLoss):
    """IFV on features; the networks' channel counts may differ, since only cosines are compared.

    The authors loop over classes; here the prototypes are a product with the one-hot labels, at a cost of
    K*h*w numbers an image. As many classes as logits have channels. IFVD weighs it 200, HWD and CIRKD 20.

    Args:
        tap, teacher_tap: see `FeatureLoss`.
    """

    paper = "Wang et al. Intra-class Feature Variation Distillation for Semantic Segmentation. ECCV 2020."

    def __init__(self, *, tap: str = "embedding", teacher_tap: str | None = None) -> None:
        super().__init__(tap=tap, teacher_tap=teacher_tap)

    def forward(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
        with torch.autocast(student.logits.device.type, enabled=False):
            f_s, f_t = self.maps(student, teacher)
            classes = student.logits.shape[1]
            ids = class_ids(small_label(label, (f_s.shape[2], f_s.shape[3])), classes)
            return intra_class_variation(f_s, f_t, members(ids, classes))
