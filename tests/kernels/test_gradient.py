"""Losses that form their gradient in the forward pass are ordinary losses to whoever calls them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hwdkit.kernels.channel_kl import weighted_channel_kl
from hwdkit.kernels.upsampled_ce import upsampled_ce_sum
from hwdkit.losses.hwd import HWD
from hwdkit.types import IGNORE, SegOutput

Loss = Callable[..., Tensor]

MADE = torch.Generator().manual_seed(0)
STUDENT = torch.randn(2, 5, 6, 7, generator=MADE, dtype=torch.float64)
TEACHER = torch.randn(2, 5, 6, 7, generator=MADE, dtype=torch.float64)
LABEL = torch.randint(5, (2, 24, 28), generator=MADE)


def ce(logits: Tensor, _: Tensor = TEACHER) -> Tensor:
    return upsampled_ce_sum(logits, LABEL[: len(logits)], align_corners=True, ignore=IGNORE)


def cwd(logits: Tensor, teacher: Tensor = TEACHER) -> Tensor:
    return weighted_channel_kl(logits, teacher[: len(logits)], temperature=2.0)


def hwd(logits: Tensor, teacher: Tensor = TEACHER) -> Tensor:
    pair = SegOutput(logits, None, {}), SegOutput(teacher[: len(logits)], None, {})
    return HWD(area_correction="paper")(*pair, LABEL[: len(logits)])


every_loss = pytest.mark.parametrize("loss", [ce, cwd, hwd], ids=lambda loss: loss.__name__)


def slope(loss: Loss, leaf: Tensor) -> Tensor:
    return torch.autograd.grad(loss(leaf), leaf)[0]


@every_loss
def test_a_second_derivative_is_refused_even_where_the_first_is_scaled_by_a_constant(loss: Loss) -> None:
    student, factor = STUDENT.clone().requires_grad_(), torch.ones((), requires_grad=True)
    value = loss(student * factor)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(value, student, create_graph=True)


@every_loss
def test_a_retained_graph_gives_the_same_gradient_again_and_leaves_the_first_alone(loss: Loss) -> None:
    leaf = STUDENT.clone().requires_grad_()
    value = loss(leaf)
    (first,) = torch.autograd.grad(2 * value, leaf, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(3 * value, leaf, retain_graph=True)
    (last,) = torch.autograd.grad(5 * value, leaf)  # in place: nobody reads the saved one after that
    assert torch.equal(first, kept)
    torch.testing.assert_close(second, first * 1.5)
    torch.testing.assert_close(last, first * 2.5)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(value, leaf)


@every_loss
def test_several_slopes_at_once_are_served(loss: Loss) -> None:
    leaf = STUDENT.clone().requires_grad_()
    slopes = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    (together,) = torch.autograd.grad(loss(leaf), leaf, slopes, is_grads_batched=True)
    one = slope(loss, leaf)
    torch.testing.assert_close(together, torch.stack([factor * one for factor in slopes]))


@every_loss
def test_a_traced_loss_has_the_same_gradient(loss: Loss) -> None:
    leaf = STUDENT.clone().requires_grad_()
    traced = torch.compile(lambda x: 2 * loss(x), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(slope(traced, leaf), 2 * slope(loss, leaf))


@every_loss
def test_gradients_that_meet_in_one_leaf_are_summed(loss: Loss) -> None:
    leaf = STUDENT.clone().requires_grad_()
    for _ in range(2):
        (loss(leaf) + loss(2 * leaf) + leaf.sum()).backward()
    parts = slope(loss, leaf) + slope(lambda x: loss(2 * x), leaf) + 1
    torch.testing.assert_close(leaf.grad, 2 * parts)


@every_loss
def test_the_maps_are_not_kept_for_the_backward_pass(loss: Loss) -> None:
    leaf = STUDENT.clone().requires_grad_()
    maps = leaf + 1
    kept, value = weakref.ref(maps), loss(maps)
    del maps
    gc.collect()
    assert kept() is None
    value.backward()
    assert leaf.grad is not None


@every_loss
def test_autocast_changes_no_digit(loss: Loss) -> None:
    student = STUDENT.float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(student)
    outside = loss(student)
    assert torch.equal(inside, outside)
    gradients = (torch.autograd.grad(value, student)[0] for value in (inside, outside))
    assert torch.equal(*gradients)


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_costs_nothing_beyond_the_rounding_of_the_maps(loss: Loss, dtype: torch.dtype) -> None:
    student, teacher = STUDENT.to(dtype), TEACHER.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, teacher)
    assert value.dtype == torch.float32
    assert abs(value.double() / loss(student.double(), teacher.double()) - 1) < 1e-5


@every_loss
def test_a_half_precision_gradient_is_scaled_before_it_is_rounded(loss: Loss) -> None:
    """A GradScaler's factor may be infinite in float16, and a gradient nought before it is scaled."""
    half = STUDENT.half().requires_grad_()
    single = half.detach().float().requires_grad_()
    scale = 2.0**17
    ours = slope(lambda x: scale * loss(x), half)
    assert torch.equal(ours, slope(lambda x: scale * loss(x), single).half())


