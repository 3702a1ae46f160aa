"""Published weights become checkpoints that describe their network."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hwdkit import __version__
from hwdkit.checkpoints import cirkd, mmseg, smp, torchvision
from hwdkit.checkpoints.files import (
    Published,
    UnsafePickle,
    file_digest,
    read_published,
    replacing,
    save_model,
)
from hwdkit.checkpoints.renaming import Converted, has, without_module
from hwdkit.commands.checkpoint import Import
from hwdkit.commands.checkpoint.contents import parameters, title
from hwdkit.commands.checkpoint.verification import require_finite
from hwdkit.datasets.layout import Layout
from hwdkit.datasets.table import DATASETS, layout_of
from hwdkit.engine.networks import FORMAT, load_weights
from hwdkit.errors import CheckpointError, HwdkitError, UsageError
from hwdkit.models.backbone import create_backbone
from hwdkit.models.segmenter import NetworkSpec, Segmenter, build
from hwdkit.report.render import printable

BACKBONES = {"cirkd": cirkd.backbone, "hwd": cirkd.backbone, "mmseg": mmseg.backbone}
TELLING_KEYS = {
    "cirkd": "pretrained.",
    "mmseg": "decode_head.",
    "smp": "segmentation_head.",
    "torchvision": "classifier.4.",
}
"""The beginning of a name that no other source's networks have."""


def run(options: Import) -> dict[str, Any]:
    """Turn a published file into a checkpoint that describes itself, or into a backbone's `pretrained:`.

    Returns:
        JSON-able: what was read, what it is, where it was written.

    Raises:
        CheckpointError: the file is damaged, another network, or made for other classes than the dataset's.
        UsageError: of this source no backbone can be imported.
    """
    if options.backbone_only and options.source not in BACKBONES:
        raise UsageError(
            f"--backbone-only with --from {options.source}: there is nothing to import",
            hint="timm's networks have the same names: set `pretrained:` to a file of timm or torchvision",
        )
    path = options.file
    if options.source == "smp" and path.is_dir():
        path = path / "model.safetensors"  # what save_pretrained made of it
    published = _read(path, options.source)
    try:
        if options.backbone_only:
            return _import_backbone(path, published.weights, options)
        return _import_network(path, _converted(path, published, options), options)
    except CheckpointError as error:
        if error.where:
            raise
        hint = _another_source(published.weights, options.source) or error.hint
        raise CheckpointError(error.message, where=str(path), hint=hint) from error


def render(result: dict[str, Any]) -> str:
    """What was made of the file, and what to type next."""
    if "recipe_lines" in result:
        dropped = (
            f" ({len(result['dropped'])} tensors of the classifier dropped)" if result["dropped"] else ""
        )
        recipe = "\n".join(f"  {line}" for line in result["recipe_lines"])
        return f"{result['written']}: {result['backbone']}{dropped}\nIn a recipe:\n{recipe}"
    lines = [
        f"{result['written']}: {result['title']}, {len(result['classes'])} classes of {result['dataset']}, "
        f"{result['parameters'] / 1e6:.2f} M parameters"
    ]
    if result["assumed"]:
        lines.append(f"Assumed, as the file does not say: {', '.join(result['assumed'])}")
    if result["dropped"]:
        lines.append(f"Dropped: {', '.join(map(printable, result['dropped'][:6]))}")
    return "\n".join([*lines, f"Check it on images: hwdkit evaluate -c {shlex.quote(result['written'])}"])


def _read(path: Path, source: str) -> Published:
    try:
        return read_published(path)
    except UnsafePickle as error:
        if source == "mmseg":
            error.hint = mmseg.CLEAN.format(file=str(path))
        raise


def _converted(path: Path, published: Published, options: Import) -> Converted:
    weights = published.weights
    match options.source:
        case "mmseg":
            return mmseg.network(weights, published.beside)
        case "smp":
            return smp.network(weights, smp.read_config(path), options.backbone)
        case "torchvision":
            return torchvision.network(weights)
        case "cirkd" | "hwd":
            return cirkd.network(weights)


