"""The order of samples: endless training batches that the seed and the step decide alone, and evaluation.

Step k's batch is the same for any number of loader processes, ranks and micro-batches, and after a resume.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.processes import as_is, close_at_exit, loader_options, raised, started
from hwdkit.data.transforms import augment
from hwdkit.errors import HwdkitError, RecipeError
from hwdkit.types import Batch

# Two independent families of random numbers under one seed. They are spawn keys, not further seed words:
# numpy pads seeds with zeros, so default_rng([seed, 1]) and default_rng([seed, 1, 0]) are the same.
ORDER, SAMPLE = 0, 1

Placed = tuple[int, int]  # (global sample number, index in the dataset)


def train_stream(
    dataset: SegmentationDataset,
    *,
    crop: tuple[int, int],
    scales: Sequence[float],
    flip: float,
    batch_size: int,
    seed: int,
    start_step: int,
    rank: int = 0,
    world: int = 1,
    accumulate: int = 1,
    photometric: bool = False,
    workers: int = 0,
    pin: bool = False,
) -> Generator[list[Batch], None, None]:
    """Give this rank its share of every optimizer step's batch, for ever.

    Args:
        dataset: the training split.
        crop, scales, flip, photometric: see `transforms.augment`.
        batch_size: global: over all ranks and micro-batches.
        seed: decides order and augmentation.
        start_step: first optimizer step; a resumed run passes the number of steps already done.
        rank, world: this process and the number of processes.
        accumulate: micro-batches per step.
        workers: loader processes; 0 = decode in this one.
        pin: put batches into page-locked memory, from which a GPU copies while it computes.

    Yields:
        A list of `accumulate` Batches: image (N, 3, *crop) uint8, label (N, *crop) uint8. Micro-batches in
        order, and within one the ranks in order, concatenate to the global batch. Close the generator to end
        the loader processes.

    Raises:
        RecipeError: batch_size does not divide; at once, not at the first batch.
        DataError: from any process, as it was raised there.
    """
    require_divisible(batch_size, world=world, accumulate=accumulate)
    plan = SampleOrder(len(dataset), batch_size, seed, start_step, rank, world, accumulate)
    crops = _Crops(dataset, crop, tuple(scales), flip, photometric, seed)
    loader: DataLoader[Batch] = DataLoader(
        crops,
        batch_sampler=plan,
        collate_fn=as_is,
        pin_memory=pin,
        **loader_options(workers),
    )
    return close_at_exit(steps(loader, accumulate))


def require_divisible(batch_size: int, *, world: int, accumulate: int) -> None:
    """Raise a RecipeError unless a global batch can be cut into equal micro-batches for every rank."""
    if batch_size % (world * accumulate):
        raise RecipeError(
            f"batch_size {batch_size} is not a multiple of {world} ranks x {accumulate} micro-batches",
            where="train.batch_size",
        )


def eval_pairs(
    dataset: SegmentationDataset, *, rank: int = 0, world: int = 1, workers: int = 0
) -> Generator[tuple[int, Tensor, Tensor], None, None]:
    """Give this rank its share of a split, each pair once at its native size.

    Indices stride by `world`, so no pair is repeated to even out the ranks: sums over ranks are exact.

    Yields:
        index in the dataset, image (3, H, W) uint8, label (H, W) int64.

    Raises:
        DataError: from any process, as it was raised there.
    """
    loader: DataLoader[tuple[int, Tensor, Tensor]] = DataLoader(
        _Pairs(dataset),
        batch_size=None,
        sampler=range(rank, len(dataset), world),
        collate_fn=as_is,
        **loader_options(workers),
    )
    return close_at_exit(_evaluated(loader))


def epoch_order(seed: int, epoch: int, length: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the permutation of the dataset that one epoch walks through."""
    order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(ORDER, epoch)))
    return order.permutation(length)


def sample_rng(seed: int, sample: int) -> np.random.Generator:
    """Return the generator of one sample's augmentation; `sample` is its number since step 0."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SAMPLE, sample)))


@dataclass(frozen=True)
class SampleOrder:
    """Which samples make up this rank's micro-batches, from `start_step` on, without end."""

    length: int
    batch_size: int
    seed: int
    start_step: int
    rank: int
    world: int
    accumulate: int

    def __iter__(self) -> Iterator[list[Placed]]:
        share = self.batch_size // (self.world * self.accumulate)
        step, epoch = self.start_step, -1
        while True:
            # A micro-batch holds the same images for any number of ranks: each takes its share of every one.
            for turn in range(self.accumulate):
                first = step * self.batch_size + (turn * self.world + self.rank) * share
                batch = []
                for sample in range(first, first + share):
                    if sample // self.length != epoch:
                        epoch = sample // self.length
                        order = epoch_order(self.seed, epoch, self.length)
                    batch.append((sample, int(order[sample % self.length])))
                yield batch
            step += 1


@dataclass(frozen=True)
class _Crops(Dataset[Batch]):
    """Cuts the crops of a micro-batch. A user's mistake is returned, not raised: see `raised`."""

    dataset: SegmentationDataset
    crop: tuple[int, int]
    scales: tuple[float, ...]
    flip: float
    photometric: bool
    seed: int

    def __getitems__(self, placed: list[Placed]) -> Batch | HwdkitError:
        try:
            crops = [self._cut(sample, i) for sample, i in placed]
        except HwdkitError as error:
            return error
        # Labels cross the process boundary as uint8, an eighth of the bytes.
        return Batch(torch.stack([image for image, _ in crops]), torch.stack([label for _, label in crops]))

    def _cut(self, sample: int, i: int) -> tuple[Tensor, Tensor]:
        image, label = self.dataset.open(i)
        return augment(
            image,
            label,
            rng=sample_rng(self.seed, sample),
            crop=self.crop,
            scales=self.scales,
            flip=self.flip,
            photometric=self.photometric,
        )


@dataclass(frozen=True)
class _Pairs(Dataset[tuple[int, Tensor, Tensor]]):
    dataset: SegmentationDataset

    def __getitem__(self, i: int) -> tuple[int, Tensor, Tensor] | HwdkitError:  # type: ignore[override]
        try:
            return i, *self.dataset.read(i)
        except HwdkitError as error:
            return error


def steps(loader: DataLoader[Batch], accumulate: int) -> Generator[list[Batch], None, None]:
    """Give the micro-batches of every optimizer step; raise what a loader process returned as an error."""
    batches = started(loader)
    try:
        while True:
            micro = [raised(next(batches)) for _ in range(accumulate)]
            yield micro
    finally:
        del batches  # the last reference: torch ends the worker processes here, not at some later collection


def _evaluated(
    loader: DataLoader[tuple[int, Tensor, Tensor]],
) -> Generator[tuple[int, Tensor, Tensor], None, None]:
    pairs = started(loader)
    try:
        for pair in pairs:
            i, image, label = raised(pair)
            yield i, image, label.long()
    finally:
        del pairs
