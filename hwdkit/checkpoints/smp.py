"""DeepLabV3 of segmentation_models_pytorch (smp) on a timm encoder, under hwdkit's names.

Only `tu-` encoders: smp's own ResNets dilate every 3x3 convolution of a stage, timm's all but the first
block's, and the weights of the one are none for the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hwdkit.checkpoints import foreign_json
from hwdkit.checkpoints.renaming import (
    BIASED,
    NORM,
    WEIGHT,
    Converted,
    Rows,
    block_rows,
    described,
    has,
    renamed,
    without_module,
)
from hwdkit.errors import CheckpointError

ENCODER = "encoder.model."
SUPPORTED = "DeepLabV3 on a timm encoder (encoder_name 'tu-...')"

OF_DEEPLABV3 = {
    "activation",
    "aux_params",
    "classes",
    "decoder_aspp_dropout",
    "decoder_aspp_separable",
    "decoder_atrous_rates",
    "decoder_channels",
    "encoder_depth",
    "encoder_name",
    "encoder_output_stride",
    "encoder_weights",
    "in_channels",
    "upsampling",
}
"""smp's own settings in a config; whatever else is there went to timm."""


DEFAULTS: dict[str, Any] = {"decoder_atrous_rates": [12, 24, 36]}
"""What smp takes at every output stride, where a network of that stride has others."""


def read_config(path: Path) -> dict[str, Any] | None:
    """Read the config.json that `save_pretrained` wrote beside the weights; None if there is none of smp's.

    Raises:
        CheckpointError: it is no JSON object.
    """
    beside = path.with_name("config.json")
    if not beside.is_file():
        return None
    try:
        config = foreign_json.loads(beside.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot be read: {error}", where=str(beside)) from error
    if not isinstance(config, dict):
        raise CheckpointError("is no JSON object", where=str(beside))
    return config if "encoder_name" in config else None


def network(
    weights: Mapping[str, Tensor], config: Mapping[str, Any] | None, backbone: str | None
) -> Converted:
    """Rename a DeepLabV3; widths are read from the tensors, what they cannot say from the config.

    The backbone's names are timm's on both sides; that they are complete, the loading of them checks.

    Args:
        weights: a state dict of smp.
        config: what `save_pretrained` wrote beside it; None: smp's defaults are assumed.
        backbone: a timm model name, with or without smp's `tu-`; needed where there is no config.

    Raises:
        CheckpointError: another network, or a tensor is missing or has no place; lists smp's names.
    """
    weights = without_module(weights)
    _require_deeplabv3(weights)
    name, stride, options = _facts(config, backbone)
    encoder = {key: tensor for key, tensor in weights.items() if key.startswith(ENCODER)}
    dropped = tuple(key for key in weights if key.startswith("classification_head."))
    rest = {key: tensor for key, tensor in weights.items() if key not in encoder and key not in dropped}
    state = {f"backbone.{key.removeprefix(ENCODER)}": tensor for key, tensor in encoder.items()}
    state |= renamed(rest, _rows(), what="DeepLabV3 of smp")
    # timm's input of the encoder; align_corners true, as smp resizes the logits
    facts = described(
        state, backbone=name, head="deeplabv3", input=None, options=options, output_stride=stride
    )
    assumed = () if config else ("output stride 8", "atrous rates 12, 24, 36")
    return Converted(facts, state, dropped, assumed=assumed)


def _require_deeplabv3(weights: Mapping[str, Tensor]) -> None:
    if not has(weights, "segmentation_head."):
        raise CheckpointError("no key begins with `segmentation_head.`: this is no network of smp")
    parts = {key.split(".")[1] for key in weights if key.startswith("decoder.")}
    others = parts - {"aspp", "conv", "bn"}
    if others or "conv" not in parts:  # DeepLabV3Plus has block1, block2 and its ASPP in a Sequential
        raise CheckpointError(
            f"its decoder is another one (decoder has {', '.join(sorted(others or parts)[:6])})",
            hint=f"importable from smp: {SUPPORTED}",
        )
    if not has(weights, ENCODER):
        raise CheckpointError(
            "its encoder is one of smp's own, which dilates other convolutions than timm's: another network",
            hint=f"importable from smp: {SUPPORTED}",
        )


def _facts(config: Mapping[str, Any] | None, backbone: str | None) -> tuple[str, int, dict[str, Any]]:
    """The timm name, the output stride, and the other options of timm."""
    named = backbone.removeprefix("tu-") if backbone else None
    if config is None:
        if named is None:
            raise CheckpointError(
                "there is no config.json of smp beside it, so its encoder is not known",
                hint="name it: --backbone resnet50 (what follows `tu-` in encoder_name)",
            )
        return named, 8, {}
    encoder, stride = config["encoder_name"], config.get("encoder_output_stride", 8)
    name = encoder.removeprefix("tu-") if isinstance(encoder, str) and encoder.startswith("tu-") else named
    if name is None:
        raise CheckpointError(
            f"its config.json says encoder_name: {encoder!r}, which does not begin with `tu-`",
            hint="if smp builds it by timm, name timm's model: --backbone",
        )
    if named not in (None, name):
        raise CheckpointError(
            f"its config.json says encoder_name: {encoder!r}, --backbone says {named!r}",
            hint="leave --backbone out",
        )
    rates = [96 // stride, 192 // stride, 288 // stride] if stride in (8, 16) else None
    buildable: dict[str, list[Any]] = {
        "_model_class": ["DeepLabV3"],
        "encoder_depth": [5],
        "encoder_output_stride": [8, 16],
        "decoder_atrous_rates": [rates],
        "decoder_aspp_separable": [False],
        "in_channels": [3],
    }
    for key, choices in buildable.items():
        value = config.get(key, DEFAULTS.get(key, choices[0]))
        if value not in choices:
            raise CheckpointError(
                f"its config.json says {key}: {value!r}, which is another network",
                hint=f"importable: {' or '.join(map(str, choices))}",
            )
    return name, stride, {k: v for k, v in config.items() if k not in OF_DEEPLABV3 and not k.startswith("_")}


def _rows() -> Rows:
    for i in range(4):
        yield from block_rows(f"decoder.aspp.convs.{i}", f"head.branches.{i}")
    yield from block_rows("decoder.aspp.convs.4", "head.pool", first=1, target_first=1)
    yield from block_rows("decoder.aspp.project", "head.project")
    yield "decoder.conv", "head.block.0", WEIGHT
    yield "decoder.bn", "head.block.1", NORM
    yield "segmentation_head.0", "head.classifier", BIASED
