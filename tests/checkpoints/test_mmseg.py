"""mmseg's networks give mmseg's numbers, and what is another network is refused in words.

golden/mmseg_reference.npz holds what mmseg 1.2.2 (torch 2.15, float64, eval) makes of 17x313 pixels with
weights filled by the formula of official_weights.py; the DeepLabV3 was built with 64 channels, to be small.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from official_weights import GOLDEN, filled
from tiny_runs import Outcome, hwdkit
from torch import Tensor

from hwdkit.checkpoints import mmseg
from hwdkit.checkpoints.files import load_model, read_state_dict
from hwdkit.checkpoints.mmseg_config import INPUT, class_names, facts
from hwdkit.datasets.table import DATASETS
from hwdkit.engine.networks import load_network, load_weights
from hwdkit.errors import CheckpointError
from hwdkit.models.backbone import create_backbone
from hwdkit.models.segmenter import NetworkSpec, build

KEYS: dict[str, dict[str, list[int]]] = json.loads((GOLDEN / "mmseg_keys.json").read_text())
DEEP_STEM = {"stem_type": "deep", "stem_width": 32}
CITYSCAPES = DATASETS["cityscapes"].classes

UNDILATED = """
crop_size = (512, 1024)
model = dict(
    backbone=dict(type='ResNetV1c', depth=18, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1), style='pytorch'),
    data_preprocessor=dict(bgr_to_rgb=True, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    decode_head=dict(type='ASPPHead', dilations=(1, 3, 6, 9), align_corners=True))
"""
"""The config of a ResNet-18 that no one publishes: undilated, it is the same network in mmseg and timm."""


@cache
def cached(index: int, key: str, shape: tuple[int, ...]) -> Tensor:
    return filled(key, list(shape), index)


def released(name: str) -> dict[str, Tensor]:
    return {key: cached(i, key, tuple(KEYS[name][key])) for i, key in enumerate(sorted(KEYS[name]))}


def of_shapes(name: str) -> dict[str, Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in KEYS[name].items()}


def config(text: str) -> dict[str, Any]:
    return {"meta": {"cfg": text}}


@pytest.fixture(scope="session")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole file as mmseg 1.x writes it."""
    generator = torch.Generator().manual_seed(0)
    path = tmp_path_factory.mktemp("mmseg") / "iter_80000.pth"
    weights = {
        key: torch.tensor(0) if not shape else torch.rand(shape, generator=generator)
        for key, shape in KEYS["deeplabv3_r18v1c"].items()
    }
    classes = [f"{name} ".title() for name in CITYSCAPES]  # spelling is no order; mmseg has a class "bed "
    meta = {"cfg": UNDILATED, "dataset_meta": {"classes": classes, "palette": [[128, 64, 128]]}, "iter": 8}
    torch.save({"state_dict": weights, "meta": meta, "param_schedulers": [{"last_step": 8}]}, path)
    return path


def bring(path: Path, out: Path, *more: object, dataset: str = "cityscapes") -> Outcome:
    return hwdkit("checkpoint", "import", path, "--from", "mmseg", "--dataset", dataset, "-o", out, *more)


@pytest.mark.parametrize("name", ["deeplabv3_r50v1c", pytest.param("pspnet_r50v1c", marks=pytest.mark.slow)])
def test_network_equals_mmsegs(name: str) -> None:
    found = mmseg.network(released(name), {})
    with torch.device("meta"):
        network = build(NetworkSpec.from_dict(found.network))
    network.load_state_dict(found.state, strict=True, assign=True)
    pixels = torch.from_numpy(np.random.RandomState(42).standard_normal((1, 3, 17, 313)))
    with torch.no_grad():
        out = network.eval().forward_normalised(pixels, ("stage4",), aux=True)
    assert out.aux is not None
    got = {
        "c4_first8": out.taps["stage4"][:, :8],
        "logits": out.logits,
        "aux_logits": out.aux,
        "resized_corner": network.upsample(out.logits, (17, 313))[..., :24],
    }
    with np.load(GOLDEN / "mmseg_reference.npz") as file:
        expected = {key: torch.from_numpy(file[f"{name}__{key}"]) for key in got}
    for what, value in got.items():
        # 0.0 where it was recorded; another processor may end a sum in another last bit.
        assert (value - expected[what]).abs().max() < 1e-12 * expected[what].abs().max(), what


