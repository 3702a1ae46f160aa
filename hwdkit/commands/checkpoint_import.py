"""hwdkit checkpoint import: other people's weights become checkpoints that describe themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from hwdkit import __version__
from hwdkit.checkpoints import cirkd, torchvision
from hwdkit.checkpoints.cirkd import Converted
from hwdkit.checkpoints.files import file_digest, read_state_dict, save_model
from hwdkit.commands.checkpoint import parameters, require_finite, title
from hwdkit.data.datasets import DATASETS, layout_of
from hwdkit.data.layout import Layout
from hwdkit.engine.networks import FORMAT, load_weights
from hwdkit.errors import CheckpointError, HwdkitError, UsageError
from hwdkit.models.backbone import create_backbone
from hwdkit.models.segmenter import NetworkSpec, Segmenter, build

Source = Literal["cirkd", "torchvision"]
CONVERTERS = {"cirkd": cirkd.network, "torchvision": torchvision.network}


@dataclass(frozen=True)
class Options:
    """What the command line says; see `hwdkit checkpoint import --help`."""

    source: Source
    out: Path
    dataset: str | None = None
    backbone_only: bool = False


def run(path: Path, options: Options) -> dict[str, Any]:
    """Turn a published file into a checkpoint that describes itself, or into a backbone's `pretrained:`.

    Returns:
        JSON-able: what was read, what it is, where it was written.

    Raises:
        CheckpointError: the file is damaged, another network, or made for other classes than the dataset's.
        UsageError: options that do not go together, or an output that exists.
        DataError: unknown dataset.
    """
    layout = _require_sense(options)
    weights = read_state_dict(path)
    try:
        if layout is None:
            return _import_backbone(path, weights, options)
        return _import_network(path, weights, options, layout)
    except CheckpointError as error:
        if error.where:
            raise
        raise CheckpointError(error.message, where=str(path), hint=error.hint) from error


def render(result: dict[str, Any]) -> str:
    """What was made of the file, and what to type next."""
    if "recipe_lines" in result:
        dropped = (
            f" ({len(result['dropped'])} tensors of the classifier dropped)" if result["dropped"] else ""
        )
        lines = "\n".join(f"  {line}" for line in result["recipe_lines"])
        return f"{result['written']}: {result['backbone']}{dropped}\nIn a recipe:\n{lines}"
    return (
        f"{result['written']}: {result['title']}, {len(result['classes'])} classes of {result['dataset']}, "
        f"{result['parameters'] / 1e6:.2f} M parameters\n"
        f"Check it on images: hwdkit evaluate -c {result['written']}"
    )


def _require_sense(options: Options) -> Layout | None:
    """Check what can be checked before a file is read; None = a backbone has no dataset."""
    if options.out.suffix != ".safetensors":
        raise UsageError(f"--out: {options.out} does not end in .safetensors")
    if options.out.exists() or options.out.is_symlink():
        raise UsageError(f"--out: {options.out} exists; nothing is overwritten, name a new file")
    if not options.backbone_only:
        if options.dataset is None:
            raise UsageError(
                "--dataset is missing: its classes are the network's",
                hint="a backbone's ImageNet weights need none: --backbone-only",
            )
        return layout_of(options.dataset)
    if options.dataset is not None:
        raise UsageError("--dataset means nothing with --backbone-only: a backbone has no classes")
    if options.source != "cirkd":
        raise UsageError(
            f"--backbone-only with --from {options.source}: there is nothing to rename",
            hint="timm's ResNets have torchvision's names: set `pretrained:` to the file itself",
        )
    return None


def _import_network(
    path: Path, weights: Mapping[str, Tensor], options: Options, layout: Layout
) -> dict[str, Any]:
    found = CONVERTERS[options.source](weights)
    _require_classes(found, layout)
    require_finite(found.state, where=str(path))
    model = _built(found, where=str(path))
    network = model.spec.to_dict()
    source = {"from": options.source, "file": path.name, "sha256": file_digest(path)}
    metadata = {
        "format": FORMAT,
        "hwdkit": __version__,
        "network": network,
        "classes": list(layout.classes),
        "palette": [list(colour) for colour in layout.palette],
        "dataset": layout.name,
        "dataset_fingerprint": None,  # of the images that it was trained on nothing is known
        "imported": source,
    }
    save_model(options.out, model.state_dict(), metadata)
    return {
        "written": str(options.out),
        "sha256": file_digest(options.out),
        "imported": source,
        "title": title(network),
        "network": network,
        "dataset": layout.name,
        "classes": list(layout.classes),
        "parameters": parameters(model),
    }


def _import_backbone(path: Path, weights: Mapping[str, Tensor], options: Options) -> dict[str, Any]:
    found = cirkd.backbone(weights)
    require_finite(found.state, where=str(path))
    name, words = found.network["backbone"], found.network["backbone_options"]
    create_backbone(name, words, 8, pretrained=found.state)  # as a recipe's `pretrained:` will
    save_model(options.out, found.state, {})
    contract = found.network["input"]
    shown = ", ".join(f"{k}: {contract[k]}" for k in ("channel_order", "range", "mean", "std"))
    return {
        "written": str(options.out),
        "sha256": file_digest(options.out),
        "imported": {"from": options.source, "file": path.name, "sha256": file_digest(path)},
        "backbone": name,
        "backbone_options": words,
        "input": contract,
        "dropped": list(found.dropped),
        "recipe_lines": [
            "student:",
            f"  backbone: {name}",
            f"  backbone_options: {{{', '.join(f'{k}: {v}' for k, v in words.items())}}}",
            f"  pretrained: {options.out}",
            f"  input: {{{shown}}}",
        ],
    }


def _built(found: Converted, *, where: str) -> Segmenter:
    try:
        model = build(NetworkSpec.from_dict(found.network))
    except (HwdkitError, ValueError, RuntimeError) as error:
        # The facts come from the file, so it is the file that is at fault.
        raise CheckpointError(f"no network can be built of it: {error}", where=where) from error
    load_weights(model, found.state, where=where)
    return model


def _require_classes(found: Converted, layout: Layout) -> None:
    channels = found.network["classes"]
    if channels == len(layout.classes):
        return
    fitting = [name for name, known in DATASETS.items() if len(known.classes) == channels]
    raise CheckpointError(
        f"its classifier has {channels} classes, dataset {layout.name} has {len(layout.classes)}",
        hint=f"{channels} classes: --dataset {' or '.join(fitting)}"
        if fitting
        else f"no dataset that hwdkit knows has {channels} classes",
    )
