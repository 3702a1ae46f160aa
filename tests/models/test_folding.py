"""A folded network computes what it did, with fewer modules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from hwdkit.models.folding import fold_batch_norm
from hwdkit.models.segmenter import NetworkSpec, Segmenter, build

TINY_RESNET = {"layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32]}


def lively(spec: NetworkSpec) -> Segmenter:
    """A network whose batch norms are not the identity."""
    torch.manual_seed(0)
    network = build(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.running_mean, -0.5), (module.running_var, 0.5), (module.bias, -0.2)):
                assert tensor is not None
                nn.init.uniform_(tensor, low, low + 1)
    return network.eval()


def norms(network: nn.Module) -> Iterator[nn.Module]:
    return (module for module in network.modules() if isinstance(module, nn.BatchNorm2d))


@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec("resnet18", 5, backbone_options=TINY_RESNET, head_channels=8),
        NetworkSpec("resnet18", 5, {**TINY_RESNET, "stem_type": "deep", "stem_width": 8}, head="pspnet"),
        NetworkSpec("mobilenetv2_050", 5, head_channels=8, aux=False),
    ],
    ids=lambda spec: f"{spec.backbone}-{spec.head}",
)
def test_every_batch_norm_is_gone_and_every_map_stays(spec: NetworkSpec) -> None:
    network = lively(spec).double()
    folded = fold_batch_norm(network)
    assert list(norms(network))
    assert not list(norms(folded))
    image = torch.randint(256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected, ours = (net(image, tuple(network.tap_channels), aux=spec.aux) for net in (network, folded))
    for name in tuple(network.tap_channels):
        torch.testing.assert_close(ours.taps[name], expected.taps[name])
    torch.testing.assert_close(ours.logits, expected.logits)


class ReadTwice(nn.Module):
    """A block whose convolution goes to more than its batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(64, 8, 1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        made = self.conv1(x)
        normed: Tensor = self.bn1(made)
        return normed - made


class NormedNext(nn.Module):
    """A block that hands out its convolution's output; what reads it normalises it first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(24, 32, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.conv1(x)
        return made


class NormedInput(nn.Module):
    """A head that begins with a batch norm."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.bn, self.head, self.channels = nn.BatchNorm2d(32), head, head.channels

    def forward(self, stages: list[Tensor]) -> tuple[Tensor, Tensor]:
        made: tuple[Tensor, Tensor] = self.head([*stages[:-1], self.bn(stages[-1])])
        return made


def test_a_network_whose_logits_would_move_is_left_alone() -> None:
    network = lively(NetworkSpec("resnet18", 5, backbone_options=TINY_RESNET, head="fcn", aux=False))
    block = ReadTwice().eval()
    nn.init.uniform_(block.bn1.running_mean, 2, 3)  # type: ignore[arg-type]
    network.backbone.set_submodule("layer1.0", block)
    assert fold_batch_norm(network) is network


def test_a_network_of_which_a_loss_would_read_another_tap_is_left_alone() -> None:
    """The logits stay: only the stage that the convolution makes would hold what the norm makes of it."""
    network = lively(NetworkSpec("resnet18", 5, backbone_options=TINY_RESNET, head="fcn", aux=False))
    network.backbone.set_submodule("layer4", NormedNext())
    network.head = NormedInput(network.head).eval()
    nn.init.uniform_(network.head.bn.running_mean, 2, 3)  # type: ignore[union-attr, arg-type]
    assert fold_batch_norm(network) is network


def test_a_norm_that_others_watch_stays() -> None:
    """timm hands out the maps of some backbones by hooks: they must not go with the norm."""
    network = lively(NetworkSpec("resnet18", 5, backbone_options=TINY_RESNET, head="fcn", aux=False))
    watched = network.backbone.get_submodule("layer1.0.bn1")
    watched.register_forward_hook(lambda module, inputs, output: None)
    folded = fold_batch_norm(network)
    assert folded is not network
    assert [type(norm) for norm in norms(folded)] == [nn.BatchNorm2d]
    assert len(watched._forward_hooks) == 1
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_network_of_numbers_that_are_none_is_left_alone() -> None:
    network = lively(NetworkSpec("resnet18", 5, backbone_options=TINY_RESNET, head="fcn", aux=False))
    nn.init.constant_(next(network.head.parameters()), float("nan"))
    assert fold_batch_norm(network) is network


def test_it_is_the_same_network_that_is_folded_each_time() -> None:
    network = lively(NetworkSpec("resnet18", 5, backbone_options=TINY_RESNET, head_channels=8))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(1)
    first = fold_batch_norm(network).state_dict()
    torch.manual_seed(2)
    second = fold_batch_norm(network).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_nothing_is_left_to_train() -> None:
    network = lively(NetworkSpec("resnet18", 5, backbone_options=TINY_RESNET, head="fcn", aux=False))
    folded = fold_batch_norm(network.requires_grad_(False))
    assert not any(parameter.requires_grad for parameter in folded.parameters())
