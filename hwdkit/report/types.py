"""What a per-class report holds: plain numbers, names and a few example images.

`per_class.py` computes these; `render.py`, `plots/` and `html.py` only read them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

Role = Literal["teacher", "student", "baseline", "compare"]
DivergenceOn = Literal["activation", "logits"]
Order = Literal["iou", "gap", "name", "share", "td-ntd"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ClassRow:
    """One class: how well every model segments it, and how student and teacher diverge on its channel.

    Attributes:
        name: The class's name.
        colour: RGB of the dataset's palette, 0..255.
        share: Part of the labelled pixels that carry this class, 0..1.
        iou: Model name -> IoU in 0..1; nan when the class occurs in neither label nor prediction.
        td: Target divergence: mean squared difference of the two maps over pixels labelled with this class.
        ntd: Non-target divergence: the same over all other labelled pixels.
        ratio: TD/NTD (HWD paper, Table I).
        weight: Mean HWD weight of this class's channel.
    """

    name: str
    colour: tuple[int, int, int]
    share: float
    iou: dict[str, float]
    td: float | None = None
    ntd: float | None = None
    ratio: float | None = None
    weight: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild a row from `PerClassReport.to_dict`; null IoU becomes nan again."""
        _refuse_unknown(cls, values)
        red, green, blue = values["colour"]
        iou = {model: _number(value) for model, value in values["iou"].items()}
        return cls(**{**values, "colour": (red, green, blue), "share": _number(values["share"]), "iou": iou})


@dataclass(frozen=True)
class ModelSummary:
    """One model over all classes. mIoU, mAcc and pixel accuracy are in 0..1, `params` counts scalars."""

    name: str
    role: Role
    checkpoint: str
    params: int
    gmacs: float | None
    miou: float
    macc: float
    pixel_accuracy: float

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild a summary from `PerClassReport.to_dict`; a null score becomes nan again."""
        _refuse_unknown(cls, values)
        scores = {key: _number(values[key]) for key in ("miou", "macc", "pixel_accuracy")}
        return cls(**{**values, **scores})


@dataclass(frozen=True, eq=False)
class Example:
    """One image with its label and every model's class map.

    Attributes:
        name: What the dataset calls the image.
        height: Rows of every array.
        width: Columns of every array.
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
        dataset: Dataset name.
        split: Split name.
        images: How many images were evaluated.
        temperature: tau of the softmax behind the activation maps and the channel weights.
        divergence_on: What TD and NTD compare: softmax `activation` maps over pixels, or raw `logits`.
        absent: How a class without a pixel enters mIoU: `present` (left out) or `paper` (counts 0).
        pair: (student name, teacher name) that TD, NTD and the weights compare.
        models: One summary a model, in display order.
        rows: One row a class, in class-index order.
        examples: Images to show; not part of `to_dict`.
        notes: Remarks for the reader, each one sentence.
        fingerprint: Identifies data and checkpoints, so that two reports can be compared.
    """

    dataset: str
    split: str
    images: int
    temperature: float
    divergence_on: DivergenceOn
    absent: str
    pair: tuple[str, str]
    models: tuple[ModelSummary, ...]
    rows: tuple[ClassRow, ...]
    examples: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()
    fingerprint: str = ""

    @property
    def baseline(self) -> ModelSummary | None:
        """The model that students are measured against, unless it is the compared student itself."""
        found = next((model for model in self.models if model.role == "baseline"), None)
        return None if found is None or found.name == self.pair[0] else found

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

    def ordered(self, order: Order | None = None) -> list[ClassRow]:
        """Sort the rows: names upwards, numbers downwards with the unknown last; None keeps class order."""
        if order is None:
            return list(self.rows)
        if order == "name":
            return sorted(self.rows, key=lambda row: row.name.casefold())
        values: dict[str, Callable[[ClassRow], float]] = {
            "iou": lambda row: row.iou.get(self.pair[0], math.nan),
            "gap": self.gap,
            "share": lambda row: row.share,
            "td-ntd": lambda row: math.nan if row.ratio is None else row.ratio,
        }
        value = values[order]
        return sorted(self.rows, key=lambda row: (math.isnan(value(row)), -value(row)))

    def to_dict(self) -> dict[str, Any]:
        """Say the report in JSON's types: no images, and null for nan or infinity."""
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "examples"}
        plain["models"] = [vars(model) for model in self.models]
        plain["rows"] = [vars(row) for row in self.rows]
        document = _jsonable({"schema_version": SCHEMA_VERSION, **plain})
        assert isinstance(document, dict)
        return document

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild a report (without examples) from `to_dict`.

        Raises:
            ValueError: another schema version, or a key that this version does not know.
        """
        version = values.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(f"per-class report has schema_version {version!r}, expected {SCHEMA_VERSION}")
        own = {key: value for key, value in values.items() if key != "schema_version"}
        _refuse_unknown(cls, own)
        student, teacher = own["pair"]
        own["pair"] = (student, teacher)
        own["models"] = tuple(ModelSummary.from_dict(model) for model in own["models"])
        own["rows"] = tuple(ClassRow.from_dict(row) for row in own["rows"])
        own["notes"] = tuple(own["notes"])
        return cls(**own)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _jsonable(value: Any) -> Any:
    """Copy nested values; JSON has no nan, so a non-finite number becomes null."""
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _refuse_unknown(cls: type, values: Mapping[str, Any]) -> None:
    known = {field.name for field in fields(cls)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{cls.__name__} has no {', '.join(unknown)}")
