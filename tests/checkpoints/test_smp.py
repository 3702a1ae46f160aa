"""smp's DeepLabV3 on timm encoders gives smp's numbers, and what is another network is refused in words.

golden/smp_reference.npz holds what smp 0.6.0 (torch 2.15, float64, eval) makes of 32x320 pixels with weights
filled by the formula of official_weights.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from official_weights import GOLDEN, filled
from safetensors.torch import save_file
from tiny_runs import Outcome, hwdkit
from torch import Tensor

from hwdkit.checkpoints import smp
from hwdkit.engine.networks import load_network
from hwdkit.errors import CheckpointError
from hwdkit.models.segmenter import NetworkSpec, build

KEYS: dict[str, dict[str, list[int]]] = json.loads((GOLDEN / "smp_keys.json").read_text())
CONFIGS: dict[str, dict[str, Any]] = {
    "mobilenetv2_035_os8": {
        "_model_class": "DeepLabV3",
        "aux_params": None,
        "decoder_atrous_rates": [12, 24, 36],
        "encoder_depth": 5,
        "encoder_name": "tu-mobilenetv2_035",
        "encoder_output_stride": 8,
        "in_channels": 3,
    },
    "resnet10t_os16": {
        "_model_class": "DeepLabV3",
        "decoder_atrous_rates": [6, 12, 18],
        "encoder_name": "tu-resnet10t",
        "encoder_output_stride": 16,
        "drop_rate": 0.0,
    },
}
NAME = "mobilenetv2_035_os8"
CONFIG = CONFIGS[NAME]


def released(name: str) -> dict[str, Tensor]:
    return {key: filled(key, KEYS[name][key], i) for i, key in enumerate(sorted(KEYS[name]))}


def of_shapes(name: str) -> dict[str, Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in KEYS[name].items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What `save_pretrained` makes, with the eleven classes of CamVid."""
    saved = tmp_path / "saved"
    saved.mkdir()
    weights = {k: v.float() if v.is_floating_point() else v for k, v in released(NAME).items()}
    save_file(weights, saved / "model.safetensors")
    (saved / "config.json").write_text(json.dumps(CONFIG))
    return saved


def bring(path: Path, out: Path, *more: object) -> Outcome:
    return hwdkit("checkpoint", "import", path, "--from", "smp", "--dataset", "camvid", "-o", out, *more)


@pytest.mark.parametrize("name", CONFIGS)
def test_network_equals_smps(name: str) -> None:
    weights = released(name)
    found = smp.network(weights, CONFIGS[name], None)
    assert sorted(map(id, found.state.values())) == sorted(map(id, weights.values()))
    network = build(NetworkSpec.from_dict(found.network)).double()
    network.load_state_dict(found.state, strict=True)
    pixels = torch.from_numpy(np.random.RandomState(42).standard_normal((1, 3, 32, 320)))
    with torch.no_grad():
        logits = network.eval().forward_normalised(pixels).logits
    got = {"logits": logits, "resized_corner": network.upsample(logits, (32, 320))[..., :24]}
    with np.load(GOLDEN / "smp_reference.npz") as file:
        expected = {key: torch.from_numpy(file[f"{name}__{key}"]) for key in got}
    for what, value in got.items():
        # 2e-16 where it was recorded; another processor may end a sum in another last bit.
        assert (value - expected[what]).abs().max() < 1e-12 * expected[what].abs().max(), what


def test_facts_come_from_the_config() -> None:
    found = smp.network(of_shapes("resnet10t_os16"), CONFIGS["resnet10t_os16"], None)
    spec = found.network
    assert (spec["backbone"], spec["output_stride"], spec["classes"]) == ("resnet10t", 16, 11)
    assert (spec["head_channels"], spec["aux"], spec["backbone_options"]) == (16, False, {"drop_rate": 0.0})
    assert (spec["input"], found.assumed) == (None, ())


