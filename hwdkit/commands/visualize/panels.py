"""hwdkit visualize panels: choose images, show them to every network, draw."""

from __future__ import annotations

from typing import Any

from hwdkit.commands.visualize import Panels, figure
from hwdkit.engine.opened import Opened
from hwdkit.errors import CheckpointError, DataError, UsageError
from hwdkit.measure.visual_panels import (
    PanelRow,
    Ranked,
    Score,
    disagreement_with,
    gain_over,
    highest,
    panel_row,
)
from hwdkit.report.render import number, percent
from hwdkit.report.table import Table

MOST_IMAGES = 20


def run(options: Panels) -> tuple[dict[str, Any], bytes]:
    """The figure, and its images in order, why they were chosen, and every network's scores on each."""
    opened = figure.opened(options, limit=options.limit, workers=options.workers)
    index, score = opened.images.index, _score(options)
    if len(index.classes) > 255:
        raise CheckpointError(f"{len(index.classes)} classes; panels can show 255")
    chosen = _chosen(opened, options)
    rows = []
    with figure.working("panels", len(chosen)) as advance:
        for done, (i, _) in enumerate(chosen, 1):
            pair, name = opened.pair(i), opened.images.dataset.name(i)
            rows.append(panel_row(opened.networks, pair, index=i, name=name, longest=options.longest))
            advance(done)
    from hwdkit.report.plots.panels import panels

    content = panels(rows, index.classes, index.palette, score=score, form=options.suffix)
    reason = "disagreement" if options.worst else f"{score} gain" if options.best else None
    images = [
        _image(row, ranked, index.classes, by_rank=reason is not None)
        for row, ranked in zip(rows, chosen, strict=True)
    ]
    return {**opened.facts(), "chosen_by": reason, "images": images}, content


def render(result: dict[str, Any]) -> tuple[Table, str]:
    """The scores."""
    names = [network["name"] for network in result["networks"]]
    chosen_by = [result["chosen_by"].replace("_", " ")] if result["chosen_by"] else []
    rows = [
        [image["name"], *(number(image["value"]) for _ in chosen_by)]
        + [percent(image["scores"][name]["miou"]) for name in names]
        for image in result["images"]
    ]
    return Table(["image", *chosen_by, *(f"{name} mIoU %" for name in names)], rows), ""


def _score(options: Panels) -> Score:
    return "miou" if options.score == "miou" else "pixel_accuracy"


def _chosen(opened: Opened, options: Panels) -> list[Ranked]:
    most, dataset = options.worst or options.best, opened.images.dataset
    if most is None:
        chosen = figure.chosen_images(options.images or (), dataset) or range(min(4, opened.images.total))
        if len(chosen) > MOST_IMAGES:
            raise UsageError(f"--images names {len(chosen)} images; at most {MOST_IMAGES} can be shown")
        return [Ranked(index, float("nan")) for index in chosen]
    if options.worst:
        student = opened.of_role("student", needed_for="--worst")
        value = disagreement_with(student.model, opened.of_role("teacher", needed_for="--worst").model)
    else:
        student = opened.of_role("student", needed_for="--best")
        baseline = opened.of_role("baseline", needed_for="--best")
        value = gain_over(baseline.model, student.model, _score(options))
    with figure.working("choosing images", opened.images.total) as advance:
        ranked = highest(opened.pairs(), value, most, advance=advance)
    if not ranked:
        raise DataError(f"no image of split {dataset.split} has a labelled pixel")
    return ranked


def _image(row: PanelRow, ranked: Ranked, classes: tuple[str, ...], *, by_rank: bool) -> dict[str, Any]:
    return {
        "index": row.index,
        "name": row.name,
        "height": row.height,
        "width": row.width,
        "value": ranked.value if by_rank else None,
        "scores": {name: scores._asdict() for name, scores in row.scores.items()},
        "classes": [name for name, share in zip(classes, row.shares.tolist(), strict=True) if share],
    }
