"""A trained network as one file that runs without hwdkit, checked against the network.

Nothing stands under the name that was asked for until it has been verified.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from rich.console import Group
from rich.text import Text
from torch import Tensor

from hwdkit.checkpoints.files import replacing
from hwdkit.commands.export import Export
from hwdkit.commands.export import int8 as export_int8
from hwdkit.commands.predict.images import MediaFile, find_images, read_upright
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.index import DatasetIndex, load_index
from hwdkit.engine.networks import Loaded, load_network, require_classes
from hwdkit.engine.opened import Images
from hwdkit.errors import DataError, GateError
from hwdkit.export import files as exported_files
from hwdkit.export import verify
from hwdkit.export.deployed import Form, trace
from hwdkit.report.render import printable
from hwdkit.terminal import paths
from hwdkit.terminal.memory import explained_memory
from hwdkit.terminal.values import height_by_width

log = logging.getLogger("hwdkit")

MEMORY_HINT = "give a smaller --input"
SUFFIXES: dict[exported_files.Format, str] = {"onnx": ".onnx", "torch-export": ".pt2"}
VERIFIED = 2
"""Pictures that a file is verified on, at each shape."""


def run(options: Export) -> tuple[dict[str, Any], GateError | None]:
    """Export a checkpoint or the network of a run directory.

    Returns:
        JSON-able: the file, its form, the verification, the cost of int8; and the GateError (exit 9)
        to raise when int8 lost more mIoU than is allowed. The file is there in both cases.
    """
    paths.require_new_file("--out", options.out, suffix=SUFFIXES[options.format])
    if options.format == "onnx":
        exported_files.require_onnx()
    files = find_images(options.images) if options.images else []
    loaded = load_network(options.checkpoint)
    loaded.model.cpu().eval()
    if options.format == "onnx":
        exported_files.require_room(loaded)
    index = _dataset(loaded, options)
    size = height_by_width("--input", options.size, least=32)
    form = Form(size=size, dynamic=options.axes, output=options.output, baked=options.bake)
    metadata = exported_files.description(loaded, form)
    with ExitStack() as stack:
        stack.enter_context(explained_memory(MEMORY_HINT))
        target = stack.enter_context(replacing(options.out, new=True))
        pictures = _few_pictures(files, index, form) if options.verify else None
        exact = target
        if options.int8:
            exact = target.with_name(f"{target.name}.fp32")
            stack.callback(exact.unlink, missing_ok=True)
        _write(exact, loaded, metadata, form=form, options=options)
        verified = _verified(exact, loaded, pictures, form=form, options=options)
        quantised = None
        if options.int8:
            assert index is not None
            source, calibration = _calibration(files, index, options.calibration)
            val = SegmentationDataset(index, "val")
            images = Images(val, min(len(val), options.limit or len(val)))
            quantised = export_int8.run(
                exact, target, loaded, calibration, images, source=source, form=form, metadata=metadata
            )
        written = target.stat().st_size
    result = {
        "checkpoint": str(loaded.path),
        "checkpoint_sha256": metadata["checkpoint_sha256"],
        "out": str(options.out),
        "format": options.format,
        "opset": options.opset if options.format == "onnx" else None,
        **form.to_dict(),
        "input": "uint8 RGB" if form.baked else "float32, normalised",
        "input_contract": metadata["input_contract"],
        "classes": metadata["classes"],
        "bytes": written,
        "verified": verified,
        "int8": quantised,
    }
    gate = quantised and export_int8.gate(quantised, out=options.out, max_miou_drop=options.max_miou_drop)
    return result, gate or None


def _dataset(loaded: Loaded, options: Export) -> DatasetIndex | None:
    """The checkpoint's dataset, if it is needed and there; int8 cannot be measured without.

    Raises:
        DataError, CheckpointError: int8 needs it and it is missing or made of other classes.
    """
    try:
        index = load_index(options.data_root / str(loaded.metadata["dataset"]))
    except DataError as error:
        if not options.int8:
            return None
        reason = f"--int8 measures mIoU on the checkpoint's dataset, also with --images: {error.message}"
        raise DataError(reason, where=error.where, hint=error.hint) from error
    if options.int8:
        require_classes(loaded, index)
        needed = ("val",) if options.images else ("train", "val")
        missing = [split for split in needed if not index.splits.get(split)]
        if missing:
            raise DataError(
                f"dataset {index.name} has no {' and no '.join(missing)} split, which --int8 needs"
            )
    return index


def _write(path: Path, loaded: Loaded, metadata: dict[str, Any], *, form: Form, options: Export) -> None:
    log.info("tracing %s", loaded.path)
    program = trace(loaded, form)
    if options.format == "onnx":
        exported_files.write_onnx(path, program, metadata, form=form, opset=options.opset)
    else:
        exported_files.write_torch_export(path, program, metadata)


def _few_pictures(files: list[MediaFile], index: DatasetIndex | None, form: Form) -> tuple[str, list[Tensor]]:
    """What to verify on, and its name: the images named, the dataset's, or a generated one."""
    if files:
        return "images", [_upright(file) for file in files[:VERIFIED]]
    if index is not None:
        split = "val" if index.splits.get("val") else next(iter(index.splits))
        dataset = SegmentationDataset(index, split)
        return f"{index.name} {split}", [dataset.read(i)[0] for i in range(min(VERIFIED, len(dataset)))]
    return "a generated picture", [verify.generated_picture(form.size)]


