"""The authors' key names become ours, one for one; what does not fit is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from official_weights import KEYS, released
from tiny_runs import hwdkit
from torch import Tensor

from hwdkit.checkpoints import cirkd
from hwdkit.checkpoints.files import load_model
from hwdkit.engine.networks import load_weights
from hwdkit.errors import CheckpointError
from hwdkit.models.backbone import create_backbone
from hwdkit.models.contract import InputContract
from hwdkit.models.segmenter import NetworkSpec, build

DEEP_STEM = {"stem_type": "deep", "stem_width": 64}
FACTS = {
    "deeplabv3_resnet18": ("resnet18", DEEP_STEM, "deeplabv3", 128, True),
    "deeplabv3_resnet101": ("resnet101", DEEP_STEM, "deeplabv3", 256, True),
    "psp_resnet18": ("resnet18", DEEP_STEM, "pspnet", 128, True),
    "deeplabv3_mobilenetv2": ("mobilenetv2_100", {}, "deeplabv3", 128, False),
    "psp_mobilenetv2": ("mobilenetv2_100", {}, "pspnet", 128, False),
}
Shapes = dict[str, list[int]]


def of_shapes(shapes: Shapes) -> dict[str, Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def parameters(shapes: Shapes) -> int:
    """Build what the facts say, require that every tensor fits it, and count as methods' tables do."""
    found = cirkd.network(of_shapes(shapes))
    with torch.device("meta"):
        model = build(NetworkSpec.from_dict(found.network))
    load_weights(model, found.state, where="")
    return sum(parameter.numel() for parameter in model.parameters())


def wider(shapes: Shapes, sizes: dict[int, int]) -> Shapes:
    """The head with some of its channel counts replaced."""
    return {
        key: [sizes.get(n, n) for n in shape] if key.startswith("head.") else shape
        for key, shape in shapes.items()
    }


@pytest.mark.parametrize("name", FACTS)
def test_architecture_and_widths_are_read_from_the_tensors(name: str) -> None:
    found = cirkd.network(of_shapes(KEYS[name])).network
    keys = ("backbone", "backbone_options", "head", "head_channels", "aux")
    assert tuple(found[key] for key in keys) == FACTS[name]
    assert (found["classes"], found["output_stride"]) == (19, 8)
    mean = (104.00698793, 116.66876762, 122.67891434)
    assert InputContract.from_dict(found["input"]) == InputContract("bgr", 255, mean, (1, 1, 1), True)


@pytest.mark.parametrize("name", FACTS)
def test_every_tensor_arrives_untouched(name: str) -> None:
    weights = of_shapes(KEYS[name])
    found = cirkd.network(weights)
    assert sorted(map(id, found.state.values())) == sorted(map(id, weights.values()))
    with torch.device("meta"):
        assert found.state.keys() == build(NetworkSpec.from_dict(found.network)).state_dict().keys()


def test_published_parameter_counts_come_out() -> None:
    assert parameters(KEYS["deeplabv3_resnet18"]) == 13_607_974
    assert parameters(KEYS["deeplabv3_resnet101"]) == 61_118_950
    assert parameters(KEYS["deeplabv3_mobilenetv2"]) == 3_233_171


def test_cirkdv2_is_wider_and_told_by_its_shapes() -> None:
    assert parameters(wider(KEYS["deeplabv3_resnet18"], {128: 512, 640: 2560})) == 22_762_918
    assert parameters(wider(KEYS["deeplabv3_resnet101"], {256: 512, 1280: 2560})) == 79_084_262


def test_pspnet_on_resnet101_and_deeplabv3_on_resnet50_are_known_too() -> None:
    deep = KEYS["deeplabv3_resnet101"]
    backbone = {key: shape for key, shape in deep.items() if not key.startswith("head.")}
    head = wider(KEYS["psp_resnet18"], {128: 512, 512: 2048, 1024: 4096})
    assert parameters(backbone | {k: s for k, s in head.items() if k.startswith("head.")}) == 68_072_166
    gone = tuple(f"pretrained.layer3.{block}." for block in range(6, 23))
    smaller = {key: shape for key, shape in deep.items() if not key.startswith(gone)}
    assert parameters(smaller) == 61_118_950 - 17 * (2 * 1024 * 256 + 9 * 256 * 256 + 4 * 256 + 2 * 1024)
    assert cirkd.network(of_shapes(smaller)).network["backbone"] == "resnet50"


