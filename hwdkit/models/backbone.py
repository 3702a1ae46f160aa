"""timm as the source of every backbone: ask whether it can give one, build it, run it.

Its ImageNet weights are in pretrained.py.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from hwdkit.errors import RecipeError
from hwdkit.models.contract import InputContract
from hwdkit.models.pretrained import classifier_keys, download_backbone, first_few, load_backbone

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
    "resnet*, mobilenetv2_*, mobilenetv3_*, mobilenetv4_conv_*, mobileone_*, mobilevit*, efficientnet_*, "
    "tf_efficientnet_lite*, convnext*, regnet*"
)

UNDILATED = 32
"""The one output stride of a backbone that cannot be dilated: its deepest map has it by nature."""

UNDILATABLE = "pvt_v2_*, swin*, twins_*, mvitv2_*, fastvit_*, efficientvit_b*, densenet*, hrnet_*"

ANY_SIZE = {"strict_img_size": False, "always_partition": True}
"""What a Swin transformer needs to take images of every size.

`always_partition` shifts the windows of the last stage too, as Swin's authors do for segmentation. timm does
not: at the nominal image size one window covers that whole map.
"""

SIZES = {1: (65, 97), 4: (68, 100), 32: (64, 96)}
"""What an image's sides may have to be multiples of -> (H, W) that are, and of nothing larger than that."""


_ANSWERS: dict[tuple[str, str, int], int | Exception] = {}
"""Answers of `_side_multiple` in this process: asking costs as much as building a small network."""


class _Construction(NamedTuple):
    """What builds a backbone besides the user's options, and what its images' sides must be multiples of."""

    keywords: dict[str, Any]
    side_multiple: int


def create_backbone(
    name: str,
    options: Mapping[str, Any],
    output_stride: int,
    *,
    pretrained: bool | Mapping[str, Tensor] = False,
) -> nn.Module:
    """Build a timm feature extractor, dilated where its stride asks for it, with or without ImageNet weights.

    Args:
        name: a timm model name, with or without a weight tag ("resnet50.a1_in1k").
        options: passed to `timm.create_model`, for example `stem_type: deep, stem_width: 64`.
        output_stride: 8, 16 or 32; the deepest map is that much smaller than the image. Transformers and
            other networks that timm cannot dilate have 32 only.
        pretrained: True lets timm download the weights; a mapping is a timm classifier's state dict.

    Returns:
        timm's module, to be called by `feature_maps`; it has timm's `feature_info`.

    Raises:
        RecipeError: timm has no such model, cannot build it with these options or this output stride, or it
            takes images of certain sizes only.
        CheckpointError: the state dict does not belong to this backbone.
        EnvironmentFailure: timm could not download the weights.
    """
    construction = _check(name, options, output_stride)
    keywords = {**construction.keywords, **options}
    backbone: nn.Module
    if pretrained is True:
        backbone = download_backbone(name, {**keywords, "features_only": True})
    else:
        backbone = timm.create_model(name, pretrained=False, features_only=True, **keywords)
    if isinstance(pretrained, Mapping):
        load_backbone(backbone, pretrained, known=classifier_keys(name, keywords))
    backbone.side_multiple = construction.side_multiple  # type: ignore[assignment]
    return backbone


