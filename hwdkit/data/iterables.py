"""Batches from whatever yields (image, label): a Dataset, a DataLoader, a list, a generator.

Prepared datasets are read by `stream.py`; this file reads what a user passes to `hwdkit.fit` and
`hwdkit.evaluate`. Here, too, the order and the random augmentation of step k depend on seed and step alone,
for exact resumes.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from hwdkit.data.processes import as_is, close_at_exit, loader_options, started
from hwdkit.data.stream import SampleOrder, require_divisible, steps
from hwdkit.errors import DataError, HwdkitError
from hwdkit.types import IGNORE, Batch


@dataclass(frozen=True)
class Reader:
    """What images and labels must look like.

    Attributes:
        classes: labels are 0..classes-1, or 255 = ignore.
        normalises: whether the networks take uint8 RGB; otherwise images are passed on unchanged.
    """

    classes: int
    normalises: bool

    def batch(self, item: Any, *, name: str) -> Batch:
        """A batch, or one image and its label as a batch of one.

        Args:
            item: (image, label): (N, 3, H, W) or (3, H, W), and (N, H, W) or (H, W); tensors, arrays of
                numpy (an image as (H, W, 3)) or PIL images.
            name: names the item in errors.

        Raises:
            DataError: it is something else, or a label is out of range.
        """
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(f"{name} is a {type(item).__name__}, not a pair (image, label)")
        image, label = _image(item[0]), _label(item[1])
        if image.ndim == 3:
            image = image[None]
        if label.ndim == 2:
            label = label[None]
        if label.ndim == 4 and label.shape[1] == 1:
            label = label[:, 0]
        if image.ndim != 4 or image.shape[1] != 3:
            raise DataError(
                f"{name}: the image has shape {tuple(image.shape)}, not (3, H, W) or (N, 3, H, W)",
                hint="arrays of numpy are (H, W, 3) instead, and are turned before this check",
            )
        if label.shape != (len(image), *image.shape[2:]):
            shapes = f"label {tuple(label.shape)} for images {tuple(image.shape)}"
            raise DataError(f"{name}: the label must have the image's height and width; {shapes}")
        if self.normalises and image.dtype != torch.uint8:
            raise DataError(
                f"{name}: the image is {image.dtype}, but the networks take uint8 RGB",
                hint="remove the normalisation from your Dataset, or pass contract=None to adapt",
            )
        if label.dtype == torch.bool or label.is_floating_point():
            raise DataError(f"{name}: the label is {label.dtype}; it must hold integers")
        counted = label[label != IGNORE]
        if counted.numel() and not 0 <= int(counted.min()) <= int(counted.max()) < self.classes:
            wrong = int(counted.min() if counted.min() < 0 else counted.max())
            raise DataError(
                f"{name}: the label holds {wrong}, but there are classes 0 to {self.classes - 1}",
                hint=f"label pixels to be ignored {IGNORE}",
            )
        return Batch(image, label.to(torch.uint8) if self.classes <= IGNORE else label)


def training_batches(
    data: Iterable[Any] | Dataset[Any],
    reader: Reader,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    rank: int = 0,
    world: int = 1,
    accumulate: int = 1,
    workers: int = 0,
) -> Generator[list[Batch], None, None]:
    """Give every optimizer step's batches from `start_step` on, for ever.

    A Dataset with a length is shuffled, cut into batches and shared between processes here. Anything else is
    iterated again and again and yields batches itself, in every process its own; the batches before
    `start_step` are drawn again and dropped.

    Args:
        data: of (image, label).
        reader: checks and converts.
        batch_size: of a Dataset, over all processes and micro-batches.
        seed: decides order and augmentation, as far as that uses torch's, numpy's or Python's random numbers.
        start_step: first optimizer step.
        rank, world: this process and the number of processes.
        accumulate: micro-batches per step.
        workers: loader processes for a Dataset; 0 = this one.

    Raises:
        DataError: `Reader.batch` refuses an item; there is none; a generator has ended.
        RecipeError: batch_size does not divide.
    """
    if is_dataset(data):
        require_divisible(batch_size, world=world, accumulate=accumulate)
        if not len(data):  # type: ignore[arg-type]
            raise DataError("the data is empty")
        order = SampleOrder(len(data), batch_size, seed, start_step, rank, world, accumulate)  # type: ignore[arg-type]
        loader: DataLoader[Batch] = DataLoader(
            _Samples(data, reader, seed), batch_sampler=order, collate_fn=as_is, **loader_options(workers)
        )
        return close_at_exit(steps(loader, accumulate))
    return _of_iterable(data, reader, seed=seed, skipped=start_step * accumulate, accumulate=accumulate)  # type: ignore[arg-type]


def is_dataset(data: object) -> bool:
    """Whether items are read by number: a map-style Dataset, or a list."""
    return (
        hasattr(data, "__getitem__")
        and hasattr(data, "__len__")
        and not isinstance(data, DataLoader | IterableDataset | dict)
    )


def pairs(data: Iterable[Any] | Dataset[Any], reader: Reader) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Give number, image (3, H, W) and label (H, W) int64 of everything in `data`, once.

    Raises:
        DataError: `Reader.batch` refuses an item.
    """
    items = (data[i] for i in range(len(data))) if is_dataset(data) else iter(data)  # type: ignore
    count = 0
    for number, item in enumerate(items):
        batch = reader.batch(item, name=f"item {number}")
        for image, label in zip(batch.image, batch.label, strict=True):
            yield count, image, label.long()
            count += 1


