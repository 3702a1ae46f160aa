"""Backbones from timm: what can be built, what is refused and how, and which weights fit."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor

from hwdkit.errors import CheckpointError, RecipeError
from hwdkit.models.backbone import (
    ANY_SIZE,
    create_backbone,
    default_contract,
    feature_maps,
    stage_channels,
)

TINY = {"embed_dim": 16, "depths": [1, 1, 2, 2], "num_heads": [1, 2, 4, 8]}
"""Options that make any Swin transformer small."""

UNDILATED = [
    ("pvt_v2_b0", {"depths": [1, 1, 1, 1]}),
    ("swin_tiny_patch4_window7_224", TINY),
    ("swinv2_tiny_window8_256", TINY),
    ("densenet121", {"block_config": [2, 2, 2, 2]}),
    ("fastvit_t8", {"layers": [1, 1, 1, 1]}),
    ("hrnet_w18_small", {}),
    ("dla34", {}),
]
"""Backbones that timm cannot dilate; Swin and the last two do not take every image size by themselves."""


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


@pytest.mark.parametrize("name", ["pvt_v2_b0", "swin_tiny_patch4_window7_224", "vgg16"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_refusal_says_which_stride_the_backbone_has(name: str, output_stride: int) -> None:
    with pytest.raises(RecipeError, match=f"own stride is 32.*cannot dilate it to {output_stride}") as caught:
        create_backbone(name, {}, output_stride)
    assert caught.value.hint.startswith("set output_stride: 32")


def test_backbone_without_a_map_of_stride_32_is_refused_with_the_stride_it_has() -> None:
    with pytest.raises(RecipeError, match="deepest map has stride 16"):
        create_backbone("vit_tiny_patch16_224", {}, 32)
    with pytest.raises(RecipeError, match="deepest map has stride 64"):
        create_backbone("efficientvit_m0", {}, 32)


@pytest.mark.parametrize("name", ["maxvit_tiny_tf_224", "hiera_tiny_224"])
def test_backbone_for_certain_image_sizes_only_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="images of certain sizes only"):
        create_backbone(name, {}, 32)


@pytest.mark.parametrize(
    ("name", "output_stride"), [("resnet18", 8), ("pvt_v2_b0", 32), ("swin_tiny_patch4_window7_224", 32)]
)
def test_mistyped_backbone_option_is_not_blamed_on_the_output_stride(name: str, output_stride: int) -> None:
    with pytest.raises(RecipeError, match=r"with backbone_options.*'channles'"):
        create_backbone(name, {"channles": [32, 64, 128, 256]}, output_stride)


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


@pytest.mark.parametrize(("name", "options"), UNDILATED)
def test_undilated_backbone_takes_images_of_any_size(name: str, options: dict[str, object]) -> None:
    with torch.device("meta"):
        backbone = create_backbone(name, options, 32).eval()
    for height, width in [(64, 64), (70, 99), (128, 160)]:
        maps = feature_maps(backbone, torch.empty(2, 3, height, width, device="meta"))
        assert [m.shape[1] for m in maps] == list(stage_channels(backbone).values())
        for stride, map_ in zip((4, 8, 16, 32), maps, strict=True):
            assert height // stride <= map_.shape[2] <= -(-height // stride)
            assert width // stride <= map_.shape[3] <= -(-width // stride)


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [("swin_tiny_patch4_window7_224", TINY, (72, 100)), ("hrnet_w18_small", {}, (96, 128))],
)
def test_padding_is_the_mean_colour_and_is_cut_from_the_maps(
    name: str, options: dict[str, object], size: tuple[int, int]
) -> None:
    backbone = create_backbone(name, options, 32).eval()
    image = torch.randn(1, 3, 70, 99)
    padded = torch.zeros(1, 3, *size)
    padded[..., :70, :99] = image
    with torch.no_grad():
        cut, whole = feature_maps(backbone, image), feature_maps(backbone, padded)
    assert [tuple(m.shape[2:]) for m in cut] == [(18, 25), (9, 13), (5, 7), (3, 4)]
    for mine, theirs in zip(cut, whole, strict=True):
        assert torch.equal(mine, theirs[..., : mine.shape[2], : mine.shape[3]])


def test_channels_last_maps_are_turned_once() -> None:
    backbone = create_backbone("swin_tiny_patch4_window7_224", TINY, 32).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for turned, timms in zip(feature_maps(backbone, image), backbone(image), strict=True):
            assert torch.equal(turned, timms.permute(0, 3, 1, 2))


def test_windows_of_swins_last_stage_are_shifted() -> None:
    """Otherwise nothing could ever cross the border between two windows of the deepest map."""
    with torch.device("meta"):
        backbone = create_backbone("swin_tiny_patch4_window7_224", TINY, 32)
    shifts = [backbone.get_submodule(f"layers_3.blocks.{i}").shift_size for i in (0, 1)]
    assert shifts == [(0, 0), (3, 3)]


def test_half_width_resnet18_has_half_of_every_stage() -> None:
    options = {"stem_type": "deep", "stem_width": 32, "channels": [32, 64, 128, 256]}
    backbone = create_backbone("resnet18", options, 8)
    assert stage_channels(backbone) == {"stage1": 32, "stage2": 64, "stage3": 128, "stage4": 256}


def test_mobilenetv2_does_not_carry_the_classifiers_last_convolution() -> None:
    backbone = create_backbone("mobilenetv2_100", {}, 8)
    assert sum(p.numel() for p in backbone.parameters()) == 1_811_712


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}),
        ("mobilenetv2_100", {}),
        ("tf_efficientnet_lite0", {}),
        ("convnext_atto", {}),
        ("pvt_v2_b0", {"depths": [1, 1, 1, 1]}),
        ("swin_tiny_patch4_window7_224", TINY | ANY_SIZE),
        ("swinv2_tiny_window8_256", TINY | ANY_SIZE),
        ("densenet121", {"block_config": [2, 2, 2, 2]}),  # features.norm0 is features_norm0 in the extractor
        ("twins_pcpvt_small", {"depths": [1, 1, 1, 1]}),  # all of it is below `model.`
        ("xception41", {}),  # below `body.`
    ],
)
def test_classifier_weights_fill_the_backbone_exactly(name: str, options: dict[str, object]) -> None:
    weights = classifier_weights(name, **options)
    backbone = create_backbone(name, options, 32, pretrained=weights).eval()
    torch.manual_seed(0)
    classifier = timm.create_model(name, **options).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = classifier.forward_intermediates(image, intermediates_only=True)[-1]
        torch.testing.assert_close(feature_maps(backbone, image)[-1], expected, rtol=0, atol=0)


def test_missing_weights_are_not_taken_from_a_namesake() -> None:
    """Swin's classifier has a `norm.weight` of its own, after the last stage."""
    weights = classifier_weights("swin_tiny_patch4_window7_224", **TINY)
    del weights["patch_embed.norm.weight"]
    with pytest.raises(CheckpointError, match=r"missing: patch_embed\.norm\.weight\n"):
        create_backbone("swin_tiny_patch4_window7_224", TINY, 32, pretrained=weights)