def test_prefix_of_distributed_training_is_dropped() -> None:
    weights = of_shapes(KEYS["psp_resnet18"])
    prefixed = {f"module.{key}": tensor for key, tensor in weights.items()}
    assert cirkd.network(prefixed).state.keys() == cirkd.network(weights).state.keys()


@pytest.mark.parametrize("name", FACTS)
def test_missing_and_extra_tensors_are_both_named(name: str) -> None:
    weights = of_shapes(KEYS[name])
    gone = next(key for key in weights if key.startswith("head.") and key.endswith("running_var"))
    del weights[gone]
    weights["head.extra.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        cirkd.network(weights)
    assert f"missing {gone}\n" in str(caught.value)
    assert "unexpected head.extra.weight" in str(caught.value)


def test_a_long_list_of_what_is_missing_does_not_hide_what_is_there() -> None:
    with pytest.raises(CheckpointError) as caught:
        cirkd.network({"pretrained.odd": torch.zeros(1)})
    # Of 190 names, 8 are of the auxiliary head, which a network need not have, and 8 are listed.
    assert "missing 174 more\n  unexpected pretrained.odd" in str(caught.value)


def test_each_single_missing_tensor_is_an_error() -> None:
    weights = of_shapes(KEYS["deeplabv3_resnet18"])
    for key in weights:
        with pytest.raises(CheckpointError):
            cirkd.network({k: v for k, v in weights.items() if k != key})


def test_other_networks_are_refused_in_words() -> None:
    zero = torch.zeros(1)
    with pytest.raises(CheckpointError, match="no key begins with `pretrained"):
        cirkd.network({"conv1.weight": zero, "dsn.0.weight": zero})
    with pytest.raises(CheckpointError, match="whole segmentation network"):
        cirkd.backbone(of_shapes(KEYS["psp_resnet18"]))
    flat = of_shapes(KEYS["deeplabv3_resnet18"]) | {"head.block.0.weight": zero}
    with pytest.raises(CheckpointError, match=r"head.block.0.weight is \(1,\): not the weight"):
        cirkd.network(flat)


@pytest.mark.parametrize("name", ["deeplabv3_resnet18", "deeplabv3_mobilenetv2"])
def test_imagenet_backbone_loads_as_pretrained(name: str) -> None:
    prefix = "pretrained.net." if "mobile" in name else "pretrained."
    whole = released(name)
    weights = {k.removeprefix(prefix): v for k, v in whole.items() if k.startswith(prefix)}
    end = "classifier.1" if "mobile" in name else "fc"
    found = cirkd.backbone(
        weights | {f"{end}.weight": torch.ones(1000, 512), f"{end}.bias": torch.ones(1000)}
    )
    assert found.dropped == (f"{end}.weight", f"{end}.bias")
    model = create_backbone(
        found.network["backbone"], found.network["backbone_options"], 8, pretrained=found.state
    )
    segmenter = cirkd.network(whole).state
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, segmenter[f"backbone.{key}"].to(tensor.dtype)), key
    with pytest.raises(CheckpointError, match="unexpected odd"):
        cirkd.backbone(weights | {"odd": torch.ones(1)})
    old = {key: tensor for key, tensor in weights.items() if not key.endswith("num_batches_tracked")}
    assert cirkd.backbone(old).state.keys() < found.state.keys()
    assert not any(key.endswith("num_batches_tracked") for key in cirkd.backbone(old).state)
    with pytest.raises(CheckpointError, match=r"missing .*running_mean"):
        cirkd.backbone({key: tensor for key, tensor in old.items() if not key.endswith("running_mean")})


def test_hwd_is_another_name_of_the_source(tmp_path: Path) -> None:
    torch.save(released("psp_mobilenetv2"), tmp_path / "a.pth")
    out = tmp_path / "a.safetensors"
    line = ("checkpoint", "import", tmp_path / "a.pth", "--from", "hwd", "--dataset", "cityscapes", "-o", out)
    made = hwdkit(*line)
    assert made.code == 0, made.err
    assert load_model(out)[1]["imported"]["from"] == "hwd"
