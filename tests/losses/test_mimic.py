"""MIMIC: recorded values of CIRKD's FitNet loss, and its options."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_inputs import LABEL, arrays, student, teacher, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hwdkit.losses import Mimic
from hwdkit.losses.mimic import feature_distance
from hwdkit.types import SegOutput

GOLDEN = arrays("feature_losses")
quickly = settings(deadline=None, derandomize=True, max_examples=20)


def recorded(**options: Any) -> Mimic:
    """The loss with the projector that the numbers were recorded with."""
    loss = Mimic(student_channels=6, teacher_channels=8, **options).double()
    with torch.no_grad():
        loss.get_parameter("projector.weight").copy_(GOLDEN["projector_weight"])
    return loss


def maps(seed: int, *size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student_map, teacher_map = torch.randn(2, *size, generator=generator, dtype=torch.float64)
    return student_map, teacher_map


def test_value_and_gradient_are_those_of_the_official_code() -> None:
    found, gradient = value_and_gradient(recorded())
    assert found == pytest.approx(GOLDEN["mimic"].item(), rel=1e-8)
    torch.testing.assert_close(gradient, GOLDEN["gradient_mimic"], rtol=1e-7, atol=1e-12)


def test_l1_is_the_mean_absolute_difference_of_the_projected_map() -> None:
    found, _ = value_and_gradient(recorded(distance="l1"))
    projected = torch.einsum(
        "oc,nchw->nohw", GOLDEN["projector_weight"][:, :, 0, 0], student().taps["embedding"]
    )
    expected = (projected - teacher().taps["embedding"]).abs().mean()
    assert found == pytest.approx(expected.item(), rel=1e-12)


@quickly
@given(seed=st.integers(0, 2**16), factor=st.sampled_from([1e-3, 2.0, 1e4]))
def test_grows_with_the_square_of_the_scale_or_with_the_scale(seed: int, factor: float) -> None:
    s, t = maps(seed, 2, 3, 4, 5)
    for distance, power in (("mse", 2), ("l1", 1)):
        scaled = feature_distance(factor * s, factor * t, distance=distance)  # type: ignore[arg-type]
        plain = feature_distance(s, t, distance=distance)  # type: ignore[arg-type]
        torch.testing.assert_close(scaled, factor**power * plain)


@pytest.mark.parametrize("distance", ["mse", "l1"])
@pytest.mark.parametrize("size", [(1, 3, 1, 1), (2, 3, 4, 5)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_degenerate_maps_give_a_finite_value_and_gradient(
    distance: Any, size: tuple[int, int, int, int], scale: float
) -> None:
    s, t = (scale * x.float() for x in maps(1, *size))
    for other in (t, s.clone()):
        mine = s.clone().requires_grad_()
        loss = feature_distance(mine, other, distance=distance)
        (gradient,) = torch.autograd.grad(loss, mine)
        assert loss.isfinite()
        assert gradient.isfinite().all()
    assert feature_distance(s, s, distance=distance).item() == 0


@pytest.mark.parametrize("distance", ["mse", "l1"])
def test_the_projector_is_trained_and_the_teacher_is_not(distance: Any) -> None:
    loss = recorded(distance=distance)
    mine, theirs = student(), teacher()
    theirs.taps["embedding"].requires_grad_()
    loss(mine, theirs, LABEL).backward()
    feature_distance(mine.taps["embedding"], theirs.taps["embedding"][:, :6], distance=distance).backward()
    assert theirs.taps["embedding"].grad is None
    assert mine.taps["embedding"].grad is not None
    (weight,) = loss.parameters()
    assert weight.grad is not None
    assert weight.grad.any()


def test_the_projector_has_no_bias_and_is_left_out_where_channels_agree() -> None:
    assert [name for name, _ in recorded().named_parameters()] == ["projector.weight"]
    assert isinstance(Mimic(student_channels=8, teacher_channels=8).projector, nn.Identity)
    assert list(Mimic(student_channels=8, teacher_channels=8, projector="linear").parameters()) != []


def test_the_tap_says_which_map_is_compared() -> None:
    s, t = maps(2, 2, 3, 4, 5)
    loss = Mimic(student_channels=3, teacher_channels=3, tap="logits")
    assert loss.taps == ()
    found = loss(SegOutput(s, None, {}), SegOutput(t, None, {}), LABEL)
    torch.testing.assert_close(found, (s - t).square().mean())
    other = Mimic(student_channels=3, teacher_channels=3, tap="stage3", teacher_tap="stage4")
    assert (other.taps, other.teacher_taps) == (("stage3",), ("stage4",))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"distance": "l2"}, "distance must be mse or l1, not 'l2'"),
        ({"projector": "none"}, "equal channels"),
        ({"projector": "mlp"}, "projector must be"),
        ({"tap": "logits", "teacher_tap": "stage4"}, "logits"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Mimic(student_channels=6, teacher_channels=8, **options)
