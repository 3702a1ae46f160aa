"""The tables of docs/backbones.md: some rows against what their script says today."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch

from hwdkit.measure.profile import count_parameters, true_macs
from hwdkit.models.segmenter import HEADS, NetworkSpec, build

DOCS = Path(__file__).resolve().parents[2] / "docs"
STALE = "run: python docs/generate.py backbones"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_backbones", DOCS / "generate_backbones.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.examine = cache(module.examine)  # type: ignore[attr-defined]
    return module


@pytest.fixture(scope="module")
def page() -> list[str]:
    return (DOCS / "backbones.md").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", ["lcnet_100", pytest.param("pvt_v2_b0", marks=pytest.mark.slow)])
def test_rows_of_a_backbone_are_what_the_script_says(script: ModuleType, page: list[str], name: str) -> None:
    found = script.examine(name)
    rows = [script.works(name, found), *script.costs(name, found)]
    assert [line for line in page if line.startswith(f"| `{name}` |")] == rows, STALE


def test_row_of_a_backbone_that_does_not_work_is_what_the_script_says(
    script: ModuleType, page: list[str]
) -> None:
    row = script.refused("efficientvit_m0", script.examine("efficientvit_m0"))
    assert "its deepest map has stride 64" in row
    assert row in page, STALE


def test_every_backbone_and_every_head_is_on_the_page(script: ModuleType, page: list[str]) -> None:
    for name in script.BACKBONES:
        assert any(line.startswith(f"| `{name}` |") for line in page), f"{name}: {STALE}"
    heads = " | ".join(f"`{head}`" for head in HEADS)
    assert sum(heads in line for line in page) == 2, STALE


@pytest.mark.parametrize("head", ["pspnet", "upernet"])
def test_backbone_and_head_together_cost_what_profile_counts(script: ModuleType, head: str) -> None:
    found = script.examine("lcnet_100")
    with torch.device("meta"):
        network = build(NetworkSpec("lcnet_100", script.CLASSES, output_stride=16, head=head, aux=False))
        image = torch.empty(1, 3, *script.SIZE, dtype=torch.uint8)
    assert found.macs[16]["alone"] + found.macs[16][head] == true_macs(network, image, aux=False)
    assert found.parameters["alone"] + found.parameters[head] == count_parameters(network)[0]


def test_parameter_without_a_gradient_is_reported(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Idle(HEADS["fcn"]):  # type: ignore[misc]
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)
            self.idle = torch.nn.Linear(1, 1)

    monkeypatch.setitem(HEADS, "fcn", Idle)
    assert script._trains("lcnet_100", 32) == "2 parameters get no gradient"