@every_loss
def test_a_gradient_too_large_for_half_precision_is_infinite(loss: Loss) -> None:
    """What a GradScaler looks for; a number that wrapped or saturated would be taken for a gradient."""
    half = STUDENT.half().requires_grad_()
    assert torch.autograd.grad(loss(half) * 2.0**60, half)[0].isinf().any()


@every_loss
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_gives_the_same_gradient(loss: Loss, reentrant: bool) -> None:
    leaf = STUDENT.clone().requires_grad_()
    checkpoint(lambda x: loss(2 * x), leaf, use_reentrant=reentrant).backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, slope(lambda x: loss(2 * x), leaf))


@every_loss
def test_maps_laid_out_in_any_way_give_the_same_gradient(loss: Loss) -> None:
    plain = STUDENT.clone().requires_grad_()
    expected = slope(loss, plain)
    last = STUDENT.clone(memory_format=torch.channels_last).requires_grad_()
    turned = STUDENT.transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()
    wide = torch.cat([STUDENT, STUDENT], 3).requires_grad_()
    torch.testing.assert_close(slope(loss, last), expected)
    torch.testing.assert_close(slope(loss, turned), expected)
    torch.testing.assert_close(slope(lambda x: loss(x[..., :7]), wide)[..., :7], expected)
    one = STUDENT[:1].clone().requires_grad_()
    both = slope(lambda x: loss(x.expand(2, -1, -1, -1)), one)
    torch.testing.assert_close(both, slope(lambda x: loss(x.repeat(2, 1, 1, 1)), one))


@every_loss
def test_no_images_is_nought(loss: Loss) -> None:
    none = STUDENT[:0].clone().requires_grad_()
    value = loss(none)
    assert value.item() == 0
    assert torch.autograd.grad(value, none)[0].shape == none.shape


@every_loss
def test_torch_func_is_refused_in_words(loss: Loss) -> None:
    with pytest.raises(RuntimeError, match="setup_context"):
        torch.func.grad(loss)(STUDENT)


@every_loss
def test_strict_determinism_and_anomaly_mode_are_kept(loss: Loss) -> None:
    leaf = STUDENT.clone().requires_grad_()
    torch.use_deterministic_algorithms(True)
    try:
        with torch.autograd.detect_anomaly(check_nan=True):
            first = slope(loss, leaf)
        assert all(torch.equal(slope(loss, leaf), first) for _ in range(5))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("label", [5, 254, -1, -100])
def test_a_label_out_of_range_is_no_class(label: int) -> None:
    """As in F.cross_entropy, which raises an IndexError."""
    wrong = LABEL.clone()
    wrong[1, 3, 4] = label
    with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
        upsampled_ce_sum(STUDENT, wrong, align_corners=True, ignore=IGNORE)


@pytest.mark.parametrize("label", [LABEL[:1], LABEL[0], LABEL[:, None]], ids=lambda label: f"{label.ndim}d")
@pytest.mark.parametrize("budget", [1, 2**40])
def test_every_image_needs_its_own_label(label: Tensor, budget: int) -> None:
    with pytest.raises(ValueError, match=r"label must be \(N, H, W\)"):
        upsampled_ce_sum(STUDENT, label, align_corners=True, ignore=IGNORE, budget=budget)


@pytest.mark.parametrize(
    "teacher", [TEACHER[:1], TEACHER.repeat(2, 1, 1, 1), TEACHER[:, :1], TEACHER.transpose(2, 3)]
)
def test_maps_of_two_shapes_are_not_compared(teacher: Tensor) -> None:
    with pytest.raises(ValueError, match="maps of one shape"):
        weighted_channel_kl(STUDENT, teacher, temperature=1.0)


def test_a_label_smaller_than_the_logits_is_met_by_down_sampling_them() -> None:
    logits, label = STUDENT.clone().requires_grad_(), LABEL[:, :3, :2]
    small = F.interpolate(logits, (3, 2), mode="bilinear", align_corners=True)
    expected = F.cross_entropy(small, label, reduction="sum")
    ours = upsampled_ce_sum(logits, label, align_corners=True, ignore=IGNORE)
    torch.testing.assert_close(ours, expected)
    (gradient,), (wanted,) = (torch.autograd.grad(value, logits) for value in (ours, expected))
    torch.testing.assert_close(gradient, wanted)
