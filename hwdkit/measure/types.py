"""What a per-class report holds: plain numbers, names and a few example images.

`per_class.py` computes these, `saved.py` reads them back; `report/` only shows them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, Field, ValidatorFunctionWrapHandler, WrapValidator

from hwdkit.types import DivergenceKind, DivergenceOn, Order, Role

SCHEMA_VERSION = 1
JSON_RULES = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)
"""How `report/saved.py` reads these classes from a file."""


def _not_too_large(value: float) -> float:
    if not abs(value) < 1e300:  # nan, too
        raise ValueError("too large a number")
    return value


def _nan_for_null(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    return math.nan if value is None else read(value)


Number = Annotated[float, AfterValidator(_not_too_large)]
Score = Annotated[Number, WrapValidator(_nan_for_null)]
"""A number that may be unknown: nan here, null in JSON."""

Channel = Annotated[int, Field(ge=0, le=255)]
Counts = tuple[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], ...]
"""Pixels: one row a labelled class, one column a predicted class, both in class order."""


@dataclass(frozen=True)
class ClassDivergence:
    """How one student differs from the teacher on one class's channel; None where there is no value.

    Attributes:
        td: Target divergence: mean divergence of the two maps over all positions with this class.
        ntd: Non-target divergence: the same over all positions with another class.
        ratio: TD/NTD over the whole split (HWD paper, Table I); None where NTD is 0.
        image_ratio: Mean of the ratios of single images.
        weight: Mean HWD weight of the channel.
        images: How many images `image_ratio` averages: those with this class and another and an NTD above 0.
    """

    __pydantic_config__ = JSON_RULES

    td: Number | None = None
    ntd: Number | None = None
    ratio: Number | None = None
    image_ratio: Number | None = None
    weight: Number | None = None
    images: int = 0


@dataclass(frozen=True)
class ClassRow:
    """One class: how well every model segments it, and how students differ from the teacher on its channel.

    Attributes:
        colour: RGB of the dataset's palette, 0..255.
        share: Part of the labelled pixels that carry this class, 0..1.
        iou: Model name -> IoU in 0..1; nan when the class occurs in neither label nor prediction.
        td, ntd, ratio, weight, image_ratio, ratio_images: As in `ClassDivergence`, of the report's pair.
        divergences: Model name -> its divergence from the teacher, the pair's student included.
    """

    __pydantic_config__ = JSON_RULES

    name: str
    colour: tuple[Channel, Channel, Channel]
    share: Score
    iou: dict[str, Score]
    td: Number | None = None
    ntd: Number | None = None
    ratio: Number | None = None
    weight: Number | None = None
    image_ratio: Number | None = None
    ratio_images: int = 0
    divergences: dict[str, ClassDivergence] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSummary:
    """One model over all classes. mIoU, mAcc and pixel accuracy are in 0..1, `params` counts scalars."""

    __pydantic_config__ = JSON_RULES

    name: str
    role: Role
    checkpoint: str
    params: int
    gmacs: Number | None
    miou: Score
    macc: Score
    pixel_accuracy: Score


@dataclass(frozen=True, eq=False)
class Example:
    """One image with its label and every model's class map.

    Attributes:
        name: What the dataset calls the image.
        height, width: H and W of every array.
        image: (H, W, 3) uint8 RGB.
        label: (H, W) uint8 class indices, 255 = ignore.
        predictions: Model name -> (H, W) uint8 class indices.
        disagreement: Part of the labelled pixels where student and teacher differ, 0..1.
    """

    name: str
    height: int
    width: int
    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    predictions: dict[str, NDArray[np.uint8]]
    disagreement: float


@dataclass(frozen=True)
class PerClassReport:
    """Everything the per-class report shows.

    Attributes:
        images: How many were evaluated.
        temperature: tau of the softmax behind the activation maps.
        divergence_on: What TD, NTD and the weights compare: softmax `activation` maps over pixels, or raw
            `logits`.
        absent: How a class without a pixel enters mIoU: `present` (left out) or `paper` (counts 0).
        pair: (student name, teacher name) that a row's own TD, NTD and weight compare.
        models: One summary a model, in display order.
        rows: One row a class, in class-index order.
        examples: Images to show; not part of `to_dict`.
        notes: Remarks for the reader, each one sentence.
        fingerprint: Identifies data and checkpoints, so that two reports can be compared.
        divergence: How they compare: squared difference (`mse`) or Kullback-Leibler (`kl`).
        confusions: Model name -> its confusion matrix; none for a report of before this was kept.
    """

    __pydantic_config__ = JSON_RULES

    dataset: str
    split: str
    images: int
    temperature: Number
    divergence_on: DivergenceOn
    absent: str
    pair: tuple[str, str]
    models: tuple[ModelSummary, ...]
    rows: tuple[ClassRow, ...]
    examples: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()
    fingerprint: str = ""
    divergence: DivergenceKind = "mse"
    confusions: dict[str, Counts] = field(default_factory=dict)

    @property
    def baseline(self) -> ModelSummary | None:
        """The model that students are measured against, unless it is the compared student itself."""
        baselines = (m for m in self.models if m.role == "baseline" and m.name != self.pair[0])
        return next(baselines, None)

    def model(self, name: str) -> ModelSummary | None:
        """Find a model's summary by its name."""
        return next((model for model in self.models if model.name == name), None)

    def delta(self, row: ClassRow) -> float:
        """Gain of the compared student over the baseline on a class: IoU difference, nan if unknown."""
        baseline = self.baseline.name if self.baseline else ""
        return row.iou.get(self.pair[0], math.nan) - row.iou.get(baseline, math.nan)

    def gap(self, row: ClassRow) -> float:
        """How far the compared student is behind the teacher on a class: IoU difference, nan if unknown."""
        student, teacher = self.pair
        return row.iou.get(teacher, math.nan) - row.iou.get(student, math.nan)

    def students(self) -> list[str]:
        """Names of the models whose divergence from the teacher is known, in display order."""
        known = {self.pair[0], *(name for row in self.rows for name in row.divergences)}
        return [model.name for model in self.models if model.name in known]

    def divergence_of(self, row: ClassRow, name: str) -> ClassDivergence:
        """How a student differs from the teacher on a class; without values if that was not measured."""
        if name == self.pair[0]:
            return ClassDivergence(
                row.td, row.ntd, row.ratio, row.image_ratio, row.weight, images=row.ratio_images
            )
        return row.divergences.get(name, ClassDivergence())

    def mean_divergence(self, name: str) -> ClassDivergence:
        """The mean over the report's classes, each quantity over those that have it; `images` is 0."""
        rows = [self.divergence_of(row, name) for row in self.rows]
        quantities = ("td", "ntd", "ratio", "image_ratio", "weight")
        means: dict[str, Any] = {key: _mean([getattr(row, key) for row in rows]) for key in quantities}
        return ClassDivergence(**means)

    def ordered(self, order: Order | None = None, only: Collection[str] = ()) -> list[ClassRow]:
        """Sort the rows of some classes, or of all if `only` is empty.

        Names go upwards, numbers downwards with the unknown last; `class` or None is class order.
        """
        rows = [row for row in self.rows if not only or row.name in only]
        if order is None or order == "class":
            return rows
        if order == "name":
            return sorted(rows, key=lambda row: row.name.casefold())
        values: dict[str, Callable[[ClassRow], float]] = {
            "iou": lambda row: row.iou.get(self.pair[0], math.nan),
            "gap": self.gap,
            "share": lambda row: row.share,
            "td-ntd": lambda row: math.nan if row.ratio is None else row.ratio,
            "weight": lambda row: math.nan if row.weight is None else row.weight,
        }
        value = values[order]
        return sorted(rows, key=lambda row: (math.isnan(value(row)), -value(row)))

    def to_dict(self) -> dict[str, Any]:
        """Say the report in JSON's types: no images, and null for nan or infinity."""
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "examples"}
        plain["models"] = [vars(model) for model in self.models]
        plain["rows"] = [
            {**vars(row), "divergences": {name: vars(one) for name, one in row.divergences.items()}}
            for row in self.rows
        ]
        return {"schema_version": SCHEMA_VERSION, **jsonable(plain)}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def jsonable(value: Any) -> Any:
    """Copy nested values; JSON has no nan, so a non-finite number becomes null."""
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
