"""The stream's promise: step k's batch is the same however it is divided, and after a resume."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_trees import ids, write_pair

from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.index import DatasetIndex, Pair
from hwdkit.data.stream import epoch_order, eval_pairs, sample_rng, train_stream
from hwdkit.distributed import Ranks
from hwdkit.engine import build
from hwdkit.errors import DataError, RecipeError
from hwdkit.recipe import load
from hwdkit.types import Batch

COUNT = 11


@pytest.fixture
def dataset(tmp_path: Path) -> SegmentationDataset:
    """Eleven pairs; the label of pair i is i everywhere."""
    for i in range(COUNT):
        write_pair(tmp_path / f"{i}.jpg", tmp_path / f"{i}.png", ids(i, size=(20, 24)))
    index = DatasetIndex(
        name="tiny",
        classes=tuple(str(i) for i in range(COUNT)),
        palette=((0, 0, 0),) * COUNT,
        label_map=None,
        splits={"train": tuple(Pair(f"{i}.jpg", f"{i}.png", 20, 24) for i in range(COUNT))},
        root=tmp_path,
        statistics={},
        fingerprint="",
    )
    return SegmentationDataset(index, "train")


def steps(dataset: SegmentationDataset, count: int, **options: Any) -> list[list[Batch]]:
    defaults: dict[str, Any] = {
        "crop": (16, 16), "scales": (0.5, 1.0, 1.7), "flip": 0.5, "batch_size": 4, "seed": 7, "start_step": 0,
    }  # fmt: skip
    stream = train_stream(dataset, **{**defaults, **options})
    try:
        return list(islice(stream, count))
    finally:
        stream.close()


def whole(batches: list[Batch]) -> Batch:
    return Batch(torch.cat([b.image for b in batches]), torch.cat([b.label for b in batches]))


def assert_same(one: list[list[Batch]], other: list[list[Batch]]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(whole(a).image, whole(b).image)
        assert torch.equal(whole(a).label, whole(b).label)


def test_batches_are_uint8_images_and_labels(dataset: SegmentationDataset) -> None:
    [[batch]] = steps(dataset, 1)
    assert isinstance(batch, Batch)
    assert batch.image.dtype == torch.uint8
    assert batch.image.shape == (4, 3, 16, 16)
    assert batch.label.dtype == torch.uint8
    assert batch.label.shape == (4, 16, 16)


def test_worker_processes_change_nothing(dataset: SegmentationDataset) -> None:
    assert_same(steps(dataset, 4), steps(dataset, 4, workers=2))


def test_two_ranks_concatenate_to_one(dataset: SegmentationDataset) -> None:
    ranks = [steps(dataset, 4, world=2, rank=rank) for rank in (0, 1)]
    assert_same(steps(dataset, 4), [first + second for first, second in zip(*ranks, strict=True)])


def test_accumulation_divides_the_same_batch(dataset: SegmentationDataset) -> None:
    divided = steps(dataset, 4, accumulate=4)
    assert all(len(micro) == 4 for micro in divided)
    assert_same(steps(dataset, 4), divided)


def test_micro_batches_hold_the_same_images_for_any_number_of_ranks(dataset: SegmentationDataset) -> None:
    ranks = [steps(dataset, 4, world=2, rank=rank, accumulate=2) for rank in (0, 1)]
    together = [
        [part for micro in zip(first, second, strict=True) for part in micro]
        for first, second in zip(*ranks, strict=True)
    ]
    assert_same(steps(dataset, 4), together)


def test_a_resumed_stream_goes_on_where_it_stopped(dataset: SegmentationDataset) -> None:
    assert_same(steps(dataset, 9)[5:], steps(dataset, 4, start_step=5, workers=1))


def test_the_seed_decides(dataset: SegmentationDataset) -> None:
    one, other = (whole(steps(dataset, 1, seed=seed)[0]) for seed in (7, 8))
    assert not torch.equal(one.image, other.image)


def test_every_pair_is_seen_once_an_epoch(dataset: SegmentationDataset) -> None:
    # 11 steps of 4 are four epochs of 11: batches straddle their borders.
    seen = [
        int(label[label != 255].unique())
        for [batch] in steps(dataset, COUNT, crop=(40, 40), scales=(1.0,))
        for label in batch.label
    ]
    epochs = [seen[start : start + COUNT] for start in range(0, 4 * COUNT, COUNT)]
    for epoch in epochs:
        assert Counter(epoch) == Counter(range(COUNT))
    assert len({tuple(epoch) for epoch in epochs}) == 4, "each epoch has its own order"


def test_a_batch_may_be_larger_than_the_dataset(dataset: SegmentationDataset) -> None:
    [[batch]] = steps(dataset, 1, batch_size=3 * COUNT, crop=(40, 40), scales=(1.0,))
    seen = Counter(int(label[label != 255].unique()) for label in batch.label)
    assert seen == dict.fromkeys(range(COUNT), 3)


def test_order_and_augmentation_draw_from_different_numbers() -> None:
    draws = {tuple(sample_rng(0, g).random(4)) for g in range(100)}
    draws |= {tuple(sample_rng(1, g).random(4)) for g in range(100)}
    assert len(draws) == 200
    orders = {tuple(epoch_order(seed, epoch, 20)) for seed in (0, 1) for epoch in range(5)}
    orders |= {tuple(sample_rng(seed, g).permutation(20)) for seed in (0, 1) for g in range(5)}
    assert len(orders) == 20


def test_a_batch_size_that_does_not_divide_is_refused_at_once(dataset: SegmentationDataset) -> None:
    with pytest.raises(RecipeError, match="batch_size 4 is not a multiple of 3 ranks x 1 micro-batches"):
        train_stream(dataset, crop=(8, 8), scales=(1.0,), flip=0, batch_size=4, seed=0, start_step=0, world=3)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_error_arrives_as_it_was_raised(dataset: SegmentationDataset, workers: int) -> None:
    path = dataset.index.root / "3.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError) as caught:
        steps(dataset, 8, workers=workers)
    assert caught.value.where == str(path)
    assert str(caught.value).startswith(f"{path}: cannot be decoded (image file is truncated")
    assert "Traceback" not in str(caught.value)
    with pytest.raises(DataError, match="cannot be decoded"):
        list(eval_pairs(dataset, workers=workers))


def test_evaluation_visits_each_pair_once_over_all_ranks(dataset: SegmentationDataset) -> None:
    shares = [list(eval_pairs(dataset, rank=rank, world=3)) for rank in range(3)]
    assert [i for i, _, _ in shares[1]] == [1, 4, 7, 10]
    assert sorted(i for share in shares for i, _, _ in share) == list(range(COUNT))
    for i, image, label in eval_pairs(dataset, workers=2):
        assert image.dtype == torch.uint8
        assert label.dtype == torch.int64
        assert torch.equal(image, dataset.read(i)[0])
        assert label.unique().tolist() == [i]


def test_a_stream_leaves_the_global_random_state_alone(dataset: SegmentationDataset) -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    steps(dataset, 1, workers=1)
    list(eval_pairs(dataset))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_photometric_distortion_changes_images_only_and_by_the_seed_alone(
    dataset: SegmentationDataset,
) -> None:
    plain = steps(dataset, 4)
    vivid = steps(dataset, 4, photometric=True)
    for [a], [b] in zip(plain, vivid, strict=True):
        assert torch.equal(a.label, b.label)
        assert not torch.equal(a.image, b.image)
    assert_same(vivid[1:], steps(dataset, 3, photometric=True, start_step=1, workers=2))


def test_a_recipe_turns_photometric_distortion_on(dataset: SegmentationDataset) -> None:
    recipe = load("scenes-r10-hwd", overrides=["data.crop=[32, 32]", "data.workers=0", "data.flip=1"])
    assert not recipe.data.photometric
    images = []
    for photometric in (False, True):
        data = recipe.data.model_copy(update={"photometric": photometric})
        batches = build.stream(
            recipe.model_copy(update={"data": data}),
            dataset.index,
            start_step=0,
            ranks=Ranks(0, 1, torch.device("cpu")),
        )
        images.append(whole(list(next(batches))).image)
        batches.close()
    assert not torch.equal(*images)


def children() -> set[int]:
    task = Path(f"/proc/self/task/{os.getpid()}/children")
    return set(map(int, task.read_text().split()))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_a_closed_stream_leaves_no_process(dataset: SegmentationDataset) -> None:
    before = children()
    stream = train_stream(
        dataset, crop=(8, 8), scales=(1.0,), flip=0, batch_size=4, seed=0, start_step=0, workers=2
    )
    next(stream)
    assert len(children() - before) == 2
    stream.close()
    assert not children() - before


SCRIPT = """
import pickle, signal, sys
from hwdkit.data.stream import train_stream

asked = []
signal.signal(signal.Signals[sys.argv[1]], lambda *_: asked.append(1))
dataset = pickle.load(open(sys.argv[2], "rb"))
stream = train_stream(
    dataset, crop=(8, 8), scales=(1.0,), flip=0, batch_size=4, seed=0, start_step=0, workers=2
)
next(stream)
print("running", flush=True)
while not asked:
    next(stream)
for _ in range(20):
    next(stream)
print("finished its steps", flush=True)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_to_the_whole_group_lets_the_trainer_finish(
    dataset: SegmentationDataset, tmp_path: Path, name: str
) -> None:
    (tmp_path / "dataset.pickle").write_bytes(pickle.dumps(dataset))
    command = [sys.executable, "-c", SCRIPT, name, str(tmp_path / "dataset.pickle")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    os.killpg(process.pid, signal.Signals[name])
    # The stream is still open at exit: it must not hang there on workers that ignore SIGTERM.
    out, err = process.communicate(timeout=120)
    assert (out, err, process.returncode) == ("finished its steps\n", "", 0)
