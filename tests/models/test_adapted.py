"""Modules that hwdkit has never heard of, as its networks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hwdkit.models.adapted import adapt


class Tiny(nn.Module):
    """Two convolutions; `form` decides how the logits are returned."""

    def __init__(self, classes: int = 3, form: str = "tensor") -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, stride=4, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.classifier = nn.Conv2d(4, classes, 1)
        self.form = form

    def forward(self, image: Tensor) -> Any:
        logits = self.classifier(self.norm(self.body(image)).relu())
        return {
            "tensor": logits,
            "mapping": {"out": logits, "aux": logits + 1},
            "object": SimpleNamespace(logits=logits),
            "pair": (logits, logits),
        }[self.form]


@pytest.mark.parametrize("form", ["tensor", "mapping", "object"])
def test_logits_are_those_of_the_module_on_normalised_pixels(form: str) -> None:
    module = Tiny(form=form)
    network = adapt(module, 3).eval()
    image = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (image / 255 - mean[:, None, None]) / std[:, None, None]
    expected = module(pixels)
    expected = {
        "tensor": lambda: expected,
        "mapping": lambda: expected["out"],
        "object": lambda: expected.logits,
    }[form]()
    torch.testing.assert_close(network(image).logits, expected)
    assert network.has_aux == (form == "mapping")


def test_auxiliary_logits_come_in_training_or_when_asked() -> None:
    network = adapt(Tiny(form="mapping"), 3)
    image = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    assert network.train()(image).aux is not None
    assert network.eval()(image).aux is None
    assert network(image, aux=True).aux is not None


def test_taps_are_the_outputs_of_submodules() -> None:
    network = adapt(Tiny(), 3, taps={"stage1": "body"})
    assert network.tap_channels == {"stage1": 4}
    output = network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), ("stage1",))
    assert output.taps["stage1"].shape == (1, 4, 8, 8)
    assert not network.module.body._forward_hooks
    with pytest.raises(ValueError, match="unknown tap stage4; Tiny has stage1"):
        network(torch.zeros(1, 3, 32, 32), ("stage4",))


class Patches(Tiny):
    """Takes one size alone."""

    def forward(self, image: Tensor) -> Any:
        assert image.shape[2:] == (56, 28)
        return super().forward(image)


def test_a_module_of_one_size_is_tried_at_that_size() -> None:
    module = Patches()
    assert adapt(module, 3, size=(56, 28)).blank().shape == (1, 3, 56, 28)
    with pytest.raises(AssertionError):
        adapt(module, 3)
    assert module.training, "also after a trial that failed"


def test_adapting_changes_neither_statistics_nor_mode() -> None:
    module = Tiny()
    module.norm.eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    adapt(module, 3)
    assert module.training
    assert not module.norm.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_the_state_dict_is_that_of_the_module() -> None:
    module, other = Tiny(), Tiny()
    network = adapt(module, 3)
    assert list(network.state_dict()) == list(module.state_dict())
    other.load_state_dict(network.state_dict())
    again = adapt(Tiny(), 3)
    nn.ModuleDict({"student": again}).load_state_dict(nn.ModuleDict({"student": network}).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), module.parameters(), strict=True))


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (Tiny(classes=5), {}, r"Tiny must return logits \(N, 3, h, w\).*tensor \(1, 5, 16, 16\)"),
        (Tiny(form="pair"), {}, "returned a tuple"),
        (nn.Flatten(), {}, r"Flatten must return.*tensor \(1, 12288\)"),
        (Tiny(), {"taps": {"stage1": "bodi"}}, "stage1: bodi"),
    ],
)
def test_what_is_no_segmentation_network_is_refused_at_once(
    module: nn.Module, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        adapt(module, 3, **options)
