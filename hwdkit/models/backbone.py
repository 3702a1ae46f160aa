"""timm as the source of every backbone: build one, ask what it gives, load classifier weights into it.

No file is read here: `pretrained` is either timm's own download or a state dict that the caller has read.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from hwdkit.errors import CheckpointError, EnvironmentFailure, RecipeError
from hwdkit.models.contract import InputContract

STAGES = 4
"""A backbone's last four maps are its taps; the deepest is always "stage4"."""

RESERVED = frozenset(
    {
        "cache_dir",
        "checkpoint_path",
        "features_only",
        "in_chans",
        "model_name",
        "num_classes",
        "out_indices",
        "output_stride",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
    }
)
DILATABLE = (
    "resnet*, mobilenetv2_*, mobilenetv3_*, efficientnet_*, tf_efficientnet_lite*, convnext_*, regnet*"
)


def create_backbone(
    name: str,
    options: Mapping[str, Any],
    output_stride: int,
    *,
    pretrained: bool | Mapping[str, Tensor] = False,
) -> nn.Module:
    """Build a dilated timm feature extractor, with or without ImageNet weights.

    Args:
        name: a timm model name, with or without a weight tag ("resnet50.a1_in1k").
        options: passed to `timm.create_model`, for example `stem_type: deep, stem_width: 64`.
        output_stride: 8, 16 or 32; the deepest map is that much smaller than the image.
        pretrained: True lets timm download the weights; a mapping is a timm classifier's state dict.

    Returns:
        A module from (N, 3, H, W) to a list of maps, shallow to deep; it has timm's `feature_info`.

    Raises:
        RecipeError: timm has no such model, or cannot build it with these options or this output stride.
        CheckpointError: the state dict does not belong to this backbone.
        EnvironmentFailure: timm could not download the weights.
    """
    _check(name, options, output_stride)
    keywords = {**options, "features_only": True, "output_stride": output_stride}
    if pretrained is True:
        return _download(name, keywords)
    backbone: nn.Module = timm.create_model(name, pretrained=False, **keywords)
    if pretrained is not False:
        load_backbone(backbone, pretrained, known=_classifier_keys(name, options, output_stride))
    return backbone


def stage_channels(backbone: nn.Module) -> dict[str, int]:
    """Return the channels of each tap, shallow to deep: {"stage1": 64, ..., "stage4": 512} for ResNet-18."""
    channels: list[int] = backbone.feature_info.channels()[-STAGES:]  # type: ignore[union-attr, operator]
    return {f"stage{STAGES - len(channels) + 1 + i}": c for i, c in enumerate(channels)}


def default_contract(name: str, *, align_corners: bool = True) -> InputContract:
    """Return how timm's weights of this backbone want their pixels: RGB in 0..1, the model's mean and std."""
    if not _exists(name):
        raise _unknown(name)
    cfg = get_pretrained_cfg(name)
    return InputContract("rgb", 1, tuple(cfg.mean), tuple(cfg.std), align_corners)


def load_backbone(backbone: nn.Module, weights: Mapping[str, Tensor], *, known: frozenset[str]) -> None:
    """Copy a classifier's weights into a feature extractor, in the extractor's dtype.

    Args:
        backbone: what `create_backbone` returns.
        weights: under timm's key names; classifier entries may be there and are not used.
        known: every key of the whole classifier. A key outside it means that the file holds another network,
            such as a ResNet-101 whose first blocks would fit a ResNet-50.

    Raises:
        CheckpointError: keys are missing, unknown, or of another shape.
    """
    target = backbone.state_dict()
    source = {key: weights.get(key, weights.get(_unflattened(key))) for key in target}
    # A counter that only momentum=None would read; files converted from other frameworks lack it.
    missing = [k for k, v in source.items() if v is None and not k.endswith("num_batches_tracked")]
    unknown = sorted(set(weights) - known)
    shapes = [
        f"{k} is {tuple(v.shape)}, the backbone has {tuple(target[k].shape)}"
        for k, v in source.items()
        if v is not None and v.shape != target[k].shape
    ]
    problems = [
        f"{title}: {_some(keys)}"
        for title, keys in (("missing", missing), ("unknown", unknown), ("other shape", shapes))
        if keys
    ]
    if problems:
        raise CheckpointError(
            "the pretrained weights are not this backbone's\n  " + "\n  ".join(problems),
            hint="it must be the state dict of the named timm model, built with the same backbone_options",
        )
    backbone.load_state_dict(
        {k: target[k] if v is None else v.to(target[k].dtype) for k, v in source.items()}
    )


