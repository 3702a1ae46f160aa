"""The networks and backbones that CIRKD and HWD publish as `.pth` files, under hwdkit's names.

State dicts in, state dicts out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hwdkit.checkpoints.renaming import (
    BIASED,
    NORM,
    STEM_MODULES,
    WEIGHT,
    Converted,
    Rows,
    block_rows,
    described,
    has,
    renamed,
    resnet_blocks,
    resnet_name,
    without_module,
)
from hwdkit.errors import CheckpointError

INPUT: dict[str, Any] = {
    "channel_order": "bgr",
    "range": 255,
    "mean": [104.00698793, 116.66876762, 122.67891434],
    "std": [1.0, 1.0, 1.0],
    "align_corners": True,
}
"""What the authors' loaders make of an image: cv2's channel order, the mean subtracted, nothing divided."""

STEM_WIDTH = 64
DEEP_STEM = {"stem_type": "deep", "stem_width": STEM_WIDTH}
MOBILENET = "mobilenetv2_100"
MOBILE_STAGES = (1, 2, 3, 4, 3, 3, 1)
MOBILE_FIRST = {0: "conv_dw", 1: "bn1", 3: "conv_pw", 4: "bn2"}
MOBILE_LAYERS = {0: "conv_pw", 1: "bn1", 3: "conv_dw", 4: "bn2", 6: "conv_pwl", 7: "bn3"}
CLASSIFIERS = ("fc.", "classifier.", "conv.", "features.18.")
"""What an ImageNet network has behind the maps that a segmentation network reads."""


def network(weights: Mapping[str, Tensor]) -> Converted:
    """Rename a DeepLabV3 or PSPNet of CIRKD, CIRKDV2 or HWD; architecture and widths are read from it.

    Args:
        weights: under the authors' names, with or without DistributedDataParallel's `module.`.

    Raises:
        CheckpointError: a tensor is missing or has no place; lists the authors' names.
    """
    weights = without_module(weights)
    if not has(weights, "pretrained."):
        raise CheckpointError(
            "no key begins with `pretrained.`: this is no segmentation network of CIRKD or HWD",
            hint="ImageNet weights need --backbone-only; the PSPNet of SKD, IFVD and CWD is another network",
        )
    name = _backbone_name(weights, "pretrained.")
    psp = has(weights, "head.psp.")
    head, classifier = ("pspnet", "head.classifier") if psp else ("deeplabv3", "head.block.4")
    stem = "pretrained.net." if name == MOBILENET else "pretrained."
    rows = [*_backbone(name, stem, "backbone."), *(_pspnet() if psp else _deeplabv3())]
    rows += [*block_rows("head.block", "head.block"), (classifier, "head.classifier", BIASED)]
    if has(weights, "auxlayer."):
        rows += block_rows("auxlayer.block", "aux_head.block")
        rows.append(("auxlayer.block.4", "aux_head.classifier", BIASED))
    state = renamed(weights, rows, what=f"{head} on {name} of CIRKD or HWD")
    options = {} if name == MOBILENET else DEEP_STEM
    return Converted(described(state, backbone=name, head=head, input=INPUT, options=options), state)


def backbone(weights: Mapping[str, Tensor]) -> Converted:
    """Rename ImageNet weights such as `resnet18-imagenet.pth` to timm's names; the classifier is dropped.

    Raises:
        CheckpointError: a tensor is missing or has no place; lists the authors' names.
    """
    weights = without_module(weights)
    if has(weights, "pretrained."):
        raise CheckpointError(
            "this is a whole segmentation network, not a backbone's ImageNet weights",
            hint="import it without --backbone-only",
        )
    name = _backbone_name(weights, "")
    ends = CLASSIFIERS if name == MOBILENET else CLASSIFIERS[:1]
    dropped = tuple(key for key in weights if key.startswith(ends))
    kept = {key: tensor for key, tensor in weights.items() if key not in dropped}
    state = renamed(kept, _backbone(name, "", ""), what=f"{name} of CIRKD or HWD", counters=False)
    options = {} if name == MOBILENET else dict(DEEP_STEM)
    facts = {"backbone": name, "backbone_options": options, "input": dict(INPUT)}
    return Converted(facts, state, dropped)


def _backbone_name(weights: Mapping[str, Tensor], prefix: str) -> str:
    """The likeliest one; whether everything fits, the table says."""
    mobile = has(weights, f"{prefix}net.", f"{prefix}features.")
    return MOBILENET if mobile else resnet_name(weights, prefix)


def _backbone(name: str, source: str, target: str) -> Rows:
    return _mobilenet(source, target) if name == MOBILENET else _resnet(name, source, target)


def _resnet(name: str, source: str, target: str) -> Rows:
    """The authors number the stem's convolutions and norms."""
    for i, (conv, norm) in enumerate(STEM_MODULES, 1):
        yield f"{source}conv{i}", f"{target}{conv}", WEIGHT
        yield f"{source}bn{i}", f"{target}{norm}", NORM
    yield from resnet_blocks(name, source, target, stem_channels=2 * STEM_WIDTH)


def _mobilenet(source: str, target: str) -> Rows:
    """The authors count blocks through, `features.1` to `features.17`; timm counts them by stage."""
    yield f"{source}features.0.0", f"{target}conv_stem", WEIGHT
    yield f"{source}features.0.1", f"{target}bn1", NORM
    blocks = [f"{stage}.{block}" for stage, n in enumerate(MOBILE_STAGES) for block in range(n)]
    for feature, block in enumerate(blocks, 1):
        for layer, name in (MOBILE_FIRST if feature == 1 else MOBILE_LAYERS).items():
            leaves = WEIGHT if name.startswith("conv") else NORM
            yield f"{source}features.{feature}.conv.{layer}", f"{target}blocks.{block}.{name}", leaves


def _deeplabv3() -> Rows:
    yield from block_rows("head.aspp.b0", "head.branches.0")
    for i in (1, 2, 3):
        yield from block_rows(f"head.aspp.b{i}.block", f"head.branches.{i}")
    yield from block_rows("head.aspp.b4.gap", "head.pool", first=1, target_first=1)
    yield from block_rows("head.aspp.project", "head.project")


def _pspnet() -> Rows:
    for i in range(4):
        yield from block_rows(f"head.psp.conv{i + 1}", f"head.bins.{i}", target_first=1)
