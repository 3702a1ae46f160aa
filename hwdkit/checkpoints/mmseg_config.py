"""What an mmseg file says of itself besides its tensors: class names, and the config of its training.

The config is Python source in a string. It is parsed, never executed: only literals and `dict(...)` count.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from hwdkit.errors import CheckpointError

INPUT: dict[str, Any] = {
    "channel_order": "rgb",
    "range": 255,
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "align_corners": False,
}
"""mmseg's standard input."""

STRIDES = {
    ((1, 2, 1, 1), (1, 1, 2, 4)): 8,
    ((1, 2, 2, 1), (1, 1, 1, 2)): 16,
    ((1, 2, 2, 2), (1, 1, 1, 1)): 32,
}
"""(strides, dilations) of the four layers -> output stride, as timm dilates."""

LONGEST = 1_000_000
"""Characters; a config has some ten thousand."""

UNKNOWN = object()
"""A value that only running the config would give."""


class Facts(NamedTuple):
    """What tensors cannot say of a network.

    Attributes:
        output_stride: of the deepest map.
        input: fields of an input contract, align_corners included.
        assumed: what was taken from mmseg's standard configs instead of the file, as text for people.
    """

    output_stride: int
    input: dict[str, Any]
    assumed: tuple[str, ...] = ()


def class_names(beside: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes in the order of the logits; () if the file does not say.

    Args:
        beside: what is in the file besides `state_dict`.
    """
    meta = _mapping(beside.get("meta"))
    dataset = {key.lower(): value for key, value in _mapping(meta.get("dataset_meta")).items()}
    names = dataset.get("classes", meta.get("CLASSES"))
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names)


def facts(beside: Mapping[str, Any], *, psp: bool) -> Facts:
    """Read from the config what the network is; without a readable config, assume mmseg's standard ones.

    Args:
        beside: what is in the file besides `state_dict`.
        psp: the head is a PSPHead; otherwise an ASPPHead.

    Raises:
        CheckpointError: the config describes a variant that hwdkit cannot build; says which.
    """
    meta = _mapping(beside.get("meta"))
    text = meta.get("cfg", meta.get("config"))  # 1.x, 0.x
    config = _parsed(text) if isinstance(text, str) else {}
    model = config.get("model")
    if not isinstance(model, dict):
        return Facts(8, dict(INPUT), ("output stride 8", "align_corners false", "ImageNet's mean and std"))
    backbone, head = (_mapping(model.get(name)) for name in ("backbone", "decode_head"))
    layers = tuple(
        tuple(value) if isinstance(value, list | tuple) else (value,)
        for value in (backbone.get("strides", (1, 2, 2, 2)), backbone.get("dilations", (1, 1, 1, 1)))
    )
    stride = next((stride for built, stride in STRIDES.items() if built == layers), None)
    if stride is None:
        raise _unbuildable("backbone", "strides and dilations", layers, [*STRIDES])
    _require("backbone", backbone, {"style": "pytorch", "multi_grid": None, "dcn": None})
    if stride != 32:
        _require("backbone", {"contract_dilation": False, **backbone}, {"contract_dilation": True})
    for name, part in (("backbone", backbone), ("decode_head", head)):
        _require(f"{name}.norm_cfg", _mapping(part.get("norm_cfg")), {"eps": 1e-5})
        _require(name, part, {"conv_cfg": None})
    _require("decode_head.act_cfg", _mapping(head.get("act_cfg")), {"type": "ReLU"})
    if psp:
        _require("decode_head", head, {"pool_scales": (1, 2, 3, 6)})
    else:
        rates = (1, 96 // stride, 192 // stride, 288 // stride)
        _require("decode_head", {"dilations": (1, 6, 12, 18), **head}, {"dilations": rates})
    contract, assumed = _input(config, model)
    contract["align_corners"] = head.get("align_corners", False) is True
    return Facts(stride, contract, assumed)


def _parsed(text: str) -> dict[str, Any]:
    """The top-level assignments of a config as plain values; {} if it is not Python."""
    if len(text) > LONGEST:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's warnings about their strings
            body = ast.parse(text).body
        return {
            node.targets[0].id: _value(node.value)
            for node in body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {word.arg: _value(word.value) for word in node.keywords if word.arg}
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {key.value: _value(value) for key, value in pairs if isinstance(key, ast.Constant)}
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return UNKNOWN


def _input(config: Mapping[str, Any], model: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """mmseg reads images as BGR; 1.x normalises in the model, 0.x in the data pipeline."""
    new = _mapping(model.get("data_preprocessor", config.get("data_preprocessor")))
    old = _mapping(config.get("img_norm_cfg"))
    values = new or old
    if not values.keys() & {"mean", "std"}:
        return dict(INPUT), ("ImageNet's mean and std",)
    for key in ("mean", "std"):
        if not _is_triple(values.get(key)):
            raise _unbuildable("input", key, values.get(key), ["three numbers within 0 and 255"])
    rgb = new.get("bgr_to_rgb", False) if new else old.get("to_rgb", True)
    triples = {key: [float(number) for number in values[key]] for key in ("mean", "std")}
    return {"channel_order": "rgb" if rgb is True else "bgr", "range": 255, **triples}, ()


def _require(section: str, config: Mapping[str, Any], buildable: Mapping[str, Any]) -> None:
    """Refuse a config with another value; a key that is missing has mmseg's default, which is buildable."""
    for key, value in buildable.items():
        actual = config.get(key, value)
        actual = tuple(actual) if isinstance(actual, list) else actual
        if actual != value:
            raise _unbuildable(section, key, actual, [value])


def _unbuildable(section: str, key: str, value: Any, choices: list[Any]) -> CheckpointError:
    shown = "not a plain value" if value is UNKNOWN else repr(value)
    return CheckpointError(
        f"its config says {section}: {key} = {shown}, which is another network",
        hint=f"importable: {' or '.join(map(repr, choices))}",
    )


def _mapping(value: Any) -> dict[str, Any]:
    return {k: v for k, v in value.items() if isinstance(k, str)} if isinstance(value, Mapping) else {}


def _is_triple(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(number) in (int, float) and 0 <= number <= 255 for number in value)
    )
