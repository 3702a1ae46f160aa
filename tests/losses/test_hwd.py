"""Holistic Weighted Distillation: closed forms, a naive twin, and the properties that the paper promises."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hwdkit.losses import CWD, HWD
from hwdkit.losses.hwd import channel_divergence, class_pixels
from hwdkit.types import IGNORE, SegOutput

STRIDE = 4
quickly = settings(deadline=None, derandomize=True, max_examples=25)
seeds = st.integers(0, 2**16)
sizes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 5), st.integers(2, 5))
options = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.5, 1.0, 4.0]),
        "mu": st.sampled_from([-2.0, 0.0, 1.0]),
        "sigma": st.sampled_from([0.5, 1.0, 2.0]),
        "beta": st.sampled_from([0.01, 0.1, 0.9]),
        "divergence": st.sampled_from(["mse", "l1", "smooth_l1", "kl"]),
        "area_correction": st.sampled_from(["none", "paper", "sqrt", "square"]),
        "smoothing": st.sampled_from(["effective_number", "softmax"]),
        "normalise": st.booleans(),
    }
)


def maps(seed: int, size: tuple[int, int, int, int] = (2, 5, 4, 6)) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher logits in float64, and a label of STRIDE times their size with ignored pixels."""
    n, c, h, w = size
    generator = torch.Generator().manual_seed(seed)
    student = 3 * torch.randn(size, generator=generator, dtype=torch.float64)
    teacher = 3 * torch.randn(size, generator=generator, dtype=torch.float64)
    label = torch.randint(0, c + 1, (n, STRIDE * h, STRIDE * w), generator=generator)
    return student, teacher, torch.where(label == c, IGNORE, label)


def value(loss: HWD | CWD, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    result: Tensor = loss(SegOutput(student, None, {}), SegOutput(teacher, None, {}), label)
    return result


def naive_hwd(
    student: Tensor, teacher: Tensor, label: Tensor, *, beta: float, mu: float, area: bool
) -> float:
    """Algorithm 1 of the paper in plain Python, channel by channel, with tau = 4 and sigma = 1."""
    images, classes, tau = student.shape[0], student.shape[1], 4.0
    pixels = class_pixels(label, classes, size=(student.shape[2], student.shape[3])).tolist()
    total = 0.0
    for n in range(images):
        distances, divergences = [], []
        for c in range(classes):
            p_s = (student[n, c].flatten() / tau).softmax(0).tolist()
            p_t = (teacher[n, c].flatten() / tau).softmax(0).tolist()
            distance = sum((t - s) ** 2 for s, t in zip(p_s, p_t, strict=True)) / len(p_s)
            distances.append(distance / (pixels[n][c] + 1 if area else 1))
            divergences.append(sum(t * math.log(t / s) for s, t in zip(p_s, p_t, strict=True)))
        mean = sum(distances) / classes
        std = math.sqrt(sum((d - mean) ** 2 for d in distances) / (classes - 1))
        scores = [math.exp((1 - beta ** ((d - mean) / std + mu)) / (1 - beta)) for d in distances]
        weights = [classes * score / sum(scores) for score in scores]
        total += tau**2 / classes * sum(w * d for w, d in zip(weights, divergences, strict=True))
    return total / images


@quickly
@given(
    seed=seeds,
    beta=st.sampled_from([0.01, 0.1, 0.7]),
    mu=st.sampled_from([0.0, 0.1, 1.0]),
    area=st.booleans(),
)
def test_loss_is_algorithm_1_written_out(seed: int, beta: float, mu: float, area: bool) -> None:
    student, teacher, label = maps(seed, (2, 4, 2, 3))
    loss = HWD(beta=beta, mu=mu, area_correction="paper" if area else "none")
    expected = naive_hwd(student, teacher, label, beta=beta, mu=mu, area=area)
    assert value(loss, student, teacher, label).item() == pytest.approx(expected, rel=1e-9)


def test_two_channels_have_weights_in_closed_form() -> None:
    """With C = 2 the normalised divergences are always +-1/sqrt(2), whatever the maps."""
    student, teacher, label = maps(0, (1, 2, 3, 3))
    near, far = ((1 - 0.1**z) / 0.9 for z in (-math.sqrt(0.5), math.sqrt(0.5)))
    expected = 2 / (1 + math.exp(near - far))
    weights = HWD().channel_weights(student, teacher, label)[0]
    assert weights.max().item() == pytest.approx(expected, rel=1e-12)


def test_two_positions_have_the_loss_in_closed_form() -> None:
    """Uniform teacher, student logits (a, 0): KL = log cosh(a / 2 tau), and one class weighs 1."""
    student = torch.tensor([[[[3.0, 0.0]]]], dtype=torch.float64)
    expected = 16 * math.log(math.cosh(3 / 8))
    loss = value(HWD(temperature=4), student, torch.zeros_like(student), torch.zeros(1, 4, 8).long())
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@quickly
@given(seed=seeds, size=sizes, chosen=options)
def test_weights_are_non_negative_and_sum_to_the_number_of_classes(
    seed: int, size: tuple[int, int, int, int], chosen: dict[str, Any]
) -> None:
    weights = HWD(**chosen).channel_weights(*maps(seed, size))
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.full((size[0],), float(size[1]), dtype=torch.float64))


