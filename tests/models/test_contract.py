"""The input contract: pixels arrive as uint8 RGB and leave as the weights want them."""

from __future__ import annotations

import json

import pytest
import torch

from hwdkit.models.contract import InputContract

CIRKD = InputContract("bgr", 255, (104.00698793, 116.66876762, 122.67891434), (1.0, 1.0, 1.0))


@pytest.fixture
def image() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8, generator=generator)


def test_bgr_contract_reverses_the_channels_and_subtracts_without_scaling(image: torch.Tensor) -> None:
    blue, green, red = image[:, 2], image[:, 1], image[:, 0]
    expected = torch.stack([blue - 104.00698793, green - 116.66876762, red - 122.67891434], dim=1)
    torch.testing.assert_close(CIRKD.normalise(image), expected)


def test_rgb_contract_divides_by_255_before_mean_and_std(image: torch.Tensor) -> None:
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    normalised = InputContract().normalise(image)
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(normalised, (image / 255 - mean) / std)


@pytest.mark.parametrize("contract", [CIRKD, InputContract()])
def test_floating_images_are_taken_in_0_to_255_and_left_untouched(
    contract: InputContract, image: torch.Tensor
) -> None:
    floating = image.float()
    assert torch.equal(contract.normalise(floating), contract.normalise(image))
    assert torch.equal(floating, image.float())


def test_contract_survives_json() -> None:
    assert InputContract.from_dict(json.loads(json.dumps(CIRKD.to_dict()))) == CIRKD


@pytest.mark.parametrize(
    "change",
    [
        {"channel_order": "gbr"},
        {"range": 2},
        {"std": (1.0, 0.0, 1.0)},
        {"mean": (0.5,)},
        {"gamma": 2.2},
        {"align_corners": "no"},
    ],
)
def test_contract_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        InputContract.from_dict({**CIRKD.to_dict(), **change})
