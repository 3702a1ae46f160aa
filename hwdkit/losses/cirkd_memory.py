"""CIRKD (Yang et al., CVPR 2022), memory-based: how pixels resemble pixels and regions of earlier images.

Read `CirkdMemory.relations`: it is one training step. What happens inside the queues is in queues.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hwdkit.distributed import gather_over_ranks, mean_over_ranks, world_size
from hwdkit.losses.cirkd_minibatch import as_rows, relation_kl
from hwdkit.losses.features import FeatureLoss
from hwdkit.losses.labels import class_ids, members, small_label
from hwdkit.losses.options import require_not_negative, require_positive, require_whole
from hwdkit.losses.queues import draw_positions, enqueue, pixel_keys, region_keys, sample
from hwdkit.losses.similarity import unit_channels
from hwdkit.types import SegOutput


class Draws(NamedTuple):
    """Everything random about one step.

    Attributes:
        order: (N of all ranks, M) int64, a permutation of the positions of each image.
        pixel_slots: (P,) int64, the slots that every class's pixel queue lends as negatives.
        region_slots: (R,) int64, the same for regions.
    """

    order: Tensor
    pixel_slots: Tensor
    region_slots: Tensor


def contrast(
    anchors: tuple[Tensor, Tensor], negatives: Tensor, counted: Tensor, *, temperature: float
) -> Tensor:
    """Mean over anchors of KL(teacher || student) between their distributions over negatives.

    The distribution is softmax_j(anchor . negative_j / tau); both networks are compared with the same
    negatives, which are the teacher's.

    Args:
        anchors: the student's and the teacher's, (A, D) each, of length 1, or 0 where a feature is. Gradients
            flow to the student's.
        negatives: (Q, D), likewise.
        counted: (A,) bool, which anchors count.
        temperature: tau > 0.

    Returns:
        A scalar in nats; 0 with zero gradients when no anchor counts. With several ranks the mean is over
        the anchors of all of them.
    """
    student, teacher = anchors
    others = negatives[None]
    kl = relation_kl((student, others), (teacher, others), temperature=temperature)[:, 0]
    weight = counted.to(kl.dtype)
    amount = mean_over_ranks(weight.sum())
    return (weight * kl).sum() / torch.where(amount > 0, amount, 1)


class CirkdMemory(FeatureLoss):
    """Cross-image relations to queues of teacher pixels and regions, by class.

    pixel_weight * L_pixel + region_weight * L_region, each from `contrast`. The queues belong to the state
    of the training: they are saved with it and are the same on all ranks. They take
    4 * classes * (pixel_queue + region_queue) * teacher_channels bytes, 3.1 GiB for 150 classes and 256
    channels; a queue whose weight is 0 is not made.

    Args:
        classes: C.
        student_channels, teacher_channels, tap, teacher_tap: see `FeatureLoss`.
        temperature: tau > 0 of the softmax over similarities.
        pixel_weight, region_weight: shares of the two relations; 0 leaves one out. The authors' PSPNet
            script for Pascal VOC has 0.01.
        pixel_queue, region_queue: slots per class.
        pixels_per_class: how many pixels of a class each image adds at most.
        pixel_negatives, region_negatives: how many to contrast with; every class lends this // C + 1,
            as in the authors' code, or its whole queue.
        official_enqueue: see `draw_positions`; the published code's slip.
    """

    paper = "Yang et al. Cross-Image Relational Knowledge Distillation for Semantic Segmentation. CVPR 2022."

    pixel_queue: Tensor
    pixel_pointer: Tensor
    region_queue: Tensor
    region_pointer: Tensor
    seed: Tensor
    draws: Tensor

    def __init__(
        self,
        *,
        classes: int,
        student_channels: int,
        teacher_channels: int,
        tap: str = "embedding",
        teacher_tap: str | None = None,
        temperature: float = 0.1,
        pixel_weight: float = 0.1,
        region_weight: float = 0.1,
        pixel_queue: int = 20_000,
        region_queue: int = 2_000,
        pixels_per_class: int = 16,
        pixel_negatives: int = 4096,
        region_negatives: int = 1024,
        official_enqueue: bool = False,
    ) -> None:
        super().__init__(tap=tap, teacher_tap=teacher_tap, channels=(student_channels, teacher_channels))
        require_whole(
            classes=classes,
            student_channels=student_channels,
            teacher_channels=teacher_channels,
            pixel_queue=pixel_queue,
            region_queue=region_queue,
            pixels_per_class=pixels_per_class,
            pixel_negatives=pixel_negatives,
            region_negatives=region_negatives,
        )
        require_positive(temperature=temperature)
        require_not_negative(pixel_weight=pixel_weight, region_weight=region_weight)
        if pixel_weight == region_weight == 0:
            raise ValueError("pixel_weight and region_weight are both 0: nothing is compared")
        if pixels_per_class > pixel_queue:
            raise ValueError(
                f"pixels_per_class {pixels_per_class} do not fit into a pixel_queue of {pixel_queue}"
            )
        self.classes, self.temperature = classes, temperature
        self.pixel_slots, self.region_slots = pixel_queue, region_queue
        self.pixel_weight, self.region_weight = pixel_weight, region_weight
        self.pixels_per_class, self.official_enqueue = pixels_per_class, official_enqueue
        self.pixel_lent = min(pixel_negatives // classes + 1, pixel_queue)
        self.region_lent = min(region_negatives // classes + 1, region_queue)
        self.projector = _projector(student_channels, teacher_channels)
        if pixel_weight:
            self._add_queue("pixel", pixel_queue, teacher_channels)
        if region_weight:
            self._add_queue("region", region_queue, teacher_channels)
        self.register_buffer("seed", torch.randint(2**62, ()))
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))
        # seed + draws as a Python number, so that a step does not wait for the device; None = read them.
        self._next_seed: int | None = None
        self.register_load_state_dict_post_hook(_forget_next_seed)  # type: ignore[no-untyped-call]

    def _add_queue(self, kind: str, size: int, channels: int) -> None:
        self.register_buffer(f"{kind}_queue", _noise(self.classes, size, channels))
        self.register_buffer(f"{kind}_pointer", torch.zeros(self.classes, dtype=torch.int64))

    def forward(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
        f_s, f_t = self.maps(student, teacher)
        ids = class_ids(small_label(label, (f_s.shape[2], f_s.shape[3])), self.classes)
        draws = self.draw(len(ids) * world_size(), ids.shape[1])
        with torch.autocast(f_s.device.type, enabled=False):
            pixel, region = self.relations(f_s, f_t, ids, draws)
        return self.pixel_weight * pixel + self.region_weight * region

    def relations(self, student: Tensor, teacher: Tensor, ids: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """L_pixel and L_region; in training mode the batch enters the queues first, as in the authors' code.

        So the keys of the present batch can be among the negatives.

        Args:
            student: (N, D_S, h, w), before the projector.
            teacher: (N, D_T, h, w), detached.
            ids: (N, M) from `class_ids`; positions of class C are no anchors.
            draws: the random choices of this step.

        Returns:
            Two scalars; 0 for a relation whose weight is 0.
        """
        keys = as_rows(unit_channels(teacher))
        if self.training:
            self._remember(gather_over_ranks(keys), gather_over_ranks(ids), draws.order)
        queries = as_rows(unit_channels(self.projector(student)))
        anchors, counted = (queries.flatten(0, 1), keys.flatten(0, 1)), (ids < self.classes).flatten()
        pixel = region = queries.new_zeros(())
        if self.pixel_weight:
            negatives = sample(self.pixel_queue, draws.pixel_slots)
            pixel = contrast(anchors, negatives, counted, temperature=self.temperature)
        if self.region_weight:
            negatives = sample(self.region_queue, draws.region_slots)
            region = contrast(anchors, negatives, counted, temperature=self.temperature)
        return pixel, region

    @torch.no_grad()
    def _remember(self, unit: Tensor, ids: Tensor, order: Tensor) -> None:
        """Enqueue the keys of (N, M, D) unit features: one region, up to K pixels per class and image."""
        belongs = members(ids, self.classes)
        counts = belongs.sum(-1)
        if self.region_weight:
            regions = region_keys(unit, belongs)[:, :, None]
            enqueue(self.region_queue, self.region_pointer, regions, counts.clamp(max=1))
        if self.pixel_weight:
            positions = draw_positions(
                ids,
                order,
                counts,
                per_class=self.pixels_per_class,
                official_enqueue=self.official_enqueue,
            )
            kept = counts.clamp(max=self.pixels_per_class)
            enqueue(self.pixel_queue, self.pixel_pointer, pixel_keys(unit, positions), kept)

    def draw(self, images: int, positions: int) -> Draws:
        """The random choices of the next step, the same on all ranks and in a resumed run.

        The loop seeds torch's global generator differently on every rank, which would make the queues
        differ; so the draws have a seed of their own, and count themselves in training mode.

        Args:
            images: of all ranks.
            positions: M of each image.
        """
        if self._next_seed is None:
            self._next_seed = int(self.seed + self.draws)
        dice = torch.Generator().manual_seed(self._next_seed)
        order = torch.stack([torch.randperm(positions, generator=dice) for _ in range(images)])
        slots = [
            torch.randperm(size, generator=dice)[:lent]
            for size, lent in ((self.pixel_slots, self.pixel_lent), (self.region_slots, self.region_lent))
        ]
        if self.training:
            self._next_seed += 1
            self.draws.add_(1)
        return Draws(*(_without_waiting(tensor, self.seed.device) for tensor in (order, *slots)))


def _projector(student_channels: int, teacher_channels: int) -> nn.Sequential:
    """The authors' two layers, unlike the single one of other losses: D_S -> D_T -> D_T."""
    return nn.Sequential(
        nn.Conv2d(student_channels, teacher_channels, 1, bias=False),
        nn.BatchNorm2d(teacher_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False),
    )


def _noise(*size: int) -> Tensor:
    """Gaussian vectors scaled to length 1, in place: a queue can take gigabytes."""
    noise = torch.randn(*size)
    return noise.div_(noise.norm(dim=-1, keepdim=True))


def _forget_next_seed(loss: nn.Module, incompatible_keys: Any) -> None:
    loss._next_seed = None  # type: ignore[assignment]


def _without_waiting(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy from pinned memory, or the host would wait for all that the GPU still has to do."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