def feature_maps(backbone: nn.Module, pixels: Tensor) -> list[Tensor]:
    """Run a backbone on images of any size.

    An image whose sides the backbone cannot take is padded at the bottom and the right with zeros, which is
    the mean colour, and the maps are cut back.

    Args:
        backbone: from `create_backbone`.
        pixels: (N, 3, H, W), normalised.

    Returns:
        Its last four maps, shallow to deep, (N, C, h, w) also where timm's are channels-last.
    """
    height, width = pixels.shape[-2:]
    multiple: int = getattr(backbone, "side_multiple", 1)
    padding = (0, -width % multiple, 0, -height % multiple)
    maps: list[Tensor] = backbone(F.pad(pixels, padding) if any(padding) else pixels)[-STAGES:]
    if getattr(backbone, "output_fmt", "NCHW") == "NHWC":
        maps = [map_.permute(0, 3, 1, 2) for map_ in maps]
    if any(padding):
        strides = backbone.feature_info.reduction()[-STAGES:]  # type: ignore[union-attr, operator]
        maps = [m[..., : -(-height // s), : -(-width // s)] for m, s in zip(maps, strides, strict=True)]
    return maps


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


def _check(name: str, options: Mapping[str, Any], output_stride: int) -> _Construction:
    """Return how timm can build this, or raise a RecipeError; costs no memory, and no download is wasted."""
    if not _exists(name):
        raise _unknown(name)
    taken = sorted(RESERVED & set(options))
    if taken:
        raise RecipeError(f"backbone_options cannot set {', '.join(taken)}: hwdkit sets it")
    answer = _construction(name, options, output_stride)
    if isinstance(answer, _Construction):
        return answer
    if options and isinstance(_construction(name, {}, output_stride), _Construction):
        raise RecipeError(
            f"timm cannot build {name} with backbone_options {dict(options)}: {answer}",
            hint="`backbone_options: null` drops those that a base recipe sets",
        ) from answer
    undilated = _construction(name, {}, UNDILATED)
    if output_stride != UNDILATED and isinstance(undilated, _Construction):
        raise RecipeError(
            f"backbone {name} has no output_stride {output_stride}: "
            f"its own stride is {UNDILATED}, and timm cannot dilate it to {output_stride}",
            hint=f"set output_stride: {UNDILATED}, or take a family that can be dilated: {DILATABLE}",
        ) from answer
    raise RecipeError(
        f"backbone {name} has no output_stride {output_stride}: {undilated}",
        hint=f"families that can be dilated: {DILATABLE}; that work at stride {UNDILATED}: {UNDILATABLE}",
    ) from answer


def _construction(name: str, options: Mapping[str, Any], output_stride: int) -> _Construction | Exception:
    """Try the ways to ask timm for this stride; return the first that works, or why none does."""
    ways: list[dict[str, Any]] = [{"output_stride": output_stride}]
    if output_stride == UNDILATED:
        ways += [ANY_SIZE, {}]
    errors = []
    for keywords in ways:
        answer = _side_multiple(name, {**keywords, **options}, output_stride)
        if isinstance(answer, int):
            return _Construction(keywords, answer)
        errors.append((keywords, answer))
    # That a family does not know hwdkit's own keyword is no news.
    telling = (error for keywords, error in errors if not any(word in str(error) for word in keywords))
    return next(telling, errors[0][1])


def _side_multiple(name: str, keywords: Mapping[str, Any], output_stride: int) -> int | Exception:
    """Return what the sides of an image must be multiples of, or why this is no backbone of this stride."""
    asked = (name, repr(sorted(keywords.items())), output_stride)
    if asked not in _ANSWERS:
        _ANSWERS[asked] = _ask(name, keywords, output_stride)
    return _ANSWERS[asked]


def _ask(name: str, keywords: Mapping[str, Any], output_stride: int) -> int | Exception:
    try:
        with torch.device("meta"), torch.no_grad():
            backbone = timm.create_model(name, features_only=True, **keywords).eval()
            reduction = backbone.feature_info.reduction()[-1]
            if reduction != output_stride:
                return ValueError(f"its deepest map has stride {reduction}")
            for multiple, size in SIZES.items():
                refusal = _refusal(backbone, size)
                if refusal is None:
                    return multiple
    except Exception as error:  # "cannot" is a TypeError, RuntimeError, bare AssertionError and more
        return error
    return ValueError(f"it takes images of certain sizes only, not {size[0]}x{size[1]} pixels ({refusal})")


def _refusal(backbone: nn.Module, size: tuple[int, int]) -> str | None:
    """Return why a backbone on the meta device cannot take images of this size; None if it can."""
    try:
        channels = [m.shape[1] for m in feature_maps(backbone, torch.empty(1, 3, *size))]
    except Exception as error:
        return (str(error) or type(error).__name__).splitlines()[0]
    return None if channels == list(stage_channels(backbone).values()) else f"maps of {channels} channels"


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
        return RecipeError(f"timm has no weights {name!r}", hint=f"it has: {first_few(known)}")
    close = difflib.get_close_matches(name, timm.list_models(), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists what there is"
    return RecipeError(f"timm has no backbone {name!r}", hint=hint)