def _check(name: str, options: Mapping[str, Any], output_stride: int) -> None:
    """Raise a RecipeError unless timm can build this; costs no memory, and no download is wasted."""
    if not _exists(name):
        raise _unknown(name)
    taken = sorted(RESERVED & set(options))
    if taken:
        raise RecipeError(f"backbone_options cannot set {', '.join(taken)}: hwdkit sets it")
    error = _meta_error(name, options, output_stride)
    if error is None:
        return
    if options and _meta_error(name, {}, output_stride) is None:
        raise RecipeError(
            f"timm cannot build {name} with backbone_options {dict(options)}: {error}"
        ) from error
    raise RecipeError(
        f"backbone {name} has no output_stride {output_stride}",
        hint=f"families that can be dilated: {DILATABLE}",
    ) from error


def _meta_error(name: str, options: Mapping[str, Any], output_stride: int) -> Exception | None:
    try:
        with torch.device("meta"):
            backbone = timm.create_model(name, features_only=True, output_stride=output_stride, **options)
        reduction = backbone.feature_info.reduction()[-1]
        if reduction != output_stride:
            return ValueError(f"its deepest map has stride {reduction}")
    except (
        Exception
    ) as error:  # timm says "cannot" with TypeError, RuntimeError, bare AssertionError and more
        return error
    return None


def _exists(name: str) -> bool:
    if not timm.is_model(name):  # looks at the part before the weight tag only
        return False
    try:
        return get_pretrained_cfg(name) is not None
    except RuntimeError:
        return False


def _unknown(name: str) -> RecipeError:
    base = name.split(".")[0]
    if timm.is_model(base):
        known = sorted(timm.list_models(f"{base}.*", pretrained=True))
        return RecipeError(f"timm has no weights {name!r}", hint=f"it has: {_some(known)}")
    close = difflib.get_close_matches(name, timm.list_models(), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists what there is"
    return RecipeError(f"timm has no backbone {name!r}", hint=hint)


def _download(name: str, keywords: Mapping[str, Any]) -> nn.Module:
    if not get_pretrained_cfg(name).has_weights:
        raise RecipeError(
            f"timm has no ImageNet weights for {name}", hint="set `pretrained:` to a local file"
        )
    try:
        backbone: nn.Module = timm.create_model(name, pretrained=True, **keywords)
    except RuntimeError as error:  # the network could be built (checked before): the weights do not fit it
        raise RecipeError(
            f"timm's ImageNet weights for {name} do not fit its backbone_options: {str(error)[:300]}",
            hint="set `pretrained:` to a local file made with these options, or to false",
        ) from error
    except Exception as error:  # urllib, requests, httpx and huggingface_hub share no base class
        raise EnvironmentFailure(
            f"the ImageNet weights of {name} could not be downloaded: {str(error)[:300]}",
            hint="set `pretrained:` to a local .safetensors or .pth file",
        ) from error
    return backbone


def _classifier_keys(name: str, options: Mapping[str, Any], output_stride: int) -> frozenset[str]:
    with torch.device("meta"):
        return frozenset(timm.create_model(name, output_stride=output_stride, **options).state_dict())


def _unflattened(key: str) -> str:
    """Undo timm's feature extractor naming: `stages_0.blocks...` is the classifier's `stages.0.blocks...`."""
    return re.sub(r"^([A-Za-z_]+)_(\d+)\.", r"\1.\2.", key)


def _some(names: list[str], limit: int = 6) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
