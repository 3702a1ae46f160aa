"""PSPNet and DeepLabV3 of OpenMMLab's mmseg, 0.x and 1.x, under hwdkit's names.

State dicts in, state dicts out; what a file says of itself besides is read in mmseg_config.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hwdkit.checkpoints.mmseg_config import INPUT, class_names, facts
from hwdkit.checkpoints.renaming import (
    BIASED,
    NORM,
    STEM_MODULES,
    WEIGHT,
    Converted,
    Rows,
    described,
    has,
    plain_stem,
    renamed,
    resnet_blocks,
    resnet_name,
    without_module,
)
from hwdkit.errors import CheckpointError

DEEP_STEM = {"stem_type": "deep", "stem_width": 32}
SUPPORTED = "PSPNet (PSPHead) and DeepLabV3 (ASPPHead) on ResNetV1c or ResNet"

CLEAN = (
    "mmseg's training checkpoints hold objects besides tensors. In your mmseg environment, with a file that "
    "you trust, type in Python:\n"
    "  import torch; d = torch.load({file!r}, map_location='cpu', weights_only=False)\n"
    "  torch.save({{'state_dict': d['state_dict'], 'meta': "
    "{{k: d['meta'].get(k) for k in ('cfg', 'dataset_meta')}}}}, 'clean.pth')"
)
"""What mends a file that `weights_only` refuses: mmengine pickles its message hub along."""


def network(weights: Mapping[str, Tensor], beside: Mapping[str, Any]) -> Converted:
    """Rename a PSPNet or DeepLabV3 on a ResNet; depth and widths are read from the tensors.

    Args:
        weights: the `state_dict` of the file.
        beside: what else is in the file.

    Raises:
        CheckpointError: another network, or a tensor is missing or has no place; lists mmseg's names.
    """
    weights = without_module(weights)
    psp = _is_psp(weights)
    name, v1c = resnet_name(weights, "backbone."), has(weights, "backbone.stem.")
    stride, contract, assumed = facts(beside, psp=psp)
    if name == "resnet18" and stride != 32:
        raise CheckpointError(
            f"mmseg's ResNet-18 at output stride {stride} is another network than timm's: it "
            "dilates the first 3x3 convolution of a block only, timm both",
            hint="ResNet-50 and ResNet-101 are the same in both; of mmseg's ResNet-18 the ImageNet weights "
            "can be imported, with --backbone-only",
        )
    rows = [*_backbone(name, "backbone.", "backbone.", v1c=v1c), *(_psp_head() if psp else _aspp_head())]
    rows += _conv_module("decode_head.bottleneck", "head.block")
    rows.append(("decode_head.conv_seg", "head.classifier", BIASED))
    if has(weights, "auxiliary_head."):
        rows += _conv_module("auxiliary_head.convs.0", "aux_head.block")
        rows.append(("auxiliary_head.conv_seg", "aux_head.classifier", BIASED))
    head = "PSPNet (PSPHead)" if psp else "DeepLabV3 (ASPPHead)"
    state = renamed(weights, rows, what=f"{head} on {_title(name, v1c=v1c)} of mmseg")
    spec = described(
        state,
        backbone=name,
        head="pspnet" if psp else "aspp",
        input=contract,
        options=DEEP_STEM if v1c else {},
        output_stride=stride,
    )
    return Converted(spec, state, class_names=class_names(beside), assumed=assumed)


def backbone(weights: Mapping[str, Tensor]) -> Converted:
    """Rename the ImageNet weights of `open-mmlab://resnet*_v1c` to timm's names; the classifier is dropped.

    Raises:
        CheckpointError: a tensor is missing or has no place; lists mmseg's names.
    """
    weights = without_module(weights)
    if has(weights, "decode_head."):
        raise CheckpointError(
            "this is a whole segmentation network, not a backbone's ImageNet weights",
            hint="import it without --backbone-only",
        )
    # mmpretrain has the ResNet below `backbone.` and the classifier in `head.`; older files have neither.
    prefix = "backbone." if has(weights, "backbone.") else ""
    name, v1c = resnet_name(weights, prefix), has(weights, f"{prefix}stem.")
    dropped = tuple(key for key in weights if key.startswith(("fc.", "head.")))
    kept = {key: tensor for key, tensor in weights.items() if key not in dropped}
    rows = _backbone(name, prefix, "", v1c=v1c)
    state = renamed(kept, rows, what=f"{_title(name, v1c=v1c)} of mmseg", counters=False)
    options = dict(DEEP_STEM) if v1c else {}
    spec = {"backbone": name, "backbone_options": options, "input": dict(INPUT)}
    return Converted(spec, state, dropped)


def _is_psp(weights: Mapping[str, Tensor]) -> bool:
    """Tell the two heads apart, and both from the rest of mmseg."""
    if not has(weights, "decode_head."):
        raise CheckpointError(
            "no key begins with `decode_head.`: this is no segmentation network of mmseg",
            hint="ImageNet weights need --backbone-only",
        )
    parts = {key.split(".")[1] for key in weights if key.startswith("decode_head.")}
    psp = "psp_modules" in parts
    others = parts - ({"psp_modules"} if psp else {"aspp_modules", "image_pool"}) - {"bottleneck", "conv_seg"}
    if others or not parts & {"psp_modules", "aspp_modules"}:
        raise CheckpointError(
            f"its head is another one (decode_head has {', '.join(sorted(others or parts)[:6])})",
            hint=f"importable: {SUPPORTED}",
        )
    if not has(weights, "backbone.layer1.0.conv1."):
        first = next((key for key in weights if key.startswith("backbone.")), "none")
        raise CheckpointError(
            f"its backbone is no ResNet of mmseg (first of its keys: {first})",
            hint=f"importable: {SUPPORTED}",
        )
    return psp


def _title(name: str, *, v1c: bool) -> str:
    return f"{'ResNetV1c' if v1c else 'ResNet'}-{name.removeprefix('resnet')}"


def _backbone(name: str, source: str, target: str, *, v1c: bool) -> Rows:
    if v1c:
        for i, (conv, norm) in enumerate(STEM_MODULES):
            yield f"{source}stem.{3 * i}", f"{target}{conv}", WEIGHT
            yield f"{source}stem.{3 * i + 1}", f"{target}{norm}", NORM
    else:
        yield from plain_stem(source, target)
    yield from resnet_blocks(name, source, target, stem_channels=64)


def _conv_module(source: str, target: str, *, target_first: int = 0) -> Rows:
    """OpenMMLab names the convolution and the norm of a block; here they are neighbours in a Sequential."""
    yield f"{source}.conv", f"{target}.{target_first}", WEIGHT
    yield f"{source}.bn", f"{target}.{target_first + 1}", NORM


def _psp_head() -> Rows:
    for i in range(4):
        yield from _conv_module(f"decode_head.psp_modules.{i}.1", f"head.bins.{i}", target_first=1)


def _aspp_head() -> Rows:
    yield from _conv_module("decode_head.image_pool.1", "head.pool", target_first=1)
    for i in range(4):
        yield from _conv_module(f"decode_head.aspp_modules.{i}", f"head.branches.{i}")