def _upright(file: MediaFile) -> Tensor:
    return torch.from_numpy(read_upright(file.path).transpose(2, 0, 1).copy())


def _verified(
    path: Path, loaded: Loaded, pictures: tuple[str, list[Tensor]] | None, *, form: Form, options: Export
) -> dict[str, Any] | None:
    if pictures is None:
        log.warning("--no-verify: exported file not compared with the network")
        return None
    on, tensors = pictures
    log.info("verifying on %s", on)
    exported = exported_files.open_exported(path, options.format)
    shapes = [
        verify.agreement(loaded.model, exported, tensors, form=form, shape=shape) for shape in form.shapes()
    ]
    verify.require_agreement(shapes, tolerance=options.tolerance, form=form)
    return {
        "on": on,
        "pictures": len(tensors),
        "tolerance": options.tolerance,
        "shapes": [at._asdict() for at in shapes],
    }


def _calibration(
    files: list[MediaFile], index: DatasetIndex, count: int
) -> tuple[dict[str, Any], Iterator[Tensor]]:
    """The images named, or training images evenly spread: a dataset's first ones may all show one town."""
    if files:
        files = files[:count]
        return {"on": "images", "images": len(files)}, map(_upright, files)
    train = SegmentationDataset(index, "train")
    count = min(count, len(train))
    pictures = (train.read(i * len(train) // count)[0] for i in range(count))
    return {"on": f"{index.name} train", "images": count}, pictures


def render(result: dict[str, Any]) -> Group:
    """The file, its input and output, and how it was verified, for the terminal."""
    lines = [f"{result['out']}: {result['format']}, {result['bytes'] / 2**20:.2f} MiB"]
    height, width = result["size"]
    axes = {"batch": "1", "height": str(height), "width": str(width)}
    n, h, w = (axis if axis in result["dynamic"] else value for axis, value in axes.items())
    lines.append(f"in: image {result['input']} ({n}, 3, {h}, {w})   out: {result['output']}")
    verified = result["verified"]
    if verified is None:
        lines.append("not verified")
    else:
        what = "another class by" if result["output"] == "classes" else "logits differ by"
        lines.append(f"verified on {printable(verified['on'])} ({verified['pictures']} at each shape):")
        lines += [
            f"  {'x'.join(map(str, at['shape']))}: {what} {at['max_difference']:.2g} at most, "
            f"{100 * at['other_class']:.3g} % of the pixels have another class"
            for at in verified["shapes"]
        ]
    text = Text("\n".join(lines))
    return Group(text) if result["int8"] is None else Group(text, *export_int8.render(result["int8"]))
