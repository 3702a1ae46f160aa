"""ImageNet weights for a backbone: timm's download, or a classifier's state dict that the caller has read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from hwdkit.errors import CheckpointError, EnvironmentFailure, RecipeError

log = logging.getLogger(__name__)


def load_backbone(backbone: nn.Module, weights: Mapping[str, Tensor], *, known: frozenset[str]) -> None:
    """Copy a classifier's weights into a feature extractor, in the extractor's dtype.

    Args:
        backbone: what `create_backbone` returns.
        weights: under timm's key names; classifier entries may be there and are not used.
        known: every key of the whole classifier. A key outside it means that the file holds another network,
            such as a ResNet-101 whose first blocks would fit a ResNet-50.

    Raises:
        CheckpointError: keys are missing, unknown, or of another shape; or values are not finite.
    """
    target = backbone.state_dict()
    source = {
        key: next((weights[name] for name in _classifier_names(key) if name in weights), None)
        for key in target
    }
    # A counter that only momentum=None would read; files converted from other frameworks lack it.
    missing = [k for k, v in source.items() if v is None and not k.endswith("num_batches_tracked")]
    unknown = sorted(set(weights) - known)
    shapes = [
        f"{k} is {tuple(v.shape)}, the backbone has {tuple(target[k].shape)}"
        for k, v in source.items()
        if v is not None and v.shape != target[k].shape
    ]
    problems = [
        f"{title}: {first_few(keys)}"
        for title, keys in (("missing", missing), ("unknown", unknown), ("other shape", shapes))
        if keys
    ]
    if problems:
        raise CheckpointError(
            "the pretrained weights are not this backbone's\n  " + "\n  ".join(problems),
            hint="it must be the state dict of the named timm model, built with the same backbone_options",
        )
    backbone.load_state_dict(
        {k: target[k] if v is None else _finite(k, v).to(target[k].dtype) for k, v in source.items()}
    )


def _finite(key: str, value: Tensor) -> Tensor:
    """The tensor itself, or what is left of a variance that was too large for a float16 file.

    Variances of a first layer on images of 0 to 255 exceed float16's 65504; saved, they are infinite, and
    training would keep them so. The largest float16 is the nearest to them, and training re-estimates them.

    Raises:
        CheckpointError: other values that are not finite.
    """
    strange = value[~value.isfinite()]
    if not len(strange):
        return value
    if value.dtype == torch.float16 and key.endswith("running_var") and bool((strange > 0).all()):
        largest = torch.finfo(torch.float16).max
        log.warning(
            "pretrained weights: %s has %d value(s) beyond float16's range, taken to be %g",
            key,
            len(strange),
            largest,
        )
        return value.clamp(max=largest)
    raise CheckpointError(
        f"the pretrained weights are damaged: {len(strange)} value(s) of {key} are not finite",
        hint="save them in float32" if value.dtype == torch.float16 else "",
    )


def download_backbone(name: str, keywords: Mapping[str, Any]) -> nn.Module:
    """Build a backbone with the weights that timm publishes for it.

    Raises:
        RecipeError: there are none, or they do not fit the keywords.
        EnvironmentFailure: they could not be downloaded.
    """
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


def classifier_keys(name: str, keywords: Mapping[str, Any]) -> frozenset[str]:
    """The key names of the whole classifier that a backbone belongs to."""
    with torch.device("meta"):
        return frozenset(timm.create_model(name, **keywords).state_dict())


def _classifier_names(key: str) -> Iterator[str]:
    """Give what a key of timm's feature extractor may be called in the classifier, likeliest first.

    An extractor flattens the first level, `stages.0.blocks` becomes `stages_0.blocks` and `features.norm0`
    `features_norm0`, or keeps the whole network below `model.` or `body.`.
    """
    yield key
    first, _, rest = key.partition(".")
    for i, letter in enumerate(first):
        if letter == "_":
            yield f"{first[:i]}.{first[i + 1 :]}.{rest}"
    if first in ("model", "body"):
        yield rest


def first_few(names: list[str], limit: int = 6) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
