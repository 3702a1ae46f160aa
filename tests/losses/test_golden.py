"""The losses against numbers recorded from the official code; `golden/losses.json` says from where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hwdkit.losses import HWD, LOSSES
from hwdkit.losses.hwd import class_pixels
from hwdkit.types import SegOutput

GOLDEN = Path(__file__).parents[1] / "golden"
with np.load(GOLDEN / "losses.npz") as recorded:
    ARRAYS = {name: torch.from_numpy(recorded[name]) for name in recorded.files}
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "losses.json").read_text())["cases"]
LABEL = ARRAYS["label"].long()
TEACHER = ARRAYS["teacher"]

every_case = pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in CASES])


def student() -> Tensor:
    return ARRAYS["student"].clone().requires_grad_()


def tolerance(case: dict[str, Any]) -> float:
    """The official code divides by a float32 square root."""
    return 1e-6 if case["options"].get("area_correction") == "sqrt" else 1e-8


def value(case: dict[str, Any], logits: Tensor, teacher: Tensor = TEACHER) -> Tensor:
    channels = {"student_channels": 7, "teacher_channels": 7} if case["loss"] == "cwd" else {}
    loss = LOSSES[case["loss"]](**channels, **case["options"])
    result: Tensor = loss(SegOutput(logits, None, {}), SegOutput(teacher, None, {}), LABEL)
    return result


def test_every_recorded_case_is_here() -> None:
    count = {name: sum(case["loss"] == name for case in CASES) for name in ("hwd", "cwd", "kd", "ce")}
    assert count == {"hwd": 69, "cwd": 2, "kd": 5, "ce": 1}
    assert sum("gradient" in case for case in CASES) == 20


@every_case
def test_value_is_the_official_one(case: dict[str, Any]) -> None:
    assert value(case, student()).item() == pytest.approx(case["value"], rel=tolerance(case))


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case["name"]) for case in CASES if "gradient" in case]
)
def test_gradient_is_the_official_one(case: dict[str, Any]) -> None:
    logits = student()
    (gradient,) = torch.autograd.grad(value(case, logits), logits)
    torch.testing.assert_close(gradient, ARRAYS[case["gradient"]], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in CASES if "weights" in case])
def test_hwd_weights_are_the_official_ones(case: dict[str, Any]) -> None:
    weights = HWD(**case["options"]).channel_weights(student(), TEACHER, LABEL)
    # Weights reach 1e-18: the absolute part is for a softmax of scores that are -1e2 and further.
    torch.testing.assert_close(weights, ARRAYS["weights"][case["weights"]], rtol=tolerance(case), atol=1e-9)


def test_class_pixels_are_the_official_counts() -> None:
    counts = class_pixels(LABEL, 7, size=(9, 11))
    # The official count starts at 1.
    recorded = ARRAYS["class_pixels"].float()
    assert torch.equal(counts, recorded)


@every_case
def test_float32_agrees_with_the_recorded_float64(case: dict[str, Any]) -> None:
    assert value(case, student().float(), TEACHER.float()).item() == pytest.approx(case["value"], rel=1e-4)