@dataclass(frozen=True)
class _Samples(Dataset[Batch]):
    """Reads the samples of a micro-batch, each with random numbers of its own."""

    data: Any
    reader: Reader
    seed: int

    def __getitems__(self, numbered: Sequence[tuple[int, int]]) -> Batch | HwdkitError:
        read = []
        try:
            for sample, i in numbered:
                with _random_numbers(self.seed, sample):
                    item = self.data[i]
                read.append(self.reader.batch(item, name=f"item {i}"))
                if len(read[-1].image) > 1:
                    raise DataError(
                        f"item {i} is a batch of {len(read[-1].image)} images",
                        hint="pass single images, or an iterator over the batches",
                    )
            sizes = {tuple(batch.image.shape[1:]) for batch in read}
            if len(sizes) > 1:
                shown = " and ".join(str(size) for size in sorted(sizes)[:2])
                raise DataError(
                    f"images of one batch differ in size: {shown}",
                    hint="crop or resize them in your Dataset, or set batch_size=1",
                )
        except HwdkitError as error:
            return error
        return Batch(torch.cat([batch.image for batch in read]), torch.cat([batch.label for batch in read]))


def _of_iterable(
    data: Iterable[Any], reader: Reader, *, seed: int, skipped: int, accumulate: int
) -> Generator[list[Batch], None, None]:
    epoch = 0
    if isinstance(data, Sized) and len(data):
        epoch, skipped = divmod(skipped, len(data))
    step: list[Batch] = []
    while True:
        numbers = _Numbers(seed, epoch)
        for sampler in (getattr(data, "sampler", None), getattr(data, "batch_sampler", None)):
            if sampler is not None and hasattr(sampler, "set_epoch"):  # DistributedSampler: an order an epoch
                sampler.set_epoch(epoch)
        with numbers.drawn():
            items = started(data) if isinstance(data, DataLoader) else iter(data)
        if epoch and items is data:
            raise DataError(
                "the data ended before the training",
                hint="a generator can be read only once: pass a Dataset or a list",
            )
        count = 0
        while True:
            with numbers.drawn():
                try:
                    item = next(items)
                except StopIteration:
                    break
            count += 1
            if skipped:
                skipped -= 1
                continue
            step.append(reader.batch(item, name=f"batch {count - 1} of epoch {epoch}"))
            if len(step) == accumulate:
                yield step
                step = []
        if not count:
            raise DataError("the data yields nothing")
        epoch += 1


class _Numbers:
    """Random numbers of torch, numpy and Python for the data alone, whatever training draws between them."""

    def __init__(self, seed: int, epoch: int) -> None:
        with _random_numbers(seed, epoch):
            self._state = _state()

    @contextmanager
    def drawn(self) -> Iterator[None]:
        outside = _state()
        _restore(self._state)
        try:
            yield
        finally:
            self._state = _state()
            _restore(outside)


@contextmanager
def _random_numbers(seed: int, number: int) -> Iterator[None]:
    """Seed torch, numpy and Python by (seed, number), and give them their states back afterwards."""
    outside = _state()
    words = np.random.SeedSequence(seed, spawn_key=(2, number)).generate_state(2, np.uint32)
    torch.default_generator.manual_seed(int(words[0]) << 32 | int(words[1]))
    np.random.seed(words)
    random.seed(int(words[1]) << 32 | int(words[0]))
    try:
        yield
    finally:
        _restore(outside)


def _state() -> tuple[Tensor, Any, Any]:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()


def _restore(state: tuple[Tensor, Any, Any]) -> None:
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])


def _image(value: Any) -> Tensor:
    if isinstance(value, Image.Image):
        value = np.asarray(value.convert("RGB"))
    if isinstance(value, np.ndarray):
        value = torch.from_numpy((np.moveaxis(value, -1, -3) if value.ndim >= 3 else value).copy())
    return value if isinstance(value, Tensor) else torch.empty(0)


def _label(value: Any) -> Tensor:
    if isinstance(value, Image.Image):
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        # Tensors of 16 unsigned bits cannot be compared; numbers that are not whole stay, to be refused.
        value = torch.from_numpy(value.astype(np.int64) if value.dtype.kind in "iu" else value.copy())
    return value if isinstance(value, Tensor) else torch.empty(0)
