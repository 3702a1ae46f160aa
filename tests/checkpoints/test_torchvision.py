"""torchvision's FCN and DeepLabV3 are the same networks here."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from hwdkit.checkpoints.torchvision import INPUT, network
from hwdkit.errors import CheckpointError
from hwdkit.models.segmenter import NetworkSpec, build


def made(name: str, *, aux: bool = True) -> nn.Module:
    make = getattr(torchvision.models.segmentation, name)
    with torch.device("meta"):
        network: nn.Module = make(weights=None, weights_backbone=None, num_classes=21, aux_loss=aux)
    return network.eval()


@pytest.fixture(scope="module")
def shapes() -> dict[str, Tensor]:
    return dict(made("fcn_resnet50").state_dict())


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet50"])
def test_outputs_are_torchvisions(name: str) -> None:
    torch.manual_seed(0)
    theirs = made(name).to_empty(device="cpu")
    for key, tensor in theirs.state_dict().items():
        if tensor.dim() == 4:
            bound = tensor[0].numel() ** -0.5
            tensor.uniform_(-bound, bound)
        elif tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5) if "var" in key or "weight" in key else tensor.uniform_(-0.2, 0.2)
    found = network(theirs.state_dict())
    with torch.device("meta"):
        ours = build(NetworkSpec.from_dict(found.network))
    ours.load_state_dict(found.state, strict=True, assign=True)
    pixels = torch.rand(1, 3, 33, 65)
    with torch.no_grad():
        expected, got = theirs(pixels), ours.eval().forward_normalised(pixels, aux=True)
    for key, logits in (("out", got.logits), ("aux", got.aux)):
        assert logits is not None
        assert expected[key].std() > 0.1
        torch.testing.assert_close(ours.upsample(logits, (33, 65)), expected[key], rtol=1e-4, atol=1e-4)


def test_facts_of_fcn(shapes: dict[str, Tensor]) -> None:
    spec = network(shapes).network
    assert (spec["head"], spec["head_channels"], spec["classes"], spec["aux"]) == ("fcn", 512, 21, True)
    assert (spec["backbone"], spec["output_stride"], spec["input"]) == ("resnet50", 8, INPUT)
    deep = network(dict(made("fcn_resnet101", aux=False).state_dict())).network
    assert (deep["backbone"], deep["aux"]) == ("resnet101", False)


def test_each_single_missing_tensor_is_an_error(shapes: dict[str, Tensor]) -> None:
    for gone in shapes:
        with pytest.raises(CheckpointError):
            network({key: value for key, value in shapes.items() if key != gone})
    with pytest.raises(CheckpointError, match=r"not a fcn_resnet50 of torchvision:\n  unexpected odd"):
        network(shapes | {"odd": torch.zeros(1)})


def test_names_of_a_file_stay_on_one_short_line(shapes: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError) as caught:
        network(shapes | {"odd\nerror[gate]: \x1b[2J" + "k" * 5000: torch.zeros(1)})
    _, second = caught.value.message.split("\n")
    assert "\x1b" not in second
    assert len(second) < 200


def test_backbones_that_are_not_offered_are_named() -> None:
    theirs = dict(made("deeplabv3_mobilenet_v3_large").state_dict())
    with pytest.raises(CheckpointError, match="no ResNet-50 or ResNet-101") as caught:
        network(theirs)
    assert "DeepLabV3 and FCN" in caught.value.hint
