"""The page's pictures as data URIs: examples with every network's class map, and confusion matrices."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from hwdkit.measure.confusions import cell_numbers, heat_map
from hwdkit.measure.overlay import (
    AGREE,
    BOTH_WRONG,
    DISAGREEMENT_COLOURS,
    STUDENT_RIGHT,
    TEACHER_RIGHT,
    Colour,
    Pixels,
    disagreement,
    image_jpeg,
    image_png,
    mask_png,
    shrink,
)
from hwdkit.measure.types import Example, PerClassReport
from hwdkit.report.palette import hex_colour

LONGEST_SIDE = 640
"""Pixels. Larger examples are reduced, so that the page stays a few MB."""

NUMBERED_CLASSES = 32
"""Up to so many classes, the cells of a confusion matrix are large enough for a number."""


def shown_example(report: PerClassReport, example: Example) -> dict[str, Any]:
    """Encode one example's tiles; all share the photograph, and differ in the mask above it."""
    palette = [row.colour for row in report.rows]
    student, teacher = report.pair
    tiles = [_tile("ground truth", None, example.label, palette)]
    for index, model in enumerate(report.models):
        if model.name in example.predictions:
            tiles.append(_tile(model.name, index, example.predictions[model.name], palette))
    if student in example.predictions and teacher in example.predictions:
        verdict = disagreement(example.label, example.predictions[student], example.predictions[teacher])
        tile = _tile(f"{student} ≠ {teacher}", None, verdict, DISAGREEMENT_COLOURS, clear=(AGREE,))
        tiles.append({**tile, "differs": True})
    return {
        "name": example.name,
        "size": f"{example.width} × {example.height}",
        "ratio": f"{example.width} / {example.height}",
        "disagreement": f"{100 * example.disagreement:.1f}",
        "photo": _photo(shrink(example.image, LONGEST_SIDE)),
        "tiles": tiles,
    }


def verdicts(report: PerClassReport) -> list[tuple[str, str]]:
    """What the colours of a disagreement mean: (words, #rrggbb)."""
    student, teacher = report.pair
    words = {
        STUDENT_RIGHT: f"{student} is right",
        TEACHER_RIGHT: f"{teacher} is right",
        BOTH_WRONG: "both are wrong, differently",
    }
    return [(text, hex_colour(DISAGREEMENT_COLOURS[verdict])) for verdict, text in words.items()]


def shown_matrices(report: PerClassReport) -> list[dict[str, Any]]:
    """One picture a model, with the numbers to write into it and the counts to read from it."""
    matrices = []
    for index, model in enumerate(report.models):
        counts = report.confusions.get(model.name)
        if counts:
            picture = _uri("image/png", heat_map(counts))
            numbers = cell_numbers(counts) if len(counts) <= NUMBERED_CLASSES else []
            matrices.append(
                {"name": model.name, "model": index, "picture": picture, "numbers": numbers, "counts": counts}
            )
    return matrices


def _tile(
    title: str, model: int | None, mask: Pixels, palette: Sequence[Colour], *, clear: Sequence[int] = ()
) -> dict[str, Any]:
    data = _uri("image/png", mask_png(shrink(mask, LONGEST_SIDE), palette, clear=clear))
    return {"title": title, "model": model, "mask": data, "differs": False}


def _photo(image: Pixels) -> str:
    """Choose the encoding: JPEG where it saves much (photographs), PNG where it does not (drawings)."""
    png, jpeg = image_png(image), image_jpeg(image)
    return _uri("image/jpeg", jpeg) if 2 * len(jpeg) < len(png) else _uri("image/png", png)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