@pytest.mark.parametrize(
    ("name", "backbone", "options", "head", "channels"),
    [
        ("deeplabv3_r50v1c", "resnet50", DEEP_STEM, "aspp", 64),
        ("deeplabv3_r101v1c", "resnet101", DEEP_STEM, "aspp", 512),
        ("pspnet_r50v1c", "resnet50", DEEP_STEM, "pspnet", 512),
        ("deeplabv3_r50", "resnet50", {}, "aspp", 8),
    ],
)
def test_architecture_and_widths_are_read_from_the_tensors(
    name: str, backbone: str, options: dict[str, Any], head: str, channels: int
) -> None:
    weights = of_shapes(name)
    found = mmseg.network(weights, {})
    spec = found.network
    assert (spec["backbone"], spec["backbone_options"]) == (backbone, options)
    assert (spec["head"], spec["head_channels"], spec["classes"], spec["aux"]) == (head, channels, 19, True)
    assert (spec["output_stride"], spec["input"]) == (8, INPUT)
    assert found.assumed == ("output stride 8", "align_corners false", "ImageNet's mean and std")
    assert sorted(map(id, found.state.values())) == sorted(map(id, weights.values()))
    with torch.device("meta"):
        load_weights(build(NetworkSpec.from_dict(spec)), found.state, where="")


def test_default_width_is_mmsegs() -> None:
    with torch.device("meta"):
        deep, shallow = (build(NetworkSpec(name, 19, head="aspp")) for name in ("resnet50", "resnet18"))
    assert (deep.head.channels, shallow.head.channels) == (512, 128)


def test_auxiliary_head_may_be_missing() -> None:
    weights = {k: v for k, v in of_shapes("pspnet_r50v1c").items() if not k.startswith("auxiliary_head.")}
    assert mmseg.network(weights, {}).network["aux"] is False


def test_each_single_missing_tensor_is_an_error() -> None:
    weights = of_shapes("deeplabv3_r50v1c")
    for key in weights:
        with pytest.raises(CheckpointError):
            mmseg.network({k: v for k, v in weights.items() if k != key}, {})
    with pytest.raises(
        CheckpointError, match=r"not a DeepLabV3 \(ASPPHead\) on ResNetV1c-50 of mmseg:\n  unexpected odd"
    ):
        mmseg.network(weights | {"odd": torch.zeros(1)}, {})


def test_resnet18_is_refused_where_it_is_dilated() -> None:
    weights = of_shapes("deeplabv3_r18v1c")
    with pytest.raises(CheckpointError, match="ResNet-18 at output stride 8 is another network"):
        mmseg.network(weights, {})
    found = mmseg.network(weights, config(UNDILATED))
    assert (found.network["output_stride"], found.assumed) == (32, ())
    with torch.device("meta"):
        load_weights(build(NetworkSpec.from_dict(found.network)), found.state, where="")