def test_asking_timm_for_weights_that_it_lacks_is_a_recipe_error() -> None:
    with pytest.raises(RecipeError, match="no ImageNet weights for mobilenetv2_035"):
        create_backbone("mobilenetv2_035", {}, 8, pretrained=True)


def test_half_precision_weights_become_float32() -> None:
    weights = {k: v.half() if v.is_floating_point() else v for k, v in classifier_weights("resnet18").items()}
    backbone = create_backbone("resnet18", {}, 8, pretrained=weights)
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    assert torch.equal(backbone.state_dict()["conv1.weight"], weights["conv1.weight"].float())


def test_a_variance_beyond_float16_is_its_largest_value_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """Those of a first layer on images of 0 to 255 may exceed 65504, and are infinite in half precision."""
    weights = {k: v.half() if v.is_floating_point() else v for k, v in classifier_weights("resnet18").items()}
    weights["bn1.running_var"][3] = torch.inf
    backbone = create_backbone("resnet18", {}, 8, pretrained=weights)
    assert backbone.state_dict()["bn1.running_var"][3] == 65504
    assert "bn1.running_var has 1 value(s) beyond float16's range" in caplog.text


@pytest.mark.parametrize(
    ("key", "value", "half"),
    [
        ("bn1.running_var", torch.inf, False),
        ("bn1.running_var", torch.nan, True),
        ("bn1.running_var", -torch.inf, True),
        ("bn1.running_mean", torch.inf, True),
        ("conv1.weight", torch.nan, False),
    ],
)
def test_weights_that_are_not_finite_are_refused_before_training(key: str, value: float, half: bool) -> None:
    weights = classifier_weights("resnet18")
    if half:
        weights = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    weights[key].view(-1)[0] = value
    with pytest.raises(CheckpointError, match=f"damaged: 1 value.* of {key} are not finite"):
        create_backbone("resnet18", {}, 8, pretrained=weights)


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
