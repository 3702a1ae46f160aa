"""The networks and backbones that CIRKD and HWD publish as `.pth` files, under hwdkit's names.

State dicts in, state dicts out: what is a file, and what is built from the facts, is known elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hwdkit.errors import CheckpointError

INPUT: dict[str, Any] = {
    "channel_order": "bgr",
    "range": 255,
    "mean": [104.00698793, 116.66876762, 122.67891434],
    "std": [1.0, 1.0, 1.0],
    "align_corners": True,
}
"""What the authors' loaders make of an image: cv2's channel order, the mean subtracted, nothing divided."""

WEIGHT, BIASED = ("weight",), ("weight", "bias")
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

Rows = Iterator[tuple[str, str, tuple[str, ...]]]
"""(the authors' module, hwdkit's module, the tensors that it has)."""

RESNETS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
DEEP_STEM = {"stem_type": "deep", "stem_width": 64}
MOBILENET = "mobilenetv2_100"
MOBILE_STAGES = (1, 2, 3, 4, 3, 3, 1)
MOBILE_FIRST = {0: "conv_dw", 1: "bn1", 3: "conv_pw", 4: "bn2"}
MOBILE_LAYERS = {0: "conv_pw", 1: "bn1", 3: "conv_dw", 4: "bn2", 6: "conv_pwl", 7: "bn3"}
CLASSIFIERS = ("fc.", "classifier.", "conv.", "features.18.")
"""What an ImageNet network has behind the maps that a segmentation network reads."""


@dataclass(frozen=True)
class Converted:
    """A network under hwdkit's names.

    Attributes:
        network: what a `NetworkSpec` is rebuilt from, the input contract included. Of a backbone alone:
            `backbone`, `backbone_options` and `input`.
        state: name -> tensor, the very tensors that were given.
        dropped: the authors' names of tensors that have no place in it.
    """

    network: dict[str, Any]
    state: dict[str, Tensor]
    dropped: tuple[str, ...] = ()


def network(weights: Mapping[str, Tensor]) -> Converted:
    """Rename a DeepLabV3 or PSPNet of CIRKD, CIRKDV2 or HWD; architecture and widths are read from it.

    Args:
        weights: under the authors' names, with or without DistributedDataParallel's `module.`.

    Raises:
        CheckpointError: a tensor is missing or has no place; lists the authors' names.
    """
    given = without_module(weights)
    if not any(key.startswith("pretrained.") for key in given):
        raise CheckpointError(
            "no key begins with `pretrained.`: this is no segmentation network of CIRKD or HWD",
            hint="ImageNet weights want --backbone-only; the PSPNet of SKD, IFVD and CWD is another network",
        )
    name = _backbone_name(given, "pretrained.")
    psp = any(key.startswith("head.psp.") for key in given)
    aux = any(key.startswith("auxlayer.") for key in given)
    head, classifier = ("pspnet", "head.classifier") if psp else ("deeplabv3", "head.block.4")
    stem = "pretrained.net." if name == MOBILENET else "pretrained."
    rows = [*_backbone(name, stem, "backbone."), *(_pspnet() if psp else _deeplabv3())]
    rows += [*block_rows("head.block", "head.block"), (classifier, "head.classifier", BIASED)]
    if aux:
        rows += block_rows("auxlayer.block", "aux_head.block")
        rows.append(("auxlayer.block.4", "aux_head.classifier", BIASED))
    state = renamed(given, rows, what=f"{head} on {name} of CIRKD or HWD")
    facts = {
        "backbone": name,
        "backbone_options": {} if name == MOBILENET else dict(DEEP_STEM),
        "output_stride": 8,
        "head": head,
        "head_channels": channels(given, "head.block.0.weight"),
        "aux": aux,
        "classes": channels(given, f"{classifier}.weight"),
        "input": dict(INPUT),
    }
    return Converted(facts, state)


def backbone(weights: Mapping[str, Tensor]) -> Converted:
    """Rename ImageNet weights such as `resnet18-imagenet.pth` to timm's names; the classifier is dropped.

    Raises:
        CheckpointError: a tensor is missing or has no place; lists the authors' names.
    """
    given = without_module(weights)
    if any(key.startswith("pretrained.") for key in given):
        raise CheckpointError(
            "this is a whole segmentation network, not a backbone's ImageNet weights",
            hint="import it without --backbone-only",
        )
    name = _backbone_name(given, "")
    ends = CLASSIFIERS if name == MOBILENET else CLASSIFIERS[:1]
    dropped = tuple(key for key in given if key.startswith(ends))
    kept = {key: tensor for key, tensor in given.items() if key not in dropped}
    state = renamed(kept, _backbone(name, "", ""), what=f"{name} of CIRKD or HWD", counters=False)
    options = {} if name == MOBILENET else dict(DEEP_STEM)
    facts = {"backbone": name, "backbone_options": options, "input": dict(INPUT)}
    return Converted(facts, state, dropped)


def renamed(
    weights: Mapping[str, Tensor],
    rows: Iterable[tuple[str, str, tuple[str, ...]]],
    *,
    what: str,
    counters: bool = True,
) -> dict[str, Tensor]:
    """Rename every tensor by a table that must match exactly.

    Args:
        rows: (their module, our module, the tensors that it has).
        what: the network, as text for people.
        counters: whether `num_batches_tracked` must be there; PyTorch before 0.4.1 did not write it, and only
            momentum=None would read it.

    Raises:
        CheckpointError: the table or the weights have something that the other lacks.
    """
    ours = {f"{a}.{leaf}": f"{b}.{leaf}" for a, b, leaves in rows for leaf in leaves}
    missing = [key for key in ours if key not in weights and (counters or not key.endswith(NORM[-1]))]
    unexpected = [key for key in weights if key not in ours]
    problems = []
    for kind, keys in (("missing", missing), ("unexpected", unexpected)):
        problems += [f"{kind} {key}" for key in keys[:8]]
        problems += [f"{kind} {len(keys) - 8} more"] if len(keys) > 8 else []
    if problems:
        raise CheckpointError(f"not a {what}:\n  " + "\n  ".join(problems))
    return {ours[key]: tensor for key, tensor in weights.items()}


def without_module(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the `module.` that DistributedDataParallel puts before every name."""
    prefix = "module." if weights and all(key.startswith("module.") for key in weights) else ""
    return {key.removeprefix(prefix): tensor for key, tensor in weights.items()}


