"""The confusion matrix and what is derived from it, against plain loops and the official code's numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.metrics import ConfusionMatrix, confusion
from hwdkit.types import IGNORE

GOLDEN = Path(__file__).parent / "golden" / "metrics.npz"


def matrix_of(label: list[int], prediction: list[int], classes: int) -> ConfusionMatrix:
    matrix = ConfusionMatrix(classes)
    matrix.update(torch.tensor(label), torch.tensor(prediction))
    return matrix


@pytest.fixture
def official() -> ConfusionMatrix:
    """Three images of 20x24, 8 classes, as the HWD and CIRKD evaluation saw them; -1 is 255 here."""
    with np.load(GOLDEN) as recorded:
        label, prediction = (torch.from_numpy(recorded[name]).long() for name in ("label", "prediction"))
    matrix = ConfusionMatrix(8)
    for one_label, one_prediction in zip(label, prediction, strict=True):
        matrix.update(one_label, one_prediction)
    return matrix


@settings(deadline=None, derandomize=True, max_examples=50)
@given(seed=st.integers(0, 2**16), classes=st.integers(1, 7), pixels=st.integers(0, 60))
def test_confusion_is_that_of_a_plain_loop(seed: int, classes: int, pixels: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(-2, classes + 3, (pixels,), generator=generator)
    prediction = torch.randint(0, classes, (pixels,), generator=generator)
    expected = [[0] * classes for _ in range(classes)]
    for row, column in zip(label.tolist(), prediction.tolist(), strict=True):
        if 0 <= row < classes:
            expected[row][column] += 1
    found = confusion(label, prediction, classes)
    assert found.dtype == torch.int64
    assert found.tolist() == expected


@pytest.mark.parametrize("outside", [-1, -100, 3, 4, 150, IGNORE, 2**40, -(2**40)])
def test_labels_outside_the_classes_are_never_counted(outside: int) -> None:
    assert matrix_of([0, outside, 2], [0, 1, 1], 3).matrix.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("classes", [3, 150, 255, 256, 300])
def test_label_255_of_a_byte_map_is_counted_only_if_it_is_a_class(classes: int) -> None:
    label = torch.tensor([0, 1, 2, 255], dtype=torch.uint8)
    prediction = torch.tensor([0, 1, 2, 1], dtype=torch.uint8)
    assert int(confusion(label, prediction, classes).sum()) == (4 if classes > 255 else 3)


def test_rows_are_labels_and_columns_predictions() -> None:
    assert matrix_of([0, 0, 1], [1, 1, 0], 2).matrix.tolist() == [[0, 2], [1, 0]]


@pytest.mark.parametrize("shape", [(12,), (3, 4), (2, 3, 2), (1, 12)])
def test_shape_of_the_maps_does_not_matter(shape: tuple[int, ...]) -> None:
    label, prediction = torch.arange(12) % 3, torch.arange(12) % 2
    expected = confusion(label, prediction, 3)
    assert torch.equal(confusion(label.view(shape), prediction.view(shape), 3), expected)


def test_several_updates_are_one_update_of_everything() -> None:
    once, often = ConfusionMatrix(4), ConfusionMatrix(4)
    label, prediction = torch.randint(0, 5, (2, 6, 40), generator=torch.Generator().manual_seed(0))
    once.update(label, prediction % 4)
    for one_label, one_prediction in zip(label, prediction % 4, strict=True):
        often.update(one_label, one_prediction)
    assert torch.equal(once.matrix, often.matrix)


def test_single_pixel_counts_beyond_the_precision_of_floats() -> None:
    for already in (2**24, 2**31, 2**53):
        matrix = ConfusionMatrix(2)
        matrix.matrix[1, 1] = already
        matrix.update(torch.tensor([1]), torch.tensor([1]))
        assert matrix.matrix[1, 1].item() == already + 1


def test_official_intersections_and_unions_are_reproduced(official: ConfusionMatrix) -> None:
    counts = official.matrix
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    assert counts.diagonal().tolist() == [95, 100, 80, 81, 93, 83, 0, 0]
    assert union.tolist() == [327, 334, 328, 308, 337, 316, 130, 0]


def test_miou_with_absent_classes_as_zero_is_the_official_one(official: ConfusionMatrix) -> None:
    assert official.miou("paper") == pytest.approx(0.20442914962768555, rel=1e-6)


def test_miou_over_the_classes_present_leaves_out_only_empty_unions(official: ConfusionMatrix) -> None:
    assert official.miou("present") == pytest.approx(0.23363329470157623, rel=1e-6)
    assert official.iou()[6].item() == 0
    assert official.iou()[7].isnan()


def test_pixel_accuracy_is_that_of_the_class_maps(official: ConfusionMatrix) -> None:
    """The official code says 0.4028: it takes the argmax of logits that it has cut to integers."""
    assert official.pixel_accuracy() == pytest.approx(0.40735068917274475, rel=1e-6)


def test_scores_of_a_small_matrix_are_as_computed_by_hand() -> None:
    matrix = matrix_of([0, 0, 0, 0, 1, 1, IGNORE], [0, 0, 0, 1, 1, 2, 2], 4)
    assert matrix.iou()[:3].tolist() == [pytest.approx(3 / 4), pytest.approx(1 / 3), 0.0]
    assert matrix.iou()[3].isnan()
    assert matrix.miou() == pytest.approx((3 / 4 + 1 / 3) / 3)
    assert matrix.miou("paper") == pytest.approx((3 / 4 + 1 / 3) / 4)
    assert matrix.macc() == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert matrix.pixel_accuracy() == pytest.approx(4 / 6)
    assert matrix.share().tolist() == pytest.approx([4 / 6, 2 / 6, 0, 0])


def test_prediction_on_ignored_pixels_does_not_enter_any_union() -> None:
    label: Tensor = torch.tensor([0, 0, IGNORE, IGNORE])
    for prediction in ([0, 0, 1, 1], [0, 0, 0, 0]):
        matrix = ConfusionMatrix(2)
        matrix.update(label, torch.tensor(prediction))
        assert matrix.miou() == 1


def test_matrix_without_a_pixel_has_no_scores_and_no_error() -> None:
    matrix = matrix_of([IGNORE], [0], 3)
    assert all(math.isnan(score) for score in (matrix.miou(), matrix.macc(), matrix.pixel_accuracy()))
    assert matrix.miou("paper") == 0
    assert matrix.iou().isnan().all()


def test_sum_over_the_ranks_of_one_process_is_the_matrix_itself(official: ConfusionMatrix) -> None:
    assert torch.equal(official.sum_over_ranks().matrix, official.matrix)