@pytest.mark.parametrize(
    "key",
    [
        "lateral_convs.0.conv.weight",
        "sep_bottleneck.0.depthwise_conv.conv.weight",
        "convs.0.conv.weight",
        "0.conv_seg.weight",
    ],
)
def test_other_heads_are_refused_by_their_tensors(key: str) -> None:
    weights = of_shapes("deeplabv3_r50") | {f"decode_head.{key}": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        mmseg.network(weights, {})
    assert f"its head is another one (decode_head has {key.split('.')[0]})" in caught.value.message
    assert "importable: PSPNet (PSPHead) and DeepLabV3 (ASPPHead)" in caught.value.hint


def test_other_networks_are_refused_in_words() -> None:
    zero = torch.zeros(1)
    with pytest.raises(CheckpointError, match="no key begins with `decode_head"):
        mmseg.network({"conv1.weight": zero}, {})
    with pytest.raises(CheckpointError, match=r"its head is another one \(decode_head has odd\)"):
        mmseg.network({"decode_head.odd.weight": zero}, {})
    swin = {"backbone.patch_embed.w": zero, "decode_head.aspp_modules.0.conv.weight": zero}
    with pytest.raises(
        CheckpointError, match=r"no ResNet of mmseg \(first of its keys: backbone.patch_embed.w\)"
    ):
        mmseg.network(swin, {})


def test_facts_come_from_the_config() -> None:
    stride, contract, assumed = facts(config(UNDILATED), psp=False)
    assert (stride, assumed) == (32, ())
    assert contract == INPUT | {"align_corners": True}
    old = "img_norm_cfg = dict(mean=[1, 2, 3], std=[4, 5, 6], to_rgb=False)\n" + UNDILATED.replace(
        "data_preprocessor=", "unused="
    )
    found = facts({"meta": {"config": old}}, psp=False).input
    assert (found["channel_order"], found["mean"], found["std"]) == ("bgr", [1, 2, 3], [4, 5, 6])


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("(1, 1, 1, 1)", "(1, 1, 2, 4)", "strides and dilations = ((1, 2, 2, 2), (1, 1, 2, 4))"),
        ("(1, 2, 2, 2), dilations=(1, 1, 1, 1)", "(1, 2, 1, 1), dilations=(1, 1, 2, 4)", "contract_dilation"),
        ("style='pytorch'", "style='caffe'", "backbone: style = 'caffe'"),
        ("depth=18", "multi_grid=(1, 2, 4)", "multi_grid = (1, 2, 4)"),
        ("depth=18", "norm_cfg=dict(type='BN', eps=0.001)", "backbone.norm_cfg: eps = 0.001"),
        ("dilations=(1, 3, 6, 9)", "dilations=(1, 6, 12, 18)", "decode_head: dilations = (1, 6, 12, 18)"),
        ("dilations=(1, 3, 6, 9)", "dilations=rates", "decode_head: dilations = not a plain value"),
        ("depth=18", "conv_cfg=dict(type='ConvWS')", "backbone: conv_cfg = {'type': 'ConvWS'}"),
        ("type='ASPPHead'", "act_cfg=dict(type='GELU')", "decode_head.act_cfg: type = 'GELU'"),
        ("mean=[123.675, ", "mean=[" + 400 * "9" + ", ", "input: mean = [999"),
        ("std=[58.395, ", "std=[-1, ", "input: std = [-1"),
        ("std=[58.395, 57.12, 57.375]", "std=std", "input: std = not a plain value"),
    ],
)
def test_variants_that_no_tensor_shows_are_refused(old: str, new: str, complaint: str) -> None:
    assert old in UNDILATED
    with pytest.raises(CheckpointError) as caught:
        facts(config(UNDILATED.replace(old, new)), psp=False)
    assert complaint in caught.value.message


@pytest.mark.parametrize(
    "beside",
    [
        *map(config, ["model = (", "x" * 1_000_001, "("]),
        {"meta": 3},
        {"meta": {"CLASSES": ["a", 1], "cfg": 5}},
    ],
)
def test_a_config_that_cannot_be_read_counts_as_none(beside: dict[str, Any]) -> None:
    assert facts(beside, psp=True).assumed == facts({}, psp=True).assumed != ()
    assert class_names(beside) == ()


def test_code_in_a_config_is_not_executed() -> None:
    assert facts(config("model = dict(**__import__('os').environ)"), psp=True).output_stride == 32


def test_import_tells_classes_and_convention(resnet18: Path, tmp_path: Path) -> None:
    made = bring(resnet18, tmp_path / "out.safetensors", "--json")
    assert made.code == 0, made.err
    assert (made.document["title"], made.document["assumed"]) == ("aspp on resnet18", [])
    loaded = load_network(tmp_path / "out.safetensors")
    assert loaded.model.contract.align_corners is True
    assert loaded.metadata["imported"]["from"] == "mmseg"
    weights, (state, _) = read_state_dict(resnet18), load_model(tmp_path / "out.safetensors")
    assert torch.equal(state["head.block.0.weight"], weights["decode_head.bottleneck.conv.weight"])
    assert torch.equal(state["backbone.bn1.running_var"], weights["backbone.stem.7.running_var"])