def channels(weights: Mapping[str, Tensor], key: str) -> int:
    """The output channels of a convolution.

    Raises:
        CheckpointError: this is no convolution's weight.
    """
    shape = tuple(weights[key].shape)
    if len(shape) != 4:
        raise CheckpointError(f"{key} is {shape}: no weight of a convolution")
    return shape[0]


def resnet_blocks(name: str, theirs: str, ours: str) -> Rows:
    """The four layers of a ResNet: in them CIRKD, torchvision and timm use the same names."""
    depth = 2 if name == "resnet18" else 3
    for layer, blocks in enumerate(RESNETS[name], 1):
        for block in range(blocks):
            for i in range(1, depth + 1):
                yield from _pair(theirs, ours, f"layer{layer}.{block}.", f"conv{i}", f"bn{i}")
            if block == 0:
                # In layer1 too: the deep stem ends in 128 channels, a bottleneck in 256.
                yield from _pair(theirs, ours, f"layer{layer}.0.", "downsample.0", "downsample.1")


def _pair(theirs: str, ours: str, place: str, conv: str, norm: str) -> Rows:
    yield f"{theirs}{place}{conv}", f"{ours}{place}{conv}", WEIGHT
    yield f"{theirs}{place}{norm}", f"{ours}{place}{norm}", NORM


def block_rows(theirs: str, ours: str, *, first: int = 0, our_first: int = 0) -> Rows:
    """A convolution and its batch norm: two neighbours in a Sequential, here and there."""
    yield f"{theirs}.{first}", f"{ours}.{our_first}", WEIGHT
    yield f"{theirs}.{first + 1}", f"{ours}.{our_first + 1}", NORM


def _backbone_name(weights: Mapping[str, Tensor], prefix: str) -> str:
    """The likeliest one; whether everything fits, the table says."""
    if any(key.startswith((f"{prefix}net.", f"{prefix}features.")) for key in weights):
        return MOBILENET
    if not any(key.startswith(f"{prefix}layer1.0.conv3.") for key in weights):
        return "resnet18"
    # The seventh block of the third layer tells the two deep ones apart.
    return "resnet101" if any(key.startswith(f"{prefix}layer3.6.") for key in weights) else "resnet50"


def _backbone(name: str, theirs: str, ours: str) -> Rows:
    return _mobilenet(theirs, ours) if name == MOBILENET else _resnet(name, theirs, ours)


def _resnet(name: str, theirs: str, ours: str) -> Rows:
    """The authors number the stem's convolutions; timm has them in a Sequential, but for the last norm."""
    for i, (conv, norm) in enumerate((("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1")), 1):
        yield f"{theirs}conv{i}", f"{ours}{conv}", WEIGHT
        yield f"{theirs}bn{i}", f"{ours}{norm}", NORM
    yield from resnet_blocks(name, theirs, ours)


def _mobilenet(theirs: str, ours: str) -> Rows:
    """The authors count blocks through, `features.1` to `features.17`; timm counts them by stage."""
    yield f"{theirs}features.0.0", f"{ours}conv_stem", WEIGHT
    yield f"{theirs}features.0.1", f"{ours}bn1", NORM
    places = [f"{stage}.{block}" for stage, n in enumerate(MOBILE_STAGES) for block in range(n)]
    for feature, place in enumerate(places, 1):
        for layer, name in (MOBILE_FIRST if feature == 1 else MOBILE_LAYERS).items():
            leaves = WEIGHT if name.startswith("conv") else NORM
            yield f"{theirs}features.{feature}.conv.{layer}", f"{ours}blocks.{place}.{name}", leaves


def _deeplabv3() -> Rows:
    yield from block_rows("head.aspp.b0", "head.branches.0")
    for i in (1, 2, 3):
        yield from block_rows(f"head.aspp.b{i}.block", f"head.branches.{i}")
    yield from block_rows("head.aspp.b4.gap", "head.pool", first=1, our_first=1)
    yield from block_rows("head.aspp.project", "head.project")


def _pspnet() -> Rows:
    for i in range(4):
        yield from block_rows(f"head.psp.conv{i + 1}", f"head.bins.{i}", our_first=1)
