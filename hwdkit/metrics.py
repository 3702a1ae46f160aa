"""How good a segmentation is: one int64 confusion matrix, and everything derived from it."""

from __future__ import annotations

import torch
from torch import Tensor

from hwdkit.distributed import sum_over_ranks
from hwdkit.recipe.protocol import Absent


class ConfusionMatrix:
    """Counts (label, prediction) pairs; rows are labels, columns predictions.

    Labels outside [0, classes) are ignored. Counts are exact: int64, whatever the number of images.
    """

    def __init__(self, classes: int, device: torch.device | str = "cpu") -> None:
        self.classes = classes
        self.matrix = torch.zeros(classes, classes, dtype=torch.int64, device=device)

    def update(self, label: Tensor, prediction: Tensor) -> None:
        """Count one batch.

        Args:
            label: any shape, integer, class index or anything outside for ignored pixels.
            prediction: the same shape, integer in [0, classes).
        """
        self.matrix += confusion(label, prediction, self.classes)

    def sum_over_ranks(self) -> ConfusionMatrix:
        """Everyone's counts together, on every rank."""
        total = ConfusionMatrix(self.classes, self.matrix.device)
        total.matrix = sum_over_ranks(self.matrix)
        return total

    def iou(self) -> Tensor:
        """(C,) float64: intersection over union; NaN for a class neither labelled nor predicted."""
        counts = self.matrix.double()
        intersection = counts.diagonal()
        return intersection / (counts.sum(0) + counts.sum(1) - intersection)

    def miou(self, absent: Absent = "present") -> float:
        """Mean IoU over the classes present, or as the papers' code: over all, an absent class counting 0."""
        iou = self.iou()
        return float(iou.nan_to_num(0).mean() if absent == "paper" else iou.nanmean())

    def macc(self) -> float:
        """Mean recall over the classes that occur in the labels."""
        counts = self.matrix.double()
        return float((counts.diagonal() / counts.sum(1)).nanmean())

    def pixel_accuracy(self) -> float:
        """Share of labelled pixels predicted right; NaN without any."""
        counts = self.matrix.double()
        return float(counts.diagonal().sum() / counts.sum())

    def share(self) -> Tensor:
        """(C,) float64: each class's share of the labelled pixels."""
        counts = self.matrix.double().sum(1)
        return counts / counts.sum()


def confusion(label: Tensor, prediction: Tensor, classes: int) -> Tensor:
    """(C, C) int64 counts of one batch; ignored labels fall into an extra row that is cut off."""
    if label.dtype == torch.uint8:  # as images of labels come: one pass over bytes, not three over int64
        row = label.clamp(max=min(classes, 255))
    else:
        label = label.long()  # a narrow type could not hold the number of classes
        row = torch.where((label >= 0) & (label < classes), label, classes)
    index = torch.add(prediction.flatten().int(), row.flatten().int(), alpha=classes)
    return torch.bincount(index, minlength=(classes + 1) * classes)[: classes * classes].view(
        classes, classes
    )
