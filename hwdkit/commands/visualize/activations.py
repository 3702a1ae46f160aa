"""hwdkit visualize activations: some classes' channels of every network, over some images."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwdkit.commands.visualize import Activations, figure
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.errors import DataError, UsageError
from hwdkit.measure.activation_maps import ActivationMap, activation_maps
from hwdkit.measure.overlay import shrink
from hwdkit.report.render import number, percent
from hwdkit.report.table import Column, Table
from hwdkit.terminal import values

MOST_ROWS = 24


def run(options: Activations) -> tuple[dict[str, Any], bytes]:
    """The figure, and a row for each class of each image, with every network's map."""
    from hwdkit.report.plots.activations import ActivationRow, activations

    opened = figure.opened(options)
    dataset, known = opened.images.dataset, opened.images.index.classes
    names = tuple(dict.fromkeys(values.classes(options.classes or (), known)))
    classes = [known.index(name) for name in names]
    images = figure.chosen_images(options.images or (), dataset) or [_first_with(dataset, classes, names)]
    if len(images) * len(classes) > MOST_ROWS:
        raise UsageError(
            f"{len(images)} images x {len(classes)} classes are more than {MOST_ROWS} rows",
            hint="name fewer --images or --classes",
        )
    rows, documents = [], []
    with figure.working("activations", len(images)) as advance:
        for done, index in enumerate(images, 1):
            image, label = opened.pair(index)
            maps = activation_maps(opened.networks, image, label, classes, temperature=options.tau)
            pixels = shrink(image.permute(1, 2, 0).cpu().numpy(), options.longest)
            small = shrink(label.cpu().numpy().astype(np.uint8), options.longest)
            for number, (c, name) in enumerate(zip(classes, names, strict=True)):
                shown = {network: classes_maps[number] for network, classes_maps in maps.items()}
                rows.append(ActivationRow(name, c, pixels, small, shown))
                documents.append(
                    {
                        "image": dataset.name(index),
                        "index": index,
                        "class": name,
                        "scale": rows[-1].scale,
                        "networks": {network: _map(one) for network, one in shown.items()},
                    }
                )
            advance(done)
    content = activations(rows, temperature=options.tau, form=options.suffix)
    return {**opened.facts(), "temperature": options.tau, "rows": documents}, content


def render(result: dict[str, Any]) -> tuple[Table, str]:
    """How much of each map lies on its class."""
    networks = [network["name"] for network in result["networks"]]
    columns: list[str | Column] = ["image", Column("class", left=True)]
    for name in networks:
        columns += [f"{name}: on class %", "peak"]
    rows = []
    for row in result["rows"]:
        rows.append([row["image"], row["class"]])
        for name in networks:
            rows[-1] += [percent(row["networks"][name]["on_class"]), number(row["networks"][name]["peak"])]
    return Table(columns, rows), ""


def _first_with(dataset: SegmentationDataset, classes: list[int], names: tuple[str, ...]) -> int:
    for index in range(len(dataset)):
        _, label = dataset.open(index)
        if set(classes) <= set(np.unique(label).tolist()):
            return index
    raise DataError(
        f"no image of split {dataset.split} holds all of {', '.join(names)}",
        hint="choose images yourself: --images 0,1",
    )


def _map(one: ActivationMap) -> dict[str, Any]:
    values = [[float(f"{value:.4g}") for value in line] for line in one.density.tolist()]
    return {"on_class": one.on_class, "peak": one.peak, "density": values}
