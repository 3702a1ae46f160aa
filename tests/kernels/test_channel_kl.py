"""The fused channel-wise divergence is the eager one, weights included, however many images at a time."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from hwdkit.kernels.channel_kl import weighted_channel_kl
from hwdkit.losses.channel_wise import CWD, channel_kl, channel_wise
from hwdkit.losses.hwd import HWD, channel_divergence
from hwdkit.types import SegOutput

ROW = 8 * 6 * 7
ONE_CHANNEL, TWO_CHANNELS, ONE_IMAGE, TWO_IMAGES = 1, 2 * ROW, 5 * ROW, 10 * ROW
BUDGETS = [ONE_CHANNEL, TWO_CHANNELS, ONE_IMAGE, TWO_IMAGES, 2**40]


def pair(*, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    made = torch.Generator().manual_seed(0)
    student, teacher = (2 * torch.randn(3, 5, 6, 7, generator=made, dtype=torch.float64) for _ in range(2))
    label = torch.randint(5, (3, 24, 28), generator=made)
    return student.to(dtype).requires_grad_(), teacher.to(dtype), label


@pytest.mark.parametrize("budget", BUDGETS)
def test_without_weights_it_is_the_mean_of_channel_kl(budget: int) -> None:
    student, teacher, _ = pair()
    ours = weighted_channel_kl(student, teacher, temperature=3.0, budget=budget)
    eager = channel_kl(student, teacher, temperature=3.0).mean()
    torch.testing.assert_close(ours, eager, rtol=1e-12, atol=0)
    (gradient,), (expected,) = (torch.autograd.grad(value, student) for value in (ours, eager))
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("budget", BUDGETS)
def test_weights_are_constants_of_what_was_measured(budget: int) -> None:
    student, teacher, _ = pair()
    fixed = torch.rand(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    area = 1 + torch.rand(3, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    divergence = channel_divergence(student, teacher, divergence="mse", on="activation", temperature=1.0)
    seen: list[Tensor] = []

    def weigh(measured: Tensor) -> Tensor:
        seen.append(measured)
        first = sum(map(len, seen[:-1]))
        return fixed[first : first + len(measured)]

    ours = weighted_channel_kl(student, teacher, temperature=1.0, weigh=weigh, area=area, budget=budget)
    torch.testing.assert_close(torch.cat(seen), (divergence / area).detach())
    eager = (fixed * channel_kl(student, teacher, temperature=1.0)).mean()
    torch.testing.assert_close(ours, eager, rtol=1e-12, atol=0)
    (gradient,), (expected,) = (torch.autograd.grad(value, student) for value in (ours, eager))
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize(
    ("divergence", "on", "correction"),
    [
        *product(("mse", "l1", "smooth_l1"), ("activation", "logits"), ("none", "paper")),
        ("kl", "activation", "sqrt"),
    ],
)
def test_hwd_is_the_plain_lines_of_its_forward(divergence: str, on: str, correction: str) -> None:
    student, teacher, label = pair()
    loss = HWD(divergence=divergence, divergence_on=on, area_correction=correction)  # type: ignore[arg-type]
    ours = loss(student, teacher, label)
    loss.fused = False
    eager = loss(student, teacher, label)
    torch.testing.assert_close(ours, eager, rtol=1e-12, atol=0)
    (gradient,), (expected,) = (torch.autograd.grad(value, student) for value in (ours, eager))
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-16)
    weights = loss.channel_weights(student, teacher, label)
    assert torch.equal(eager, (weights * channel_kl(student, teacher, temperature=4.0)).mean())


def test_the_plain_lines_of_hwd_can_be_differentiated_twice() -> None:
    student, teacher, label = pair()
    loss = HWD()
    loss.fused = False
    (slope,) = torch.autograd.grad(loss(student, teacher, label), student, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), student)
    assert curvature.isfinite().all()
    assert curvature.any()


def test_cwd_is_the_eager_mean() -> None:
    student, teacher, label = pair()
    ours = CWD(student_channels=5, teacher_channels=5)(
        SegOutput(student, None, {}), SegOutput(teacher, None, {}), label
    )
    eager = channel_wise(student, teacher, normalise="channel", divergence="kl", temperature=4.0)
    torch.testing.assert_close(ours, eager, rtol=1e-12, atol=0)


def test_numeric_differences_agree_with_the_gradient() -> None:
    student, teacher, _ = pair()
    assert torch.autograd.gradcheck(
        lambda x: weighted_channel_kl(x, teacher, temperature=2.0, budget=ONE_IMAGE), student
    )


def test_backward_twice_gives_the_same_gradient_twice() -> None:
    student, teacher, _ = pair()
    loss = 3 * weighted_channel_kl(student, teacher, temperature=1.0)
    first = torch.autograd.grad(loss, student, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(loss, student)[0], first)


def test_half_precision_maps_are_compared_in_float32() -> None:
    student, teacher, _ = pair(dtype=torch.bfloat16)
    value = weighted_channel_kl(student, teacher, temperature=1.0)
    assert value.dtype == torch.float32
    exact = channel_kl(student.detach().double(), teacher.double(), temperature=1.0).mean()
    assert abs(value.item() / exact.item() - 1) < 1e-5
    assert torch.autograd.grad(value, student)[0].dtype == torch.bfloat16


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher, _ = pair()
    teacher.requires_grad_()
    weighted_channel_kl(student, teacher, temperature=1.0).backward()
    assert teacher.grad is None


def test_strided_maps_are_read_as_they_are() -> None:
    student, teacher, _ = pair()
    last = student.detach().to(memory_format=torch.channels_last).requires_grad_()
    ours = weighted_channel_kl(last, teacher.to(memory_format=torch.channels_last), temperature=1.0)
    eager = weighted_channel_kl(student, teacher, temperature=1.0)
    torch.testing.assert_close(ours, eager)
    torch.testing.assert_close(torch.autograd.grad(ours, last)[0], torch.autograd.grad(eager, student)[0])