def test_classes_in_another_order_are_refused(resnet18: Path, tmp_path: Path) -> None:
    whole = torch.load(resnet18, weights_only=True)
    whole["meta"]["dataset_meta"]["classes"] = [*CITYSCAPES[:2], "wall\x1b[2J", *CITYSCAPES[3:]]
    torch.save(whole, tmp_path / "a.pth")
    made = bring(tmp_path / "a.pth", tmp_path / "out.safetensors")
    assert made.code == 5
    assert "names its class 2 'wall\ufffd[2J', dataset cityscapes has 'building' there" in made.err
    whole["meta"]["dataset_meta"]["classes"] = [*CITYSCAPES, "another"]
    torch.save(whole, tmp_path / "b.pth")
    made = bring(tmp_path / "b.pth", tmp_path / "out.safetensors")
    assert made.code == 5
    assert "it names 20 classes, but its classifier has 19" in made.err
    made = bring(resnet18, tmp_path / "no.safetensors", dataset="voc-aug")
    assert made.code == 5
    assert "its classifier has 19 classes, dataset voc-aug has 21" in made.err


class HistoryBuffer:
    """Stands for what mmengine pickles along."""


def test_a_training_checkpoint_is_refused_with_what_mends_it(tmp_path: Path) -> None:
    weights = {"decode_head.conv_seg.bias": torch.zeros(19)}
    torch.save({"state_dict": weights, "message_hub": HistoryBuffer()}, tmp_path / "iter.pth")
    made = bring(tmp_path / "iter.pth", tmp_path / "out.safetensors")
    assert made.code == 5
    assert "In your mmseg environment" in made.err
    lines = [line.strip() for line in made.err.splitlines() if "torch." in line]
    assert len(lines) == 2
    clean = "\n".join(lines).replace("'clean.pth'", repr(str(tmp_path / "clean.pth")))
    whole: dict[str, Any] = {"state_dict": weights, "meta": {"cfg": "a = 1", "hub": HistoryBuffer()}}
    torch.save(whole, tmp_path / "iter.pth")
    exec(clean, {})
    kept = torch.load(tmp_path / "clean.pth", weights_only=True)
    assert kept["meta"] == {"cfg": "a = 1", "dataset_meta": None}
    assert kept["state_dict"].keys() == weights.keys()


def test_another_sources_network_is_pointed_to(resnet18: Path, tmp_path: Path) -> None:
    for source in ("cirkd", "hwd", "torchvision", "smp"):
        line = ("checkpoint", "import", resnet18, "--from", source, "--dataset", "cityscapes")
        made = hwdkit(*line, "-o", tmp_path / "out.safetensors")
        assert made.code == 5, source
        assert "its tensors have the names of --from mmseg" in made.err
    assert not list(tmp_path.iterdir())


def test_imagenet_backbone_loads_as_pretrained(resnet18: Path, tmp_path: Path) -> None:
    start = "backbone."
    whole = read_state_dict(resnet18)
    weights = {key.removeprefix(start): value for key, value in whole.items() if key.startswith(start)}
    torch.save({"state_dict": weights | {"fc.bias": torch.ones(1000)}}, tmp_path / "r.pth")
    out = tmp_path / "r.safetensors"
    line = ("checkpoint", "import", tmp_path / "r.pth", "--from", "mmseg", "--backbone-only")
    made = hwdkit(*line, "-o", out)
    assert made.code == 0, made.err
    assert "(1 tensors of the classifier dropped)" in made.out
    assert "backbone_options: {stem_type: deep, stem_width: 32}" in made.out
    assert "channel_order: rgb, range: 255, mean: [123.675, 116.28, 103.53]" in made.out
    model = create_backbone("resnet18", DEEP_STEM, 8, pretrained=read_state_dict(out))
    assert torch.equal(model.state_dict()["bn1.bias"], weights["stem.7.bias"])


def test_backbones_of_every_form_are_known() -> None:
    shapes = of_shapes("deeplabv3_r50")
    prefixed = {key: value for key, value in shapes.items() if key.startswith("backbone.")}
    found = mmseg.backbone(prefixed | {"head.fc.bias": torch.ones(9)})
    assert found.dropped == ("head.fc.bias",)
    assert (found.network["backbone"], found.network["backbone_options"]) == ("resnet50", {})
    assert "layer4.2.conv3.weight" in found.state
    with pytest.raises(CheckpointError, match="whole segmentation network"):
        mmseg.backbone(shapes)
