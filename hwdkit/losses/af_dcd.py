"""Augmentation-free dense contrastive knowledge distillation (Af-DCD, Fan et al., NeurIPS 2023).

A masked reconstruction as in MGD, whose result is also contrasted, densely and without a second view, with
the teacher's map: over positions and groups of channels at once ("omni-contrasting").
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hwdkit.losses.features import FeatureLoss
from hwdkit.losses.mgd import MaskedGeneration, random_mask, squared_error_per_image
from hwdkit.losses.options import (
    require_below_one,
    require_choice,
    require_not_negative,
    require_positive,
    require_whole,
)
from hwdkit.types import SegOutput

Mask = Literal["random", "centre"]

DIFFERENCES_AT_ONCE = 2**26
"""How many the gradient of distances may form at once: 256 MiB in float32."""


def centre_mask(feature: Tensor) -> Tensor:
    """1 everywhere but in the middle third of the rows and columns, [h//3, 2h//3) x [w//3, 2w//3).

    Args:
        feature: (N, C, h, w).

    Returns:
        (1, 1, h, w) in the type of `feature`. Maps of one row or column keep everything.
    """
    h, w = feature.shape[-2:]
    mask = feature.new_ones(1, 1, h, w)
    mask[..., h // 3 : 2 * h // 3, w // 3 : 2 * w // 3] = 0
    return mask


def patch_vectors(pooled: Tensor, *, patch: int, groups: int) -> Tensor:
    """Cut a map into patches of positions, and the channels of a position into groups.

    Args:
        pooled: (N, C, h, w). Where `patch` does not divide h or w, zeros are appended below and to the right.
        patch: side of a patch.
        groups: G, a divisor of C.

    Returns:
        (N * patches, patch**2 * G, C / G): the vectors of each patch, position by position, group by group.
    """
    h, w = pooled.shape[-2:]
    padded = F.pad(pooled, (0, -w % patch, 0, -h % patch))
    columns = F.unfold(padded, patch, stride=patch)  # (N, C * patch**2, patches), channels outermost
    images, channels = pooled.shape[:2]
    split = columns.reshape(images, groups, channels // groups, patch * patch, -1)
    # (N, groups, channels, positions, patches) -> (N, patches, positions, groups, channels)
    return split.permute(0, 4, 3, 1, 2).flatten(2, 3).flatten(0, 1)


def l1_distances(anchors: Tensor, candidates: Tensor) -> Tensor:
    """||a_p - b_q||_1 of all pairs within a patch; where a difference is 0, so is its gradient.

    Args:
        anchors: (patches, P, D).
        candidates: (patches, Q, D).

    Returns:
        (patches, P, Q).
    """
    # cdist forms no differences, D times as many as distances, except in its backward on CUDA. Chunks of
    # patches bound those; without them 8 images of 512 x 512 would take 4 GiB.
    per_patch = anchors.shape[1] * candidates.shape[1] * anchors.shape[2]
    patches = max(1, DIFFERENCES_AT_ONCE // per_patch)
    pairs = zip(torch.split(anchors, patches), torch.split(candidates, patches), strict=True)
    return torch.cat([torch.cdist(a, b, p=1) for a, b in pairs])


def omni_contrast(student: Tensor, teacher: Tensor, *, patch: int, groups: int, temperature: float) -> Tensor:
    """Contrast of every position and group of the student with the teacher's in the same patch.

    With s_ig, t_ig the channels of group g at position i of a pooled map and P(i) the patch around i,

        l_ig = -log [ e(i,g,i,g) / ( e(i,g,i,g) + sum_{j in P(i)} sum_{g' != g} e(i,g,j,g') ) ]
        e(i,g,j,g') = exp(-||s_ig - t_jg'||_1 / tau)
        L = 1/(N h w) sum_n sum_i sum_g l_ig

    The positive is the teacher's vector at the same position and group. Negatives are its vectors of all
    other groups at all positions of the patch, i among them. Its vectors of the SAME group elsewhere in the
    patch are neither. This is what the authors' code does, which is also why the sum over groups is not
    divided by their number.

    Args:
        student: (N, C, h, w), pooled. Gradients flow here only.
        teacher: (N, C, h, w).
        patch: side of a patch. At the lower and right border patches are as small as what is left; the
            authors' code insists on multiples.
        groups: G, a divisor of C.
        temperature: tau > 0.

    Returns:
        A scalar in nats: G * log(1 + (G - 1) * |P|) where all vectors are equal.
    """
    images, _, h, w = student.shape
    anchors = patch_vectors(student, patch=patch, groups=groups)
    candidates = patch_vectors(teacher.detach(), patch=patch, groups=groups)
    distance = l1_distances(anchors, candidates)
    logits = distance.reshape(images, -1, *distance.shape[1:]) / -temperature

    inside = patch_vectors(student.new_ones(1, groups, h, w), patch=patch, groups=groups)[..., 0] > 0
    slot = torch.arange(patch * patch * groups, device=student.device)
    same_group = slot[:, None] % groups == slot % groups
    negative = ~same_group & inside[:, None]  # (patches of one image, anchors, candidates)
    # The diagonal stays for anchors outside the map too: no row may be empty, or 0 * inf is in its gradient.
    contrasted = negative | torch.eye(len(slot), dtype=torch.bool, device=student.device)
    positive = logits.diagonal(dim1=-2, dim2=-1)
    losses: Tensor = logits.masked_fill(~contrasted, -math.inf).logsumexp(-1) - positive
    return losses.masked_fill(~inside, 0).sum() / (images * h * w)


class AfDCD(FeatureLoss):
    """Af-DCD: feature_weight * reconstruction + contrast_weight * contrast.

    The student's map is aligned to the teacher's channels, masked and completed (`MaskedGeneration`); the
    result is compared with the teacher's map F^T as in MGD (`squared_error_per_image`) and, both max-pooled,
    by `omni_contrast`. The authors' weights (feature, contrast): Cityscapes 2e-6, 0.005; ADE20K 1e-6, 0.04;
    COCO-Stuff 5e-6, 0.005; VOC 1e-6, 0.005; CamVid 8e-6, 0.01, without pooling; each beside KD. Their
    Cityscapes run names the centre mask and a wider projector, which is not here, with a command that their
    code does not accept as written; they clip the gradient of this loss's parameters to 15.

    Args:
        student_channels, teacher_channels, tap, teacher_tap: see `FeatureLoss`.
        feature_weight, contrast_weight: 0 leaves the term out; they cannot both be 0.
        mask: "random" positions as in MGD, or the "centre" third of rows and columns.
        mask_ratio: expected share of positions that are zeroed; random only.
        pool: side and stride of the max-pooling before contrasting; windows at the border may be smaller
            (the authors' code drops what does not fill a window), so that no map is too small.
        patch: side of the patches that negatives come from, in pooled positions.
        groups: groups of channels, 2 or more where there is a contrast; they divide teacher_channels.
        temperature: tau of the contrast.
    """

    paper = (
        "Fan et al. Augmentation-free Dense Contrastive Knowledge Distillation for Efficient Semantic "
        "Segmentation. NeurIPS 2023."
    )

    def __init__(
        self,
        *,
        student_channels: int,
        teacher_channels: int,
        tap: str = "stage4",
        teacher_tap: str | None = None,
        feature_weight: float = 2e-6,
        contrast_weight: float = 0.005,
        mask: Mask = "random",
        mask_ratio: float = 0.75,
        pool: int = 4,
        patch: int = 4,
        groups: int = 16,
        temperature: float = 0.07,
    ) -> None:
        super().__init__(tap=tap, teacher_tap=teacher_tap, channels=(student_channels, teacher_channels))
        require_choice(Mask, mask=mask)
        require_not_negative(feature_weight=feature_weight, contrast_weight=contrast_weight)
        require_below_one(mask_ratio=mask_ratio)
        require_whole(pool=pool, patch=patch, groups=groups)
        require_positive(temperature=temperature)
        if feature_weight == contrast_weight == 0:
            raise ValueError("feature_weight and contrast_weight are both 0: there is nothing to learn")
        if contrast_weight and teacher_channels % groups:
            raise ValueError(f"groups: {groups} do not divide the teacher's {teacher_channels} channels")
        if groups == 1 and contrast_weight:
            raise ValueError("groups: 1 leaves nothing to contrast with; use 2 or more, or contrast_weight 0")
        self.feature_weight, self.contrast_weight = feature_weight, contrast_weight
        self.mask, self.mask_ratio = mask, mask_ratio
        self.pool, self.patch, self.groups, self.temperature = pool, patch, groups, temperature
        self.generate = MaskedGeneration(student_channels, teacher_channels)

    def masked_loss(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """The loss with a given mask, (N, 1, h, w) or (1, 1, h, w), 1 = kept."""
        generated = self.generate(student, mask)
        parts = []
        if self.feature_weight:
            parts.append(self.feature_weight * squared_error_per_image(generated, teacher))
        if self.contrast_weight:
            pooled = (F.max_pool2d(x, self.pool, ceil_mode=True) for x in (generated, teacher.detach()))
            contrast = omni_contrast(
                *pooled, patch=self.patch, groups=self.groups, temperature=self.temperature
            )
            parts.append(self.contrast_weight * contrast)
        return torch.stack(parts).sum()

    def forward(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
        f_s, f_t = self.maps(student, teacher)
        with torch.autocast(f_s.device.type, enabled=False):
            random = self.mask == "random"
            mask = random_mask(f_s, mask_ratio=self.mask_ratio) if random else centre_mask(f_s)
            return self.masked_loss(f_s, f_t, mask)
