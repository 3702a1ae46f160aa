"""torchvision's FCN is the same network here; its DeepLabV3 is in tests/commands/test_checkpoint.py."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from hwdkit.checkpoints.torchvision import INPUT, network
from hwdkit.errors import CheckpointError
from hwdkit.models.segmenter import NetworkSpec, build


def fcn(depth: int, *, aux: bool = True) -> nn.Module:
    make = getattr(torchvision.models.segmentation, f"fcn_resnet{depth}")
    made: nn.Module = make(weights=None, weights_backbone=None, num_classes=21, aux_loss=aux)
    return made.eval()


@pytest.fixture(scope="module")
def shapes() -> dict[str, Tensor]:
    with torch.device("meta"):
        return dict(fcn(50).state_dict())


def test_fcn_equals_torchvisions() -> None:
    torch.manual_seed(0)
    theirs = fcn(50)
    for name, tensor in theirs.state_dict().items():
        if tensor.dim() == 1:  # fresh norms are all alike
            tensor.uniform_(0.5, 1.5) if "var" in name or "weight" in name else tensor.uniform_(-0.2, 0.2)
    found = network(theirs.state_dict())
    with torch.device("meta"):
        ours = build(NetworkSpec.from_dict(found.network))
    ours.load_state_dict(found.state, strict=True, assign=True)
    pixels = torch.rand(1, 3, 33, 65)
    with torch.no_grad():
        expected, got = theirs(pixels), ours.eval().forward_normalised(pixels, aux=True)
    for key, logits in (("out", got.logits), ("aux", got.aux)):
        assert logits is not None
        torch.testing.assert_close(ours.upsample(logits, (33, 65)), expected[key], rtol=1e-4, atol=1e-4)


def test_facts_of_fcn(shapes: dict[str, Tensor]) -> None:
    spec = network(shapes).network
    assert (spec["head"], spec["head_channels"], spec["classes"], spec["aux"]) == ("fcn", 512, 21, True)
    assert (spec["backbone"], spec["output_stride"], spec["input"]) == ("resnet50", 8, INPUT)
    with torch.device("meta"):
        deep = network(dict(fcn(101, aux=False).state_dict())).network
    assert (deep["backbone"], deep["aux"]) == ("resnet101", False)


def test_each_single_missing_tensor_is_an_error(shapes: dict[str, Tensor]) -> None:
    for gone in shapes:
        with pytest.raises(CheckpointError):
            network({key: value for key, value in shapes.items() if key != gone})
    with pytest.raises(CheckpointError, match=r"not a fcn_resnet50 of torchvision:\n  unexpected odd"):
        network(shapes | {"odd": torch.zeros(1)})
