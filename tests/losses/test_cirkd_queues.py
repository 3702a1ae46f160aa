"""What CIRKD remembers: which pixels and regions are drawn, and where in the rings they are written."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.losses.labels import class_ids, members
from hwdkit.losses.queues import draw_positions, enqueue, pixel_keys, region_keys, sample
from hwdkit.types import IGNORE

quickly = settings(deadline=None, derandomize=True, max_examples=30)
seeds = st.integers(0, 2**16)


def scene(seed: int, *, classes: int, length: int = 24, images: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Class ids (images, length), of which C is nobody's; random orders; and how often each class occurs."""
    dice = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, classes + 1, (images, length), generator=dice)
    order = torch.stack([torch.randperm(length, generator=dice) for _ in range(images)])
    return ids, order, members(ids, classes).sum(-1)


@pytest.mark.parametrize("outside", [-1, 5, 7, 150, IGNORE])
def test_labels_outside_the_classes_are_nobodys(outside: int) -> None:
    label = torch.tensor([[[0, outside], [4, 2]]])
    assert class_ids(label, 5).tolist() == [[0, 5, 4, 2]]
    assert members(class_ids(label, 5), 5).sum(-1).tolist() == [[1, 0, 1, 0, 1]]


@quickly
@given(seed=seeds, classes=st.integers(1, 6), per_class=st.integers(1, 30))
def test_drawn_positions_are_the_first_of_each_class_in_the_random_order(
    seed: int, classes: int, per_class: int
) -> None:
    ids, order, counts = scene(seed, classes=classes)
    positions = draw_positions(ids, order, counts, per_class=per_class, official_enqueue=False)
    assert positions.shape == (2, classes, per_class)
    for n in range(2):
        for k in range(classes):
            expected = [i for i in order[n].tolist() if ids[n, i] == k][:per_class]
            assert positions[n, k, : counts[n, k]].tolist() == expected


@quickly
@given(seed=seeds, classes=st.integers(1, 6), per_class=st.integers(1, 30))
def test_official_positions_are_numbers_within_the_class_taken_for_positions_in_the_image(
    seed: int, classes: int, per_class: int
) -> None:
    ids, order, counts = scene(seed, classes=classes)
    positions = draw_positions(ids, order, counts, per_class=per_class, official_enqueue=True)
    for n in range(2):
        for k in range(classes):
            of_class = [i for i in range(ids.shape[1]) if ids[n, i] == k]
            drawn = [i for i in order[n].tolist() if ids[n, i] == k][:per_class]
            assert positions[n, k, : counts[n, k]].tolist() == [of_class.index(i) for i in drawn]


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("everywhere", [5, 0], ids=["ignored", "class 0"])
def test_positions_that_do_not_count_lie_within_the_image_all_the_same(
    official: bool, everywhere: int
) -> None:
    ids, order, counts = scene(3, classes=5, length=7)
    ids[0] = everywhere
    counts = members(ids, 5).sum(-1)
    positions = draw_positions(ids, order, counts, per_class=9, official_enqueue=official)
    assert ((positions >= 0) & (positions < 7)).all()


def test_keys_are_the_features_at_their_positions() -> None:
    unit = torch.randn(2, 24, 3, generator=torch.Generator().manual_seed(1))
    ids, order, counts = scene(1, classes=4)
    positions = draw_positions(ids, order, counts, per_class=5, official_enqueue=False)
    keys = pixel_keys(unit, positions)
    assert keys.shape == (2, 4, 5, 3)
    assert torch.equal(keys[1, 2, 3], unit[1, positions[1, 2, 3]])


@quickly
@given(seed=seeds, classes=st.integers(1, 6))
def test_region_key_is_the_mean_of_its_class_at_length_one(seed: int, classes: int) -> None:
    ids, _, _ = scene(seed, classes=classes, length=9)
    unit = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    keys = region_keys(unit, members(ids, classes))
    for n in range(2):
        for k in range(classes):
            of_class = unit[n, ids[n] == k]
            expected = of_class.mean(0) / of_class.mean(0).norm() if len(of_class) else torch.zeros(3)
            torch.testing.assert_close(keys[n, k], expected.double())


def rings(queue: Tensor, pointer: Tensor, keys: Tensor, counts: Tensor) -> tuple[Tensor, list[int]]:
    """`enqueue` one key at a time."""
    queue, pointers, size = queue.clone(), pointer.tolist(), queue.shape[1]
    for n in range(len(keys)):
        for k in range(len(queue)):
            count = int(counts[n, k])
            runs_over = pointers[k] + count >= size
            start = size - count if runs_over else pointers[k]
            for j in range(count):
                queue[k, start + j] = keys[n, k, j]
            pointers[k] = 0 if runs_over else pointers[k] + count
    return queue, pointers


@quickly
@given(seed=seeds, size=st.integers(1, 9), images=st.integers(1, 4), data=st.data())
def test_ring_is_written_as_one_key_at_a_time_would(
    seed: int, size: int, images: int, data: st.DataObject
) -> None:
    per_class = data.draw(st.integers(1, size))
    dice = torch.Generator().manual_seed(seed)
    queue = torch.randn(3, size, 2, generator=dice)
    pointer = torch.randint(0, size, (3,), generator=dice)
    keys = torch.randn(images, 3, per_class, 2, generator=dice)
    counts = torch.randint(0, per_class + 1, (images, 3), generator=dice)
    expected, pointers = rings(queue, pointer, keys, counts)
    enqueue(queue, pointer, keys, counts)
    assert torch.equal(queue, expected)
    assert pointer.tolist() == pointers


def test_keys_that_would_run_over_take_the_last_slots_and_the_pointer_returns() -> None:
    queue, pointer = torch.zeros(1, 5, 1), torch.tensor([3])
    keys = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1)
    enqueue(queue, pointer, keys, torch.tensor([[3]]))
    assert queue.flatten().tolist() == [0, 0, 1, 2, 3]
    assert pointer.tolist() == [0]


def test_class_that_is_absent_leaves_its_queue_and_its_pointer() -> None:
    queue, pointer = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([4, 2])
    before = queue.clone()
    keys = torch.full((1, 2, 2, 3), float("nan"))
    enqueue(queue, pointer, keys, torch.zeros(1, 2, dtype=torch.int64))
    assert torch.equal(queue, before)
    assert pointer.tolist() == [4, 2]


def test_negatives_are_a_copy_of_the_same_slots_of_every_class() -> None:
    queue = torch.arange(12.0).view(2, 6, 1)
    negatives = sample(queue, torch.tensor([4, 1]))
    queue.zero_()
    assert negatives.flatten().tolist() == [4, 1, 10, 7]