def _another_source(weights: Mapping[str, Tensor], source: str) -> str:
    """A hint if the names of the tensors are those of another source."""
    names = without_module(weights)
    kind = next((kind for kind, key in TELLING_KEYS.items() if has(names, key)), None)
    same = kind in (None, "cirkd" if source == "hwd" else source)
    return "" if same else f"its tensors have the names of --from {kind}"


def _import_network(path: Path, converted: Converted, options: Import) -> dict[str, Any]:
    layout = layout_of(str(options.dataset))
    _require_classes(converted, layout)
    require_finite(converted.state, where=str(path))
    model = _built(converted, where=str(path))
    network = model.spec.to_dict()
    source = {"from": options.source, "file": path.name, "sha256": file_digest(path)}
    metadata = {
        "format": FORMAT,
        "hwdkit": __version__,
        "network": network,
        "classes": list(layout.classes),
        "palette": [list(colour) for colour in layout.palette],
        "dataset": layout.name,
        "dataset_fingerprint": None,  # the images that it was trained on are unknown
        "imported": source,
    }
    with replacing(options.out, new=True) as temporary:
        save_model(temporary, model.state_dict(), metadata)
    return {
        "written": str(options.out),
        "sha256": file_digest(options.out),
        "imported": source,
        "title": title(network),
        "network": network,
        "dataset": layout.name,
        "classes": list(layout.classes),
        "parameters": parameters(model),
        "assumed": list(converted.assumed),
        "dropped": list(converted.dropped),
    }


def _import_backbone(path: Path, weights: Mapping[str, Tensor], options: Import) -> dict[str, Any]:
    converted = BACKBONES[options.source](weights)
    require_finite(converted.state, where=str(path))
    name, words = converted.network["backbone"], converted.network["backbone_options"]
    create_backbone(name, words, 8, pretrained=converted.state)  # as a recipe's `pretrained:` will
    with replacing(options.out, new=True) as temporary:
        save_model(temporary, converted.state, {})
    contract = converted.network["input"]
    shown = ", ".join(f"{k}: {contract[k]}" for k in ("channel_order", "range", "mean", "std"))
    return {
        "written": str(options.out),
        "sha256": file_digest(options.out),
        "imported": {"from": options.source, "file": path.name, "sha256": file_digest(path)},
        "backbone": name,
        "backbone_options": words,
        "input": contract,
        "dropped": list(converted.dropped),
        "recipe_lines": [
            "student:",
            f"  backbone: {name}",
            f"  backbone_options: {{{', '.join(f'{k}: {v}' for k, v in words.items())}}}",
            f"  pretrained: {json.dumps(str(options.out))}",
            f"  input: {{{shown}}}",
        ],
    }


def _built(converted: Converted, *, where: str) -> Segmenter:
    try:
        model = build(NetworkSpec.from_dict(converted.network))
    except (HwdkitError, ValueError, RuntimeError) as error:
        # The facts come from the file, so it is the file that is at fault.
        raise CheckpointError(f"no network can be built from it: {error}", where=where) from error
    load_weights(model, converted.state, where=where)
    return model


def _require_classes(converted: Converted, layout: Layout) -> None:
    """The classifier has the dataset's classes, in its order where the file names them."""
    channels = converted.network["classes"]
    if channels != len(layout.classes):
        fitting = [name for name, dataset in DATASETS.items() if len(dataset.classes) == channels]
        raise CheckpointError(
            f"its classifier has {channels} classes, dataset {layout.name} has {len(layout.classes)}",
            hint=f"{channels} classes: --dataset {' or '.join(fitting)}"
            if fitting
            else f"no dataset that hwdkit knows has {channels} classes",
        )
    if converted.class_names and len(converted.class_names) != channels:
        raise CheckpointError(
            f"it names {len(converted.class_names)} classes, but its classifier has {channels}",
            hint="it is unknown which output belongs to which class",
        )
    for i, (name, expected) in enumerate(zip(converted.class_names, layout.classes, strict=False)):
        if _letters(name) != _letters(expected):
            raise CheckpointError(
                f"it names its class {i} {printable(name)!r}, dataset {layout.name} has {expected!r} there",
                hint="the network was trained on other classes, or in another order",
            )


def _letters(name: str) -> str:
    """A class name without what is a matter of spelling: case, spaces and punctuation."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
