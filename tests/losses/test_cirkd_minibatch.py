"""CIRKD's relations within a batch, and the relation that its memory-based losses share."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from golden_inputs import LABEL, arrays, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.losses.cirkd_minibatch import CirkdMinibatch, minibatch_relation, relation_kl
from hwdkit.types import SegOutput

quickly = settings(deadline=None, derandomize=True, max_examples=15)


def random(seed: int, *size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def embedding(map_: Tensor) -> SegOutput:
    return SegOutput(map_.new_zeros(len(map_), 1, 1, 1), None, {"embedding": map_})


@pytest.mark.parametrize(
    ("case", "options"), [("T0.1", {}), ("T1.0", {"temperature": 1.0}), ("T0.1_avgpool2", {"pool": 2})]
)
def test_minibatch_is_that_of_the_official_code(case: str, options: dict[str, Any]) -> None:
    golden = arrays("cirkd_minibatch")
    value, gradient = value_and_gradient(CirkdMinibatch(**options))
    assert value == pytest.approx(golden[f"loss__{case}"].item(), rel=1e-8)
    torch.testing.assert_close(gradient, golden[f"grad__{case}"], rtol=1e-7, atol=1e-12)


@quickly
@given(seed=st.integers(0, 2**16))
def test_minibatch_does_not_see_the_length_of_a_feature(seed: int) -> None:
    ours, theirs = random(seed, 2, 3, 2, 4), random(seed + 1, 2, 5, 2, 4)
    lengths = random(seed + 2, 2, 1, 2, 4).exp()
    plain = minibatch_relation(ours, theirs, temperature=0.1)
    torch.testing.assert_close(minibatch_relation(lengths * ours, theirs, temperature=0.1), plain)
    torch.testing.assert_close(minibatch_relation(ours, lengths * theirs, temperature=0.1), plain)


def test_minibatch_student_whose_channels_are_the_teachers_rotated_has_nothing_to_learn() -> None:
    theirs = random(1, 2, 4, 3, 3)
    rotation, _ = torch.linalg.qr(random(2, 4, 4))
    ours = torch.einsum("de,nehw->ndhw", rotation, theirs).requires_grad_()
    value = minibatch_relation(ours, theirs, temperature=0.1)
    (gradient,) = torch.autograd.grad(value, ours)
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert gradient.abs().max() < 1e-12


def test_pooling_of_the_whole_map_leaves_the_relations_of_images() -> None:
    ours, theirs = random(1, 3, 4, 2, 3), random(2, 3, 5, 2, 3)
    loss = CirkdMinibatch(pool=7)
    assert loss(embedding(ours), embedding(theirs), LABEL).item() == 0  # one position: one possible partner


def relation_inputs() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    ours = random(1, 11, 3).requires_grad_(), random(2, 2, 5, 3).requires_grad_()
    return ours, (random(3, 11, 4).requires_grad_(), random(4, 2, 5, 4).requires_grad_())


@pytest.mark.parametrize("matrix_bytes", [1, 200, 320])
def test_number_of_anchors_at_a_time_changes_neither_value_nor_gradient(matrix_bytes: int) -> None:
    ours, theirs = relation_inputs()
    whole = relation_kl(ours, theirs, temperature=0.5)
    parts = relation_kl(ours, theirs, temperature=0.5, matrix_bytes=matrix_bytes)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-14)
    weight = random(5, 11, 2)
    expected = torch.autograd.grad((weight * whole).sum(), ours)
    found = torch.autograd.grad((weight * parts).sum(), ours)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_relation_is_the_formula_and_the_teacher_gets_no_gradient() -> None:
    ours, theirs = relation_inputs()
    found = relation_kl(ours, theirs, temperature=0.5)
    for a in range(11):
        for g in range(2):
            p, q = (torch.softmax(others[g] @ anchors[a] / 0.5, 0) for anchors, others in (ours, theirs))
            assert found[a, g].item() == pytest.approx((q * (q / p).log()).sum().item(), rel=1e-10)
    found.sum().backward()
    assert all(tensor.grad is None for tensor in theirs)
    assert all(tensor.grad is not None for tensor in ours)


def test_no_matrix_of_similarities_waits_for_the_backward() -> None:
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    ours = random(1, 40, 2).requires_grad_(), random(2, 3, 30, 2).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        relation_kl(ours, (random(3, 40, 2), random(4, 3, 30, 2)), temperature=1.0).sum().backward()
    assert max(sizes, default=0) < 40 * 3 * 30


@pytest.mark.parametrize("size", [(1, 3, 4, 4), (2, 3, 1, 1)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_minibatch_stays_finite(size: tuple[int, ...], scale: float) -> None:
    ours = (scale * random(1, *size, dtype=torch.float32)).requires_grad_()
    value = CirkdMinibatch()(embedding(ours), embedding(scale * random(2, *size)), LABEL)
    value.backward()
    assert value.isfinite()
    assert ours.grad is not None
    assert ours.grad.isfinite().all()


@pytest.mark.parametrize(
    "options",
    [{"temperature": t} for t in (0.0, -1.0, math.inf, math.nan)] + [{"pool": p} for p in (0, -1, 1.5)],
)
def test_minibatch_refuses_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        CirkdMinibatch(**options)
