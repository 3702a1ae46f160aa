"""Backbones from timm: what can be built, what is refused and how, and which weights fit."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor

from hwdkit.errors import CheckpointError, RecipeError
from hwdkit.models.backbone import create_backbone, default_contract, stage_channels


def classifier_weights(name: str, **options: object) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(timm.create_model(name, **options).state_dict())


def test_unknown_backbone_is_answered_with_the_nearest_names() -> None:
    with pytest.raises(RecipeError, match="did you mean resnet18") as caught:
        create_backbone("resnt18", {}, 8)
    assert caught.value.exit_code == 3


def test_unknown_weight_tag_is_answered_with_the_tags_there_are() -> None:
    with pytest.raises(RecipeError, match=r"resnet18\.a1_in1k"):
        create_backbone("resnet18.imagenet", {}, 8)


@pytest.mark.parametrize(
    "name",
    ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "vgg16", "hrnet_w18", "repvit_m1", "dla34"],
)
def test_backbone_that_cannot_be_dilated_is_refused_by_name(name: str) -> None:
    with pytest.raises(RecipeError, match=f"backbone {name} has no output_stride 8"):
        create_backbone(name, {}, 8)


def test_mistyped_backbone_option_is_not_blamed_on_the_output_stride() -> None:
    with pytest.raises(RecipeError, match="channles"):
        create_backbone("resnet18", {"channles": [32, 64, 128, 256]}, 8)


def test_options_that_hwdkit_sets_itself_are_refused() -> None:
    with pytest.raises(RecipeError, match="num_classes"):
        create_backbone("resnet18", {"num_classes": 19}, 8)


@pytest.mark.parametrize("name", ["convnext_tiny", "regnety_002", "mobilenetv3_small_100", "resnet50"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_deepest_map_has_the_output_stride(name: str, output_stride: int) -> None:
    with torch.device("meta"):
        backbone = create_backbone(name, {}, output_stride).eval()
        maps = backbone(torch.empty(1, 3, 64, 96))
    assert maps[-1].shape[2:] == (64 // output_stride, 96 // output_stride)
    assert [m.shape[1] for m in maps[-4:]] == list(stage_channels(backbone).values())


def test_half_width_resnet18_has_half_of_every_stage() -> None:
    options = {"stem_type": "deep", "stem_width": 32, "channels": [32, 64, 128, 256]}
    backbone = create_backbone("resnet18", options, 8)
    assert stage_channels(backbone) == {"stage1": 32, "stage2": 64, "stage3": 128, "stage4": 256}


def test_mobilenetv2_does_not_carry_the_classifiers_last_convolution() -> None:
    backbone = create_backbone("mobilenetv2_100", {}, 8)
    assert sum(p.numel() for p in backbone.parameters()) == 1_811_712


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100", "tf_efficientnet_lite0", "convnext_atto"])
def test_classifier_weights_fill_the_backbone_exactly(name: str) -> None:
    weights = classifier_weights(name)
    backbone = create_backbone(name, {}, 32, pretrained=weights).eval()
    torch.manual_seed(0)
    classifier = timm.create_model(name).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = classifier.forward_intermediates(image, intermediates_only=True)[-1]
        torch.testing.assert_close(backbone(image)[-1], expected, rtol=0, atol=0)


def test_asking_timm_for_weights_that_it_lacks_is_a_recipe_error() -> None:
    with pytest.raises(RecipeError, match="no ImageNet weights for mobilenetv2_035"):
        create_backbone("mobilenetv2_035", {}, 8, pretrained=True)


def test_half_precision_weights_become_float32() -> None:
    weights = {k: v.half() if v.is_floating_point() else v for k, v in classifier_weights("resnet18").items()}
    backbone = create_backbone("resnet18", {}, 8, pretrained=weights)
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    assert torch.equal(backbone.state_dict()["conv1.weight"], weights["conv1.weight"].float())


def test_weights_without_batch_counters_are_accepted() -> None:
    weights = {k: v for k, v in classifier_weights("resnet18").items() if "num_batches" not in k}
    create_backbone("resnet18", {}, 8, pretrained=weights)


def test_missing_weights_are_named() -> None:
    weights = classifier_weights("resnet18")
    del weights["layer3.0.conv2.weight"]
    with pytest.raises(CheckpointError, match=r"missing: layer3\.0\.conv2\.weight"):
        create_backbone("resnet18", {}, 8, pretrained=weights)


def test_weights_of_another_stem_are_refused_with_both_shapes() -> None:
    weights = classifier_weights("resnet18", channels=(64, 64, 128, 256))
    with pytest.raises(
        CheckpointError, match=r"layer2\.0\.conv1\.weight is \(64, 64, 3, 3\).*\(128, 64, 3, 3\)"
    ):
        create_backbone("resnet18", {}, 8, pretrained=weights)


def test_deeper_network_is_not_cut_to_fit() -> None:
    weights = classifier_weights("resnet34")
    with pytest.raises(CheckpointError, match=r"unknown: layer1\.2"):
        create_backbone("resnet18", {}, 8, pretrained=weights)


def test_default_contract_is_what_timm_says() -> None:
    assert default_contract("tf_efficientnet_lite0").mean == (0.5, 0.5, 0.5)
    contract = default_contract("resnet18", align_corners=False)
    assert (contract.channel_order, contract.range, contract.std) == ("rgb", 1, (0.229, 0.224, 0.225))
    assert not contract.align_corners
