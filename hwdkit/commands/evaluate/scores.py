"""A checkpoint's mIoU, mAcc, pixel accuracy and class IoU on a split."""

from __future__ import annotations

import itertools
from pathlib import PurePosixPath
from typing import Any

from rich.console import Group
from torch import Tensor

from hwdkit.checkpoints.files import file_digest, write_file
from hwdkit.commands.evaluate import Evaluate
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.decode import raw_ids
from hwdkit.distributed import started
from hwdkit.engine.evaluate import evaluate as evaluate_network
from hwdkit.engine.networks import load_network
from hwdkit.engine.opened import open_images
from hwdkit.errors import GateError
from hwdkit.measure.overlay import ids_png, image_png, mask_png, overlay
from hwdkit.recipe.protocol import Protocol
from hwdkit.report.render import percent
from hwdkit.report.table import Table
from hwdkit.terminal import console, paths, values
from hwdkit.terminal.memory import WHILE_EVALUATING, explained_memory


def run(options: Evaluate, *, cpu: bool) -> dict[str, Any]:
    """Evaluate a checkpoint or the network of a run directory.

    Returns:
        JSON-able: scores in 0..1, per class, with protocol, checkpoint and dataset named.
    """
    if options.save_predictions is not None:  # in every process, before the first of them writes
        paths.require_empty("--save-predictions", options.save_predictions)
    loaded = load_network(options.checkpoint)
    images = open_images(
        loaded,
        data_root=options.data_root,
        dataset=options.dataset,
        split=options.split,
        limit=options.limit,
        workers=options.workers,
    )
    index, dataset = images.index, images.dataset
    protocol = Protocol(
        mode=options.mode,
        window=options.window,
        stride=options.stride,
        scales=values.scales("--scales", options.scales),
        flip=options.flip,
        absent=options.absent,
    )
    pictures = _Pictures(dataset, options)
    with explained_memory(WHILE_EVALUATING), started(cpu=cpu) as ranks:
        model = loaded.model.to(ranks.device)
        share = {"rank": ranks.rank, "world": ranks.world}
        with console.progress("evaluate", images.share(**share)) as advance:
            done = itertools.count(1)

            def on_image(i: int, prediction: Tensor) -> None:
                pictures.save(i, prediction)
                advance(next(done))

            pairs = images.pairs(**share)
            result = evaluate_network(model, pairs, protocol, ranks=ranks, on_image=on_image)
    return {
        "checkpoint": str(loaded.path),
        "checkpoint_sha256": file_digest(loaded.path),
        "dataset": index.name,
        "dataset_fingerprint": index.fingerprint,
        "dataset_partial": index.partial,
        "split": options.split,
        "images_in_split": len(dataset),
        **result.to_dict(index.classes),
    }


def gate(result: dict[str, Any], fail_under: float | None) -> GateError | None:
    """The GateError (exit 9) to raise when mIoU is below the lower bound."""
    if fail_under is None or result["miou"] >= fail_under:
        return None
    return GateError(f"mIoU {result['miou']:.4f} is below --fail-under {fail_under:g}")


def render(result: dict[str, Any]) -> Group:
    """The means, per-class IoU, and how they were measured, for the terminal."""
    protocol = result["protocol"]
    how = f"{protocol['mode']}, scales {', '.join(f'{scale:g}' for scale in protocol['scales'])}"
    how += ", flip" if protocol["flip"] else ""
    part = "" if result["images"] == result["images_in_split"] else f" of {result['images_in_split']}"
    partial = "; dataset is partial" if result["dataset_partial"] else ""
    rows = (
        (row["name"], percent(row["share"]), "absent" if row["iou"] is None else percent(row["iou"]))
        for row in result["per_class"]
    )
    means = (
        f"mIoU {100 * result['miou']:.2f} %   mAcc {100 * result['macc']:.2f} %   "
        f"pixel accuracy {100 * result['pixel_accuracy']:.2f} %"
    )
    if result["pixel_accuracy"] != result["pixel_accuracy"]:
        means = "Nothing to score: no pixel of these images is labelled."
    return Group(
        means,
        Table(["class", "share %", "IoU %"], rows),
        f"{result['dataset']} {result['split']}, {result['images']}{part} images; {how}; "
        f"absent classes: {protocol['absent']}{partial}",
    )


class _Pictures:
    """Writes what the options ask for, one image at a time, each file complete or not at all."""

    def __init__(self, dataset: SegmentationDataset, options: Evaluate) -> None:
        self.dataset = dataset
        self.options = options
        self.names = _file_names([dataset.name(i) for i in range(len(dataset))])
        if options.save_predictions is not None:
            self.raw_ids = raw_ids(dataset.index.label_map, classes=len(dataset.index.classes))

    def save(self, i: int, prediction: Tensor) -> None:
        options, palette, name = self.options, self.dataset.index.palette, self.names[i]
        if not (options.save_masks or options.save_overlays or options.save_predictions):
            return
        pixels = prediction.byte().cpu().numpy()
        if options.save_masks:
            write_file(options.save_masks / name, mask_png(pixels, palette))
        if options.save_overlays:
            image = self.dataset.read(i)[0].permute(1, 2, 0).numpy()
            write_file(options.save_overlays / name, image_png(overlay(image, pixels, palette)))
        if options.save_predictions:
            write_file(options.save_predictions / name, ids_png(self.raw_ids[pixels]))


def _file_names(images: list[str]) -> list[str]:
    """Name a PNG for every image: by its own name, with its folders or its suffix where two share one."""
    paths = [PurePosixPath(image).with_suffix(".png") for image in images]
    if len({path.name for path in paths}) == len(paths):
        return [path.name for path in paths]
    if len(set(paths)) < len(paths):  # a.jpg beside a.png
        paths = [PurePosixPath(f"{image}.png") for image in images]
    # Whatever an index says, nothing is written outside the folder that was named.
    return ["/".join(part for part in path.parts if part not in ("/", "..")) for path in paths]
