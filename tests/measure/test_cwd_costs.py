"""The costs that the CWD paper (Shu et al., ICCV 2021, Table 6) prints, from networks of our own blocks.

The PSPNets on ResNets follow the released code, which SKD, IFVD and CWD share. The other networks are in no
release: their heads are inferred from the printed costs, which they reproduce.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from hwdkit.measure.profile import count_parameters, paper_macs, true_macs
from hwdkit.models.blocks import conv_bn_relu
from hwdkit.models.fcn import FCNHead
from hwdkit.models.segmenter import NetworkSpec, Segmenter, build

CLASSES = 19
HALVED = {"stem_width": 32, "channels": [32, 64, 128, 256]}


def pspnet_resnet(backbone: str, *, head_channels: int | None = None, **options: object) -> Segmenter:
    """PSPNet: rounded-up max pooling (65x129 maps of 512x1024), an auxiliary head half as wide as its input.

    Batch norm and ReLU stand for InPlaceABN, which has as many parameters and is not counted either; which
    blocks are dilated makes no difference to what is executed.
    """
    return _resnet(backbone, "pspnet", options, head_channels)


def deeplab_resnet18(width: int = 64, **options: object) -> Segmenter:
    """The same backbone and auxiliary head with a slim DeepLabV3."""
    network = _resnet("resnet18", "deeplabv3", options)
    _slim_deeplab(network, network.tap_channels["stage4"], width)
    return network


def pspnet_mobilenet() -> Segmenter:
    """Bins and embedding 32 wide, no auxiliary head."""
    network = _network("mobilenetv2_100", "pspnet")
    with torch.device("meta"):
        network.head.bins = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), *conv_bn_relu(320, 32, 1)) for size in (1, 2, 3, 6)
        )
        network.head.block = conv_bn_relu(320 + 4 * 32, 32, 3)
        network.head.classifier = nn.Conv2d(32, CLASSES, 1)
    return network


def deeplab_mobilenet() -> Segmenter:
    """A slim DeepLabV3, no auxiliary head."""
    network = _network("mobilenetv2_100", "deeplabv3")
    _slim_deeplab(network, 320, 64)
    return network


def _network(backbone: str, head: str) -> Segmenter:
    with torch.device("meta"):
        return build(NetworkSpec(backbone, CLASSES, head=head, aux=False))


def _resnet(
    backbone: str, head: str, options: dict[str, object], head_channels: int | None = None
) -> Segmenter:
    deep = {"stem_type": "deep", "stem_width": 64, **options}
    with torch.device("meta"):
        network = build(NetworkSpec(backbone, CLASSES, deep, head=head, head_channels=head_channels))
    assert isinstance(network.backbone.maxpool, nn.MaxPool2d)
    network.backbone.maxpool.ceil_mode = True
    stage3 = network.tap_channels["stage3"]
    with torch.device("meta"):
        network.aux_head = FCNHead((stage3,), CLASSES, channels=stage3 // 2)
        network.aux_head.block[0] = nn.Conv2d(stage3, stage3 // 2, 3, padding=1)  # with a bias
    return network


def _slim_deeplab(network: Segmenter, deepest: int, width: int) -> None:
    """Branches `width` wide, projected to twice that, and no further 3x3 block before the classifier."""
    with torch.device("meta"):
        network.head.branches = nn.ModuleList(
            [
                conv_bn_relu(deepest, width, 1),
                *(conv_bn_relu(deepest, width, 3, dilation=rate) for rate in (12, 24, 36)),
            ]
        )
        network.head.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn_relu(deepest, width, 1))
        network.head.project = conv_bn_relu(5 * width, 2 * width, 1)
        network.head.block = nn.Sequential()
        network.head.classifier = nn.Conv2d(2 * width, CLASSES, 1)


NETWORKS: dict[str, tuple[Callable[[], Segmenter], str, str]] = {
    "PSPNet-R101": (lambda: pspnet_resnet("resnet101"), "70.43", "574.9"),
    "PSPNet-R18": (lambda: pspnet_resnet("resnet18"), "13.07", "125.8"),
    "PSPNet-MBV2": (pspnet_mobilenet, "1.98", "16.40"),
    "Deeplab-R18 (0.5)": (lambda: deeplab_resnet18(32, **HALVED), "3.15", "31.06"),
    "Deeplab-R18": (deeplab_resnet18, "12.62", "123.9"),
    "Deeplab-MBV2": (deeplab_mobilenet, "2.45", "20.39"),
}


def printed(value: float, text: str) -> bool:
    """Whether a value is printed so, rounded or cut: the table does both."""
    digits = len(text.partition(".")[2])
    scaled = value * 10**digits
    return text in (f"{value:.{digits}f}", f"{math.floor(scaled) / 10**digits:.{digits}f}")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if "R101" in name else name for name in NETWORKS]
)
def test_printed_costs_are_parameters_with_aux_and_true_macs(name: str) -> None:
    make, params, gmacs = NETWORKS[name]
    network = make()
    image = torch.empty(1, 3, 512, 1024, dtype=torch.uint8, device="meta")
    assert printed(count_parameters(network)[0] / 1e6, params)
    assert printed(true_macs(network, image, aux=True) / 1e9, gmacs)
    assert not printed(paper_macs(network, image, aux=True) / 1e9, gmacs)


def test_the_halved_pspnet_comes_near_in_macs_and_not_in_parameters() -> None:
    network = pspnet_resnet("resnet18", head_channels=64, **HALVED)
    image = torch.empty(1, 3, 512, 1024, dtype=torch.uint8, device="meta")
    assert true_macs(network, image, aux=True) / 1e9 == pytest.approx(31.52, abs=0.01)  # 31.53 in the paper
    assert count_parameters(network)[0] / 1e6 == pytest.approx(3.272, abs=0.001)  # 3.835 in the paper
