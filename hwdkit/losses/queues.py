"""Queues of teacher features by class: what CIRKD's memory-based losses remember of earlier images.

Pure functions on tensors, without loops over pixels or classes and without host synchronisation. Whoever
owns the queues is in cirkd_memory.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def region_keys(unit: Tensor, belongs: Tensor) -> Tensor:
    """One key per image and class: the mean of the class's unit features, scaled to length 1.

    Args:
        unit: (N, M, D) features of length 1.
        belongs: (N, C, M) bool from `members`.

    Returns:
        (N, C, D); zeros for classes that the image lacks.
    """
    # The scaling to length 1 makes a sum as good as a mean.
    return F.normalize(torch.bmm(belongs.to(unit.dtype), unit), dim=-1)


def draw_positions(
    ids: Tensor, order: Tensor, counts: Tensor, *, per_class: int, official_enqueue: bool
) -> Tensor:
    """Up to `per_class` random positions of each class, without replacement.

    The published code (CIRKD, HWD) has a slip: it draws K of the numbers below n_k, the pixels of class k,
    but then takes the positions with these numbers *of the whole image*, not of the class's pixels. So what
    it stores for any class are pixels of the upper rows.

    Args:
        ids: (N, M) from `class_ids`.
        order: (N, M) int64, a random permutation of the positions of each image.
        counts: (N, C) int64, n_k of each image.
        per_class: K.
        official_enqueue: True reproduces the slip.

    Returns:
        (N, C, K) int64 positions, of which the first min(n_k, K) count and the others are arbitrary.
    """
    length = ids.shape[1]
    # Sorted by class; the sort is stable, so that within a class the random order remains.
    drawn = order.gather(1, ids.gather(1, order).argsort(dim=1, stable=True))
    first = (counts.cumsum(1) - counts)[:, :, None]  # where each class begins
    place = (first + torch.arange(per_class, device=ids.device)).clamp(max=length - 1)
    positions = drawn.gather(1, place.flatten(1)).view(place.shape)
    if not official_enqueue:
        return positions
    rank = ids.argsort(dim=1, stable=True).argsort(
        dim=1
    )  # place of a position in the order by class, then by row
    # An absent class begins behind the last position: what stands there is arbitrary, but must be a position.
    return (rank.gather(1, positions.flatten(1)).view(place.shape) - first).clamp(min=0)


def pixel_keys(unit: Tensor, positions: Tensor) -> Tensor:
    """The features at drawn positions.

    Args:
        unit: (N, M, D).
        positions: (N, C, K) int64 from `draw_positions`.

    Returns:
        (N, C, K, D).
    """
    image = torch.arange(len(unit), device=unit.device)[:, None, None]
    return unit[image, positions]


@torch.no_grad()
def enqueue(queue: Tensor, pointer: Tensor, keys: Tensor, counts: Tensor) -> None:
    """Write keys into the ring of their class, image after image; `queue` and `pointer` change in place.

    Where the ring would run over, its *last* slots are overwritten and the pointer returns to 0, as in the
    published code: pointer + n >= size writes slots size-n..size-1.

    Args:
        queue: (C, size, D).
        pointer: (C,) int64, the next slot of each class.
        keys: (N, C, K, D), K <= size.
        counts: (N, C) int64, how many of the K keys count: the first ones; 0 writes nothing.
    """
    classes, size = queue.shape[:2]
    slot_of_key = torch.arange(keys.shape[2], device=queue.device)
    row = torch.arange(classes, device=queue.device)[:, None]
    for keys_of_image, count in zip(keys, counts, strict=True):
        full = pointer + count >= size
        start = torch.where(full, size - count, pointer)
        # Keys that do not count become copies of the last one that does, at its own slot; where none does,
        # the slot at the pointer is written with what it holds. So shapes do not depend on the data.
        source = torch.minimum(slot_of_key, (count - 1).clamp(min=0)[:, None])
        slots = start[:, None] + source
        kept = (count == 0)[:, None, None]
        written = keys_of_image[row, source].to(queue.dtype)
        queue[row, slots] = torch.where(kept, queue[row, slots], written)
        pointer.copy_(torch.where(full, 0, pointer + count))


def sample(queue: Tensor, slots: Tensor) -> Tensor:
    """A copy of the same slots of every class.

    A copy, because the next step overwrites the queue, perhaps before this one's backward has run.

    Args:
        queue: (C, size, D).
        slots: (P,) int64.

    Returns:
        (C*P, D).
    """
    return queue.index_select(1, slots).flatten(0, 1)
