"""What is particular to UPerNet and SegFormer: published sizes, another implementation's outputs, strides."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hwdkit.measure.profile import true_macs
from hwdkit.models.fcn import FCNHead
from hwdkit.models.segformer import SegFormerHead
from hwdkit.models.segmenter import HEADS, NetworkSpec, build
from hwdkit.models.upernet import UPerNetHead

PYRAMIDS = {"upernet": UPerNetHead, "segformer": SegFormerHead}
CHANNELS = (8, 12, 16, 24)
SIZES = ((16, 24), (8, 12), (4, 6), (2, 3))

# The authors' tables (README of either repository): backbone -> M parameters, G multiply-adds at 512x2048.
UPERNETS = {
    "convnext_tiny": (60, 939),
    "swin_tiny_patch4_window7_224": (60, 945),
    "convnext_small": (82, 1027),
    "convnext_base": (122, 1170),
    "swin_small_patch4_window7_224": (81, 1038),
    "swin_base_patch4_window7_224": (121, 1188),
}
# Table 1 of the SegFormer paper: parameters of the encoder alone, width of the head -> M parameters.
SEGFORMERS = {
    "B0": ((32, 64, 160, 256), 3_319_392, 256, 3.8),
    "B1": ((64, 128, 320, 512), 13_151_424, 256, 13.7),
    "B2": ((64, 128, 320, 512), 24_196_288, 768, 27.5),
}


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def maps(batch: int = 2, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, c, *size, generator=generator) for c, size in zip(CHANNELS, SIZES, strict=True)
    ]


@pytest.mark.parametrize(
    "backbone",
    [name if "tiny" in name else pytest.param(name, marks=pytest.mark.slow) for name in UPERNETS],
)
def test_upernet_has_the_published_size(backbone: str) -> None:
    """With the published auxiliary head, 256 wide; the counter of the tables adds a little for norms."""
    published_parameters, published_macs = UPERNETS[backbone]
    with torch.device("meta"):
        network = build(NetworkSpec(backbone, 150, output_stride=32, head="upernet"))
        aux = FCNHead((network.tap_channels["stage3"],), 150, channels=256)
    assert network.head.channels == 512
    total = parameters(network.backbone) + parameters(network.head) + parameters(aux)
    assert round(total / 1e6) == published_parameters
    image = torch.empty(1, 3, 512, 2048, dtype=torch.uint8, device="meta")
    macs = true_macs(network, image, aux=False) / 1e9
    assert published_macs - 1 < macs < published_macs


@pytest.mark.parametrize("variant", SEGFORMERS)
def test_segformer_has_the_published_size(variant: str) -> None:
    in_channels, encoder, width, published = SEGFORMERS[variant]
    with torch.device("meta"):
        head = parameters(SegFormerHead(in_channels, 150, channels=width))
    projections = sum(in_channels) * width + 4 * width
    assert head == projections + 4 * width * width + 2 * width + width * 150 + 150
    assert round((encoder + head) / 1e6, 1) == published


def test_default_widths_are_the_papers() -> None:
    with torch.device("meta"):
        assert SegFormerHead((32, 64, 160, 256), 5).channels == 256
        assert [UPerNetHead((64, 128, 256, deepest), 5).channels for deepest in (512, 767, 768)] == [
            128,
            128,
            512,
        ]


def test_upernet_gives_what_another_implementation_gives() -> None:
    decoder = pytest.importorskip("segmentation_models_pytorch.decoders.upernet.decoder")
    torch.manual_seed(0)
    theirs = decoder.UPerNetDecoder((3, 8, *CHANNELS), decoder_channels=10)
    theirs.feature_norms = nn.ModuleList()  # it normalises the maps first, which timm's Swin leaves out
    ours = UPerNetHead(CHANNELS, 5, channels=10, align_corners=False)
    source = [
        *((f"bins.{i}.", block) for i, block in enumerate(theirs.psp.blocks)),
        ("bottleneck.", theirs.psp.out_conv),
        *((f"laterals.{2 - i}.", block.conv_norm_relu) for i, block in enumerate(theirs.fpn_lateral_blocks)),
        *((f"smooth.{2 - i}.", block) for i, block in enumerate(theirs.fpn_conv_blocks)),
        ("fuse.", theirs.fusion_block),
    ]
    taken = copy_in_order(ours, source)
    assert taken == parameters(theirs) == parameters(ours) - parameters(ours.classifier)
    image = torch.empty(2, 3, 64, 96)
    with torch.no_grad():
        expected = theirs.eval()([image, image, *maps()])
        torch.testing.assert_close(ours.eval()(maps())[1], expected)


def test_segformer_gives_what_another_implementation_gives() -> None:
    decoder = pytest.importorskip("segmentation_models_pytorch.decoders.segformer.decoder")
    torch.manual_seed(0)
    theirs = decoder.SegformerDecoder([3, 0, *CHANNELS], segmentation_channels=10)
    ours = SegFormerHead(CHANNELS, 5, channels=10, align_corners=False)
    source = [
        *((f"projections.{3 - i}.", each) for i, each in enumerate(theirs.mlp_stage)),
        ("fuse.", theirs.fuse_stage),
    ]
    taken = copy_in_order(ours, source)
    assert taken == parameters(theirs) == parameters(ours) - parameters(ours.classifier)
    image = torch.empty(2, 3, 64, 96)
    with torch.no_grad():
        expected = theirs.eval()([image, image[:, :0], *maps()])
        torch.testing.assert_close(ours.eval()(maps())[1], expected)


def copy_in_order(ours: nn.Module, source: list[tuple[str, nn.Module]]) -> int:
    """Copy weights between modules whose parameters come in the same order; how many were copied."""
    own = dict(ours.named_parameters())
    taken = 0
    for prefix, module in source:
        target = [p for name, p in own.items() if name.startswith(prefix)]
        for mine, theirs in zip(target, module.parameters(), strict=True):
            mine.data.copy_(theirs.data.view_as(mine))
            taken += mine.numel()
    return taken


@pytest.mark.parametrize("head", PYRAMIDS)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_logits_have_the_stride_of_the_shallowest_map(head: str, output_stride: int) -> None:
    with torch.device("meta"):
        network = build(NetworkSpec("resnet18", 5, output_stride=output_stride, head=head))
        out = network(torch.empty(2, 3, 65, 97), ("stage1", "stage4", "embedding"))
    assert out.logits.shape == (2, 5, 17, 25)
    assert out.taps["embedding"].shape[2:] == out.taps["stage1"].shape[2:] == (17, 25)
    assert out.taps["stage4"].shape[2:] == {8: (9, 13), 16: (5, 7), 32: (3, 4)}[output_stride]
    assert out.aux is not None
    assert out.aux.shape[2:] == {8: (9, 13), 16: (5, 7), 32: (5, 7)}[output_stride]


@pytest.mark.parametrize("head", PYRAMIDS)
@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_every_stage_reaches_the_logits_however_many_there_are(head: str, stages: int) -> None:
    torch.manual_seed(0)
    net = PYRAMIDS[head](CHANNELS[-stages:], 5, channels=6)
    inputs = [each.requires_grad_() for each in maps()[-stages:]]
    logits, embedding = net(inputs)
    assert logits.shape == (2, 5, *SIZES[-stages])
    assert embedding.shape == (2, 6, *SIZES[-stages])
    logits.square().sum().backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in inputs)
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("head", PYRAMIDS)
def test_resizes_follow_align_corners(head: str) -> None:
    torch.manual_seed(0)
    one, other = (PYRAMIDS[head](CHANNELS, 5, channels=6, align_corners=a).eval() for a in (True, False))
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        assert not torch.allclose(one(maps())[0], other(maps())[0], atol=1e-3)


def test_deep_context_reaches_every_position_of_upernet_but_stays_local_in_segformer() -> None:
    """The pooled bin sees the whole image; SegFormer's head sees as far as the resize spreads, no further."""
    reach = {}
    for name, head in PYRAMIDS.items():
        torch.manual_seed(0)
        net = head(CHANNELS, 5, channels=6, align_corners=False).eval()
        inputs = maps(1)
        moved = [*inputs[:-1], inputs[-1].clone()]
        moved[-1][..., 0, 0] += 10
        with torch.no_grad():
            reach[name] = (net(inputs)[0] != net(moved)[0]).any(1)
    assert reach["upernet"].all()
    assert reach["segformer"][..., :8, :8].any()
    assert not reach["segformer"][..., 12:, 12:].any()


@pytest.mark.parametrize("level", range(len(CHANNELS)))
def test_a_level_of_upernet_carries_its_own_map_and_every_deeper_one(level: int) -> None:
    torch.manual_seed(0)
    net = UPerNetHead(CHANNELS, 5, channels=6).eval()
    weight = net.fuse[0].weight.data
    weight[:, : 6 * level] = 0
    weight[:, 6 * (level + 1) :] = 0
    with torch.no_grad():
        before = net(maps())[0]
        for place in range(len(CHANNELS)):
            moved = maps()
            moved[place] = moved[place] + 1
            reached = not torch.allclose(net(moved)[0], before, atol=1e-5)
            assert reached == (place >= level)


@pytest.mark.parametrize("head", HEADS)
def test_one_image_trains_a_head_exactly_if_no_map_is_pooled_to_one_value(head: str) -> None:
    net = HEADS[head]((8, 8, 8, 8), 5, channels=4)
    one_image = [each[:, :8] for each in maps(1)[:1] * 4]
    if net.pools_globally:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            net(one_image)
    else:
        net(one_image)
    assert UPerNetHead.pools_globally
    assert not SegFormerHead.pools_globally