@quickly
@given(seed=seeds, chosen=options)
def test_constant_added_to_a_channel_changes_nothing(seed: int, chosen: dict[str, Any]) -> None:
    student, teacher, label = maps(seed)
    shift = 10 * torch.randn(2, 5, 1, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    loss = HWD(**chosen)
    expected = value(loss, student, teacher, label)
    torch.testing.assert_close(value(loss, student + shift, teacher, label), expected, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(value(loss, student, teacher + shift, label), expected, rtol=1e-8, atol=1e-12)


@quickly
@given(seed=seeds, chosen=options)
def test_gradient_is_the_weighted_difference_of_the_maps(seed: int, chosen: dict[str, Any]) -> None:
    """Weights are constants: dL/dz = tau * w * (p_S - p_T) / (N C), which sums to 0 over positions."""
    student, teacher, label = maps(seed)
    student.requires_grad_()
    loss = HWD(**chosen)
    (gradient,) = torch.autograd.grad(value(loss, student, teacher, label), student)
    p_s, p_t = ((z.flatten(2) / loss.temperature).softmax(-1).detach() for z in (student, teacher))
    weights = loss.channel_weights(student, teacher, label)
    expected = loss.temperature * weights[..., None] * (p_s - p_t) / (2 * 5)
    torch.testing.assert_close(gradient.flatten(2), expected, rtol=1e-8, atol=1e-13)
    assert gradient.sum((2, 3)).abs().max() < 1e-12


@pytest.mark.parametrize(
    "limit",
    [
        {"mu": 40.0},
        {"mu": 1e6},
        {"sigma": 1e-9},
        {"normalise": False, "smoothing": "softmax", "softmax_temperature": 1e12},
    ],
    ids=["mu=40", "mu=1e6", "sigma=1e-9", "tau'=1e12"],
)
def test_hwd_becomes_cwd_where_all_channels_weigh_the_same(limit: dict[str, Any]) -> None:
    arguments = maps(1)
    cwd = CWD(student_channels=5, teacher_channels=5)
    torch.testing.assert_close(value(HWD(**limit), *arguments), value(cwd, *arguments), rtol=1e-7, atol=0)


def test_channels_that_diverge_more_weigh_more() -> None:
    student, teacher, label = maps(2)
    divergence = channel_divergence(student, teacher, divergence="mse", on="activation", temperature=4)
    weights = HWD().channel_weights(student, teacher, label)
    assert torch.equal(weights.argsort(1), divergence.argsort(1))


@quickly
@given(seed=seeds, chosen=options)
def test_images_are_independent_of_each_other(seed: int, chosen: dict[str, Any]) -> None:
    student, teacher, label = maps(seed, (3, 4, 3, 3))
    loss = HWD(**chosen)
    weights = loss.channel_weights(student, teacher, label)
    order = [2, 0, 1]
    turned = loss.channel_weights(student[order], teacher[order], label[order])
    torch.testing.assert_close(turned, weights[order], rtol=1e-9, atol=1e-12)
    singles = [value(loss, student[[n]], teacher[[n]], label[[n]]) for n in range(3)]
    torch.testing.assert_close(value(loss, student, teacher, label), torch.stack(singles).mean())


@quickly
@given(seed=seeds, chosen=options)
def test_numbering_of_the_classes_does_not_matter(seed: int, chosen: dict[str, Any]) -> None:
    student, teacher, label = maps(seed)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    new_number = torch.full((IGNORE + 1,), IGNORE)
    new_number[order] = torch.arange(5)
    loss = HWD(**chosen)
    moved = (student[:, order], teacher[:, order], new_number[label])
    expected = loss.channel_weights(student, teacher, label)[:, order]
    torch.testing.assert_close(loss.channel_weights(*moved), expected, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(value(loss, *moved), value(loss, student, teacher, label))


@pytest.mark.parametrize("area_correction", ["none", "paper", "sqrt", "square"])
def test_labels_matter_only_for_the_area_correction(area_correction: Any) -> None:
    student, teacher, label = maps(3)
    loss = HWD(area_correction=area_correction)
    ignored = torch.full_like(label, IGNORE)
    same = torch.equal(
        loss.channel_weights(student, teacher, label), loss.channel_weights(student, teacher, ignored)
    )
    assert same == (area_correction == "none")


def test_channels_that_differ_by_rounding_alone_weigh_the_same() -> None:
    student = torch.tensor([1.0, 1 - 2**-53, 1.0, 1.0], dtype=torch.float64).view(1, 4, 1, 1)
    loss = HWD(divergence_on="logits")
    weights = loss.channel_weights(student, torch.zeros_like(student), torch.zeros(1, 4, 4).long())
    assert torch.equal(weights, torch.ones(1, 4, dtype=torch.float64))


def test_image_equal_in_student_and_teacher_does_not_disturb_the_others() -> None:
    student, teacher, label = maps(6)
    alone = HWD().channel_weights(student, teacher, label)
    student[0] = teacher[0]
    weights = HWD().channel_weights(student, teacher, label)
    assert torch.equal(weights[0], torch.ones(5, dtype=torch.float64))
    assert torch.equal(weights[1], alone[1])


@pytest.mark.parametrize("mu", [-20.0, -40.0, -1e3, -1e6, -1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_very_negative_mu_stays_finite(mu: float, dtype: torch.dtype) -> None:
    student, teacher, label = maps(7)
    student = student.to(dtype).requires_grad_()
    loss = HWD(mu=mu)
    weights = loss.channel_weights(student, teacher.to(dtype), label)
    torch.testing.assert_close(weights.sum(1), torch.full((2,), 5.0, dtype=dtype))
    result = value(loss, student, teacher.to(dtype), label)
    (gradient,) = torch.autograd.grad(result, student)
    assert result.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "bad",
    [
        {"beta": 0.0}, {"beta": 1.0}, {"beta": -0.1}, {"beta": 1.5}, {"beta": math.nan},
        {"temperature": 0.0}, {"temperature": -4.0}, {"temperature": math.inf}, {"temperature": math.nan},
        {"sigma": 0.0}, {"sigma": -1.0}, {"sigma": math.nan}, {"sigma": math.inf},
        {"softmax_temperature": 0.0}, {"softmax_temperature": -1.0}, {"softmax_temperature": math.nan},
        {"mu": math.nan}, {"mu": math.inf}, {"mu": -math.inf},
        {"divergence": "MSE"}, {"divergence": "js"}, {"divergence_on": "features"},
        {"area_correction": "N"}, {"area_correction": "cube"}, {"smoothing": "linear"},
        {"divergence": "kl", "divergence_on": "logits"},
    ],
    ids=str,
)  # fmt: skip
def test_option_out_of_its_range_is_refused_by_name(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        HWD(**bad)


class CountOperations(TorchDispatchMode):
    """Counts every aten operation, those of the backward pass included."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(loss: HWD, classes: int) -> int:
    student, teacher, label = maps(0, (2, classes, 4, 4))
    student = student.float().requires_grad_()
    with CountOperations() as counter:
        value(loss, student, teacher.float(), label).backward()
    assert student.grad is not None
    return counter.count


@pytest.mark.parametrize("area_correction", ["none", "paper"])
@pytest.mark.parametrize("smoothing", ["effective_number", "softmax"])
def test_number_of_operations_does_not_depend_on_the_number_of_classes(
    area_correction: Any, smoothing: Any
) -> None:
    loss = HWD(area_correction=area_correction, smoothing=smoothing)
    assert operations(loss, 150) == operations(loss, 5)
