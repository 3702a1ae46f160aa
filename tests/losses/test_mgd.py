"""Masked generative distillation: the recorded numbers, the mask, and what the loss is a sum over."""

from __future__ import annotations

import golden_inputs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.losses import MGD
from hwdkit.losses.mgd import kept_positions, random_mask, squared_error_per_image
from hwdkit.types import SegOutput

GOLDEN = golden_inputs.arrays("mgd")
PARAMETERS = {
    f"generate.{layer}.{kind}": f"{layer.replace('.', '_')}_{kind}"
    for layer in ("align", "generation.0", "generation.2")
    for kind in ("weight", "bias")
}
quickly = settings(deadline=None, derandomize=True, max_examples=20)
seeds = st.integers(0, 2**16)


def recorded() -> MGD:
    """The module with the recorded parameters."""
    loss = MGD(student_channels=6, teacher_channels=8).double()
    loss.load_state_dict({ours: GOLDEN[theirs] for ours, theirs in PARAMETERS.items()})
    return loss


def outputs(seed: int, student: int = 3, teacher: int = 4, size: int = 5) -> tuple[SegOutput, SegOutput]:
    generator = torch.Generator().manual_seed(seed)
    maps = [
        torch.randn(2, channels, size, size + 1, generator=generator, dtype=torch.float64)
        for channels in (student, teacher)
    ]
    mine, theirs = (SegOutput(map_[:, :2], None, {"embedding": map_.requires_grad_()}) for map_ in maps)
    return mine, theirs


def label() -> Tensor:
    return torch.zeros(2, 20, 24, dtype=torch.int64)


def test_value_and_every_gradient_are_the_recorded_ones() -> None:
    loss, student, teacher = recorded(), golden_inputs.student(), golden_inputs.teacher()
    value = loss.masked_loss(student.taps["embedding"], teacher.taps["embedding"], GOLDEN["mask"])
    assert value.item() == pytest.approx(GOLDEN["loss"].item(), rel=1e-8)
    value.backward()
    gradient = student.taps["embedding"].grad
    torch.testing.assert_close(gradient, GOLDEN["grad_feat_S"], rtol=1e-7, atol=1e-12)
    for ours, theirs in PARAMETERS.items():
        expected = GOLDEN[f"grad_{theirs}"]
        torch.testing.assert_close(loss.get_parameter(ours).grad, expected, rtol=1e-7, atol=1e-12)


def test_mask_of_the_recorded_draw_is_the_recorded_one() -> None:
    assert torch.equal(kept_positions(GOLDEN["rand"], mask_ratio=0.75), GOLDEN["mask"])


def test_forward_is_the_loss_with_a_mask_from_the_global_generator() -> None:
    loss = MGD(student_channels=3, teacher_channels=4, mask_ratio=0.4).double()
    student, teacher = outputs(1)
    torch.manual_seed(7)
    value = loss(student, teacher, label())
    draw = torch.rand(2, 1, 5, 6, generator=torch.Generator().manual_seed(7))
    expected = loss.masked_loss(
        student.taps["embedding"], teacher.taps["embedding"], (draw <= 1 - 0.4).double()
    )
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    assert loss(student, teacher, label()) != value
    torch.manual_seed(7)
    assert loss(student, teacher, label()) == value


@quickly
@given(seed=seeds, ratio=st.sampled_from([0.0, 0.1, 0.5, 0.75, 0.95]))
def test_masked_share_is_the_ratio_alike_for_all_channels(seed: int, ratio: float) -> None:
    torch.manual_seed(seed)
    mask = random_mask(torch.zeros(4, 3, 32, 32), mask_ratio=ratio)
    assert mask.shape == (4, 1, 32, 32)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert mask.mean().item() == pytest.approx(1 - ratio, abs=5 * (ratio * (1 - ratio) / 4096) ** 0.5 + 1e-9)


def test_images_are_masked_apart() -> None:
    first, second = random_mask(torch.zeros(2, 1, 16, 16), mask_ratio=0.5)
    assert not torch.equal(first, second)


@quickly
@given(seed=seeds)
def test_masked_positions_get_no_gradient_and_kept_ones_do(seed: int) -> None:
    loss = MGD(student_channels=3, teacher_channels=4).double()
    student, teacher = (out.taps["embedding"] for out in outputs(seed))
    mask = kept_positions(
        torch.rand(2, 1, 5, 6, generator=torch.Generator().manual_seed(seed)), mask_ratio=0.5
    )
    (gradient,) = torch.autograd.grad(loss.masked_loss(student, teacher, mask.double()), student)
    assert torch.equal((gradient != 0).any(1, keepdim=True), mask == 1)


@quickly
@given(seed=seeds, repeats=st.integers(1, 3))
def test_loss_is_a_mean_over_images_and_a_sum_over_all_else(seed: int, repeats: int) -> None:
    generated, teacher = torch.randn(
        2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    expected = ((generated - teacher) ** 2).sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(squared_error_per_image(generated, teacher), expected)
    many = squared_error_per_image(generated.repeat(repeats, 1, 1, 1), teacher.repeat(repeats, 1, 1, 1))
    torch.testing.assert_close(many, expected)
    wide = squared_error_per_image(generated.repeat(1, repeats, 1, 1), teacher.repeat(1, repeats, 1, 1))
    torch.testing.assert_close(wide, repeats * expected)


def test_equal_channels_need_no_alignment() -> None:
    names = [name for name, _ in MGD(student_channels=4, teacher_channels=4).named_parameters()]
    assert names == [name for name in PARAMETERS if "align" not in name]


def test_teacher_gets_no_gradient_and_every_parameter_does() -> None:
    loss = MGD(student_channels=3, teacher_channels=4, mask_ratio=0.5).double()
    student, teacher = outputs(3)
    loss(student, teacher, label()).backward()
    assert teacher.taps["embedding"].grad is None
    assert student.taps["embedding"].grad is not None
    assert all(parameter.grad is not None for parameter in loss.parameters())


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("size", [1, 5])
def test_value_and_gradients_are_finite(scale: float, size: int) -> None:
    loss = MGD(student_channels=3, teacher_channels=4, mask_ratio=0.9)
    for seed in range(3):  # with one position per image, all are masked now and then
        torch.manual_seed(seed)
        student, teacher = (torch.randn(2, channels, size, size) * scale for channels in (3, 4))
        student.requires_grad_()
        value = loss(*(SegOutput(x, None, {"embedding": x}) for x in (student, teacher)), label())
        value.backward()
        assert value.isfinite()
        assert student.grad is not None
        assert student.grad.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in loss.parameters())


def test_autocast_and_half_precision_maps_are_compared_in_float32() -> None:
    loss = MGD(student_channels=3, teacher_channels=4, mask_ratio=0.5)
    half = [SegOutput(out.logits, None, {"embedding": out.taps["embedding"].half()}) for out in outputs(2)]
    torch.manual_seed(1)
    expected = loss(
        *(out._replace(taps={"embedding": out.taps["embedding"].float()}) for out in half), label()
    )
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(*half, label())
    assert value.dtype == torch.float32
    assert value == expected


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan"), float("inf")])
def test_ratio_outside_its_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="mask_ratio must be at least 0 and less than 1"):
        MGD(student_channels=3, teacher_channels=4, mask_ratio=ratio)