@pytest.mark.parametrize(
    ("replaced", "complaint"),
    [
        ({"encoder_name": "resnet50"}, "encoder_name: 'resnet50', which does not begin"),
        ({"encoder_name": 5}, "encoder_name: 5, which does not begin"),
        ({"_model_class": "FPN"}, "_model_class: 'FPN'"),
        ({"encoder_depth": 4}, "encoder_depth: 4"),
        ({"encoder_output_stride": 32}, "encoder_output_stride: 32"),
        ({"encoder_output_stride": "8"}, "encoder_output_stride: '8'"),
        ({"encoder_output_stride": 16}, "decoder_atrous_rates: [12, 24, 36]"),
        ({"decoder_atrous_rates": [6, 12, 18]}, "decoder_atrous_rates: [6, 12, 18]"),
        ({"decoder_aspp_separable": True}, "decoder_aspp_separable: True"),
        ({"in_channels": 4}, "in_channels: 4"),
    ],
)
def test_variants_are_refused(replaced: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        smp.network(of_shapes(NAME), CONFIG | replaced, None)
    assert complaint in caught.value.message


def test_smps_default_rates_at_stride_16_are_not_ours() -> None:
    config = {"encoder_name": "tu-resnet10t", "encoder_output_stride": 16}
    with pytest.raises(CheckpointError, match=r"decoder_atrous_rates: \[12, 24, 36\]"):
        smp.network(of_shapes("resnet10t_os16"), config, None)


def test_without_a_config_the_encoder_must_be_named() -> None:
    with pytest.raises(CheckpointError, match="its encoder is not known") as caught:
        smp.network(of_shapes(NAME), None, None)
    assert "--backbone" in caught.value.hint
    for name in ("mobilenetv2_035", "tu-mobilenetv2_035"):
        found = smp.network(of_shapes(NAME), None, name)
        assert found.network["backbone"] == "mobilenetv2_035"
        assert found.assumed == ("output stride 8", "atrous rates 12, 24, 36")
    with pytest.raises(CheckpointError, match="--backbone says 'resnet50'"):
        smp.network(of_shapes(NAME), CONFIG, "resnet50")
    assert smp.network(of_shapes(NAME), CONFIG | {"encoder_name": "timm-x"}, "mobilenetv2_035").assumed == ()


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        ("decoder.block2.0.0.weight", "its decoder is another one .decoder has block2"),
        ("decoder.psp.blocks.0.pool.1.0.weight", "its decoder is another one .decoder has psp"),
        ("decoder.odd", "its decoder is another one .decoder has odd"),
    ],
)
def test_other_decoders_are_refused_by_their_tensors(key: str, complaint: str) -> None:
    zero = torch.zeros(1)
    with pytest.raises(CheckpointError, match=complaint):
        smp.network({"segmentation_head.0.weight": zero, key: zero}, CONFIG, None)


def test_smps_own_encoders_are_refused_with_the_reason() -> None:
    native = {key.replace("encoder.model.", "encoder."): value for key, value in of_shapes(NAME).items()}
    with pytest.raises(CheckpointError, match="one of smp's own, which dilates other convolutions"):
        smp.network(native, CONFIG, None)
    with pytest.raises(CheckpointError, match="no key begins with `segmentation_head"):
        smp.network({"odd": torch.zeros(1)}, CONFIG, None)


def test_each_single_missing_tensor_of_the_decoder_is_an_error() -> None:
    weights = of_shapes(NAME)
    for gone in (key for key in weights if not key.startswith("encoder.")):
        with pytest.raises(CheckpointError):
            smp.network({key: value for key, value in weights.items() if key != gone}, CONFIG, None)


def test_a_saved_folder_is_imported(folder: Path, tmp_path: Path) -> None:
    made = bring(folder, tmp_path / "out.safetensors", "--json")
    assert made.code == 0, made.err
    assert (made.document["title"], made.document["assumed"]) == ("deeplabv3 on mobilenetv2_035", [])
    contract = load_network(tmp_path / "out.safetensors").model.contract
    assert (contract.channel_order, contract.range, contract.align_corners) == ("rgb", 1, True)
    (folder / "config.json").unlink()
    file = folder / "model.safetensors"
    made = bring(file, tmp_path / "b.safetensors", "--backbone", "mobilenetv2_035")
    assert made.code == 0, made.err
    assert "Assumed, as the file does not say: output stride 8, atrous rates 12, 24, 36" in made.out
    made = bring(file, tmp_path / "c.safetensors", "--backbone", "mobilenetv2_050")
    assert made.code == 5
    assert "the network needs" in made.err
    made = bring(file, tmp_path / "c.safetensors", "--backbone", "mobilenetv2")
    assert made.code == 5
    assert "timm has no backbone" in made.err


def test_a_classification_head_is_dropped_and_said_to_be(folder: Path, tmp_path: Path) -> None:
    weights = {k: v.float() for k, v in released(NAME).items()}
    save_file(weights | {"classification_head.3.bias": torch.ones(3)}, folder / "model.safetensors")
    made = bring(folder, tmp_path / "out.safetensors")
    assert made.code == 0, made.err
    assert "Dropped: classification_head.3.bias" in made.out


def test_configs_that_are_damaged_are_refused(folder: Path, tmp_path: Path) -> None:
    for text, complaint in (
        ("{", "cannot be read"),
        ("[]", "no JSON object"),
        ("[" * 100_000, "cannot be read"),
    ):
        (folder / "config.json").write_text(text)
        made = bring(folder, tmp_path / "out.safetensors")
        assert made.code == 5, text[:9]
        assert f"config.json: {complaint}" in made.err or f"config.json: is {complaint}" in made.err
    (folder / "config.json").write_text(json.dumps({"model_type": "another tool's"}))
    assert "there is no config.json of smp" in bring(folder, tmp_path / "out.safetensors").err
    (folder / "config.json").write_text(json.dumps(CONFIG | {"checkpoint_path": "/etc/passwd"}))
    made = bring(folder, tmp_path / "out.safetensors")
    assert made.code == 5
    assert "cannot set checkpoint_path" in made.err


def test_backbone_means_nothing_elsewhere(folder: Path, tmp_path: Path) -> None:
    line = (
        "checkpoint",
        "import",
        folder / "model.safetensors",
        "--dataset",
        "camvid",
        "--backbone",
        "resnet18",
    )
    made = hwdkit(*line, "--from", "mmseg", "-o", tmp_path / "out.safetensors")
    assert made.code == 2
    assert "--backbone names the encoder of an smp network" in made.err
