"""The segmentation network: taps, auxiliary head, heads and strides, spec, and what training needs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

from hwdkit.checkpoints.files import save_model
from hwdkit.engine.networks import FORMAT, load_network
from hwdkit.errors import RecipeError
from hwdkit.models.contract import InputContract
from hwdkit.models.deeplabv3 import atrous_rates
from hwdkit.models.segmenter import HEADS, NetworkSpec, Segmenter, build, convert_sync_batchnorm
from hwdkit.recipe.schema import Network

SWIN = {
    "backbone": "swin_tiny_patch4_window7_224",
    "backbone_options": {"embed_dim": 16, "depths": [1, 1, 2, 2], "num_heads": [1, 2, 4, 8]},
    "output_stride": 32,
}
PVT = {"backbone": "pvt_v2_b0", "backbone_options": {"depths": [1, 1, 1, 1]}, "output_stride": 32}

BGR = InputContract("bgr", 255, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0), align_corners=False)


def images(n: int = 2, height: int = 65, width: int = 97) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator)


def small(**changes: object) -> Segmenter:
    torch.manual_seed(0)
    return build(NetworkSpec(**{"backbone": "resnet18", "classes": 5, **changes}))  # type: ignore[arg-type]


def test_taps_have_the_announced_names_and_channels() -> None:
    network = small()
    out = network(images(), tuple(network.tap_channels))
    assert tuple(out.taps) == ("stage1", "stage2", "stage3", "stage4", "embedding")
    assert {name: tap.shape[1] for name, tap in out.taps.items()} == network.tap_channels
    assert out.taps["stage1"].shape == (2, 64, 17, 25)
    assert out.taps["embedding"].shape == (2, 128, 9, 13)
    assert out.logits.shape == (2, 5, 9, 13)


def test_only_the_asked_for_taps_are_handed_out() -> None:
    assert list(small()(images(), ("stage3",)).taps) == ["stage3"]


def test_unknown_tap_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"stage5.*stage1, stage2, stage3, stage4, embedding"):
        small().check_taps(["stage4", "stage5"])


@pytest.mark.parametrize("head", HEADS)
def test_logits_are_linear_in_the_embedding_even_with_dropout(head: str) -> None:
    network = small(head=head).train()
    out = network(images(), ("embedding",))
    classifier = network.head.classifier
    assert isinstance(classifier, nn.Conv2d)
    torch.testing.assert_close(out.logits, classifier(out.taps["embedding"]))


def test_recipe_may_name_every_head_and_no_other() -> None:
    assert set(get_args(Network.model_fields["head"].annotation)) == set(HEADS)


def test_auxiliary_logits_come_in_training_or_when_asked_for() -> None:
    network = small()
    training = network(images()).aux
    assert training is not None
    assert training.shape == (2, 5, 9, 13)
    network.eval()
    assert network(images()).aux is None
    assert network(images(), aux=True).aux is not None
    assert small(aux=False)(images()).aux is None


def test_output_equals_the_normalised_forward_of_the_contract() -> None:
    network = small(input=BGR).eval()
    expected = network.forward_normalised(BGR.normalise(images())).logits
    assert torch.equal(network(images()).logits, expected)


def test_input_statistics_follow_the_device_and_stay_out_of_checkpoints() -> None:
    network = small()
    assert not [k for k in network.state_dict() if "pixel" in k]
    assert network.to("meta").get_buffer("pixel_mean").is_meta


@pytest.mark.parametrize("align_corners", [True, False])
def test_upsampling_obeys_the_contract(align_corners: bool) -> None:
    contract = InputContract(align_corners=align_corners)
    logits = torch.randn(1, 5, 3, 4)
    expected = nn.functional.interpolate(logits, (9, 13), mode="bilinear", align_corners=align_corners)
    assert torch.equal(small(input=contract).upsample(logits, (9, 13)), expected)


@pytest.mark.parametrize(
    ("backbone", "head", "width"),
    [
        ("resnet18", "deeplabv3", 128),
        ("mobilenetv2_100", "deeplabv3", 128),
        ("resnet50", "deeplabv3", 256),
        ("resnet18", "pspnet", 128),
        ("mobilenetv2_100", "pspnet", 128),
        ("resnet50", "pspnet", 512),
        ("resnet18", "fcn", 128),
        ("resnet18", "upernet", 128),
        ("convnext_tiny", "upernet", 512),
        ("resnet50", "segformer", 256),
    ],
)
def test_head_has_the_papers_width(backbone: str, head: str, width: int) -> None:
    with torch.device("meta"):
        assert small(backbone=backbone, head=head).tap_channels["embedding"] == width
        assert small(backbone=backbone, head=head, head_channels=96).tap_channels["embedding"] == 96


def test_atrous_rates_halve_when_the_stride_doubles() -> None:
    assert [atrous_rates(s) for s in (8, 16, 32)] == [(12, 24, 36), (6, 12, 18), (3, 6, 9)]


def test_half_width_resnet18_trains_one_step() -> None:
    network = small(backbone_options={"stem_type": "deep", "stem_width": 32, "channels": [32, 64, 128, 256]})
    out = network(images())
    assert out.aux is not None
    (out.logits.square().mean() + out.aux.square().mean()).backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("head", [name for name, head in HEADS.items() if head.pools_globally])
def test_one_image_cannot_train_a_pooling_branch(head: str) -> None:
    network = small(head=head)
    with pytest.raises(RecipeError, match=f"pooling branch of {head}.*\n.*batch_size >= 2"):
        network(images(1))
    network.eval()(images(1))


@pytest.mark.parametrize("head", ["fcn", "segformer"])
def test_one_image_trains_a_head_that_does_not_pool(head: str) -> None:
    assert small(head=head)(images(1)).logits.requires_grad


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("changes", [SWIN, PVT], ids=["swin", "pvt"])
def test_transformer_trains_one_step_and_takes_other_sizes(changes: dict[str, object], head: str) -> None:
    network = small(head=head, **changes)
    out = network(images(2, 64, 96), tuple(network.tap_channels))
    assert {name: tap.shape[1] for name, tap in out.taps.items()} == network.tap_channels
    assert [out.taps[f"stage{i}"].shape[2:] for i in (1, 2, 3, 4)] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert out.aux is not None
    (out.logits.square().mean() + out.aux.square().mean()).backward()
    assert all(p.grad is not None for p in network.parameters())
    network.eval()
    shallowest, deepest = (2, 5, 17, 25), (2, 5, 3, 4)
    assert network(images()).logits.shape in (shallowest, deepest)


@pytest.mark.parametrize("changes", [SWIN, PVT], ids=["swin", "pvt"])
def test_transformer_survives_its_checkpoint(changes: dict[str, object], tmp_path: Path) -> None:
    network = small(**changes).eval()
    about = {
        "format": FORMAT,
        "network": network.spec.to_dict(),
        "classes": ["one", "two", "three", "four", "five"],
        "palette": [[0, 0, 0]] * 5,
        "dataset": "five",
    }
    save_model(tmp_path / "it.safetensors", network.state_dict(), about)
    rebuilt = load_network(tmp_path / "it.safetensors").model.eval()
    with torch.no_grad():
        assert torch.equal(rebuilt(images()).logits, network(images()).logits)


def test_spec_survives_json_and_names_the_contract() -> None:
    network = small(backbone_options={"channels": (32, 64, 128, 256)}, input=BGR, head="pspnet")
    restored = NetworkSpec.from_dict(json.loads(json.dumps(network.spec.to_dict())))
    assert restored.to_dict() == network.spec.to_dict()
    assert restored.input == BGR
    rebuilt = build(restored)
    rebuilt.load_state_dict(network.state_dict(), strict=True)
    assert small().spec.input == InputContract()


@pytest.mark.parametrize(
    "change",
    [{"colour": 1}, {"head": "mask2former"}, {"output_stride": 4}, {"classes": 0}, {"input": {"gamma": 1}}],
)
def test_spec_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change)) if "input" not in change else "gamma"):
        NetworkSpec.from_dict({**NetworkSpec("resnet18", 5).to_dict(), **change})


def test_synchronised_batch_norm_keeps_mobilenets_activations() -> None:
    network = small(backbone="mobilenetv2_100").eval()
    converted = convert_sync_batchnorm(copy.deepcopy(network))
    norms = [m for m in converted.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert all(isinstance(m, nn.SyncBatchNorm) for m in norms)
    with torch.no_grad():
        assert torch.equal(converted(images()).logits, network(images()).logits)
