"""DIST: recorded values of the authors' code and of HWD's, and what a correlation cannot see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from golden_inputs import LABEL, arrays, student, teacher, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.losses import DIST
from hwdkit.losses.correlation import PIXELS, centred, pearson, root, standardise_channels
from hwdkit.losses.dist import inter_class_relation, intra_class_relation
from hwdkit.types import SegOutput

GOLDEN = arrays("dist")
quickly = settings(deadline=None, derandomize=True, max_examples=20)
seeds = st.integers(0, 2**16)
# Vectors of two numbers correlate perfectly, or not at all: three at least.
sizes = st.tuples(st.integers(1, 3), st.integers(3, 5), st.integers(1, 4), st.integers(3, 5))


def maps(seed: int, *size: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student_map, teacher_map = torch.randn(2, *size, generator=generator, dtype=torch.float64).to(dtype)
    return student_map, teacher_map


def value(student_map: Tensor, teacher_map: Tensor, **options: Any) -> Tensor:
    result: Tensor = DIST(**options)(
        SegOutput(student_map, None, {}), SegOutput(teacher_map, None, {}), torch.zeros(1)
    )
    return result


@pytest.mark.parametrize(("name", "softmax"), [("softmax", True), ("logits", False)])
def test_value_and_gradient_are_those_of_the_official_code(name: str, softmax: bool) -> None:
    found, gradient = value_and_gradient(DIST(softmax=softmax), "logits")
    assert found == pytest.approx(GOLDEN[name].item(), rel=1e-8)
    torch.testing.assert_close(gradient, GOLDEN[f"gradient_{name}"], rtol=1e-7, atol=1e-12)


def test_both_relations_are_those_of_the_official_code() -> None:
    inter, _ = value_and_gradient(DIST(gamma=0), "logits")
    intra, _ = value_and_gradient(DIST(beta=0), "logits")
    assert inter == pytest.approx(GOLDEN["softmax_inter"].item(), rel=1e-8)
    assert intra == pytest.approx(GOLDEN["softmax_intra"].item(), rel=1e-8)


@quickly
@given(seed=seeds, size=sizes)
def test_relations_are_the_mean_correlations_of_rows_and_of_columns(
    seed: int, size: tuple[int, int, int, int]
) -> None:
    s, t = maps(seed, *size)
    rows = [x.movedim(1, -1).reshape(-1, size[1]) for x in (s, t)]
    correlations = [
        [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(*(np.asarray(x) for x in pair), strict=True)]
        for pair in (rows, [x.T for x in rows])
    ]
    assert inter_class_relation(s, t).item() == pytest.approx(1 - np.mean(correlations[0]), abs=1e-6)
    assert intra_class_relation(s, t).item() == pytest.approx(1 - np.mean(correlations[1]), abs=1e-6)


@quickly
@given(seed=seeds, size=sizes)
def test_inter_does_not_see_a_scale_and_an_offset_of_a_pixel_but_intra_does(
    seed: int, size: tuple[int, int, int, int]
) -> None:
    s, t = maps(seed, *size)
    n, _, h, w = size
    moved = s * torch.linspace(0.5, 3, n * h * w, dtype=s.dtype).reshape(n, 1, h, w) + t[:, :1]
    torch.testing.assert_close(inter_class_relation(moved, t), inter_class_relation(s, t), rtol=0, atol=1e-6)
    assert (intra_class_relation(moved, t) - intra_class_relation(s, t)).abs() > 1e-6


@quickly
@given(seed=seeds, size=sizes)
def test_intra_does_not_see_a_scale_and_an_offset_of_a_class_but_inter_does(
    seed: int, size: tuple[int, int, int, int]
) -> None:
    s, t = maps(seed, *size)
    scale = torch.linspace(0.5, 3, size[1], dtype=s.dtype)[:, None, None]
    moved = s * scale + 10 * scale.square()
    torch.testing.assert_close(intra_class_relation(moved, t), intra_class_relation(s, t), rtol=0, atol=1e-6)
    assert (inter_class_relation(moved, t) - inter_class_relation(s, t)).abs() > 1e-6


@quickly
@given(seed=seeds, size=sizes)
def test_equal_relations_are_0_and_opposite_ones_2(seed: int, size: tuple[int, int, int, int]) -> None:
    s, _ = maps(seed, *size)
    for relation in (inter_class_relation, intra_class_relation):
        assert relation(s, s).item() == pytest.approx(0, abs=1e-5)
        assert relation(-s, s).item() == pytest.approx(2, abs=1e-5)


def test_intra_correlates_over_the_images_of_the_batch_and_not_within_each() -> None:
    s, t = maps(1, 2, 3, 4, 5)
    apart = torch.stack([intra_class_relation(s[i : i + 1], t[i : i + 1]) for i in range(2)]).mean()
    offset = torch.tensor([0.0, 9.0], dtype=s.dtype)[:, None, None, None]
    assert (intra_class_relation(s, t) - apart).abs() > 1e-3
    # Images that differ in both networks alike correlate perfectly, whatever goes on inside them.
    assert intra_class_relation(s + 1e3 * offset, t + 1e3 * offset) < 1e-4


def test_a_large_offset_costs_no_precision() -> None:
    s, t = maps(2, 2, 3, 8, 9, dtype=torch.float32)
    offset = 2.0**10
    for relation in (inter_class_relation, intra_class_relation):
        torch.testing.assert_close(relation(s + offset, t - offset), relation(s, t), rtol=0, atol=1e-3)


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("size", [(1, 1, 1, 1), (1, 4, 1, 1), (2, 1, 3, 3), (2, 4, 3, 3)])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e4])
def test_degenerate_maps_give_a_finite_value_and_gradient(
    softmax: bool, size: tuple[int, int, int, int], scale: float
) -> None:
    s, t = (scale * x for x in maps(3, *size, dtype=torch.float32))
    for other in (t, s.clone(), torch.zeros_like(s)):
        for mine in (s.clone(), torch.full_like(s, scale)):
            mine.requires_grad_()
            loss = value(mine, other, softmax=softmax)
            (gradient,) = torch.autograd.grad(loss, mine)
            assert loss.isfinite()
            assert gradient.isfinite().all()


def test_what_is_constant_correlates_with_nothing() -> None:
    s, t = maps(4, 2, 3, 4, 5)
    assert inter_class_relation(torch.ones_like(s), t).item() == 1
    assert intra_class_relation(torch.ones_like(s), t).item() == 1


def test_auxiliary_heads_add_their_weighted_share_where_both_networks_have_one() -> None:
    mine, theirs = student(), teacher()
    main, aux = mine._replace(aux=mine.logits.flip(0)), theirs._replace(aux=theirs.logits.flip(1))
    loss = DIST(aux_weight=0.25)
    plain = loss(mine, theirs, LABEL)
    share = loss(SegOutput(mine.logits.flip(0), None, {}), SegOutput(theirs.logits.flip(1), None, {}), LABEL)
    torch.testing.assert_close(loss(main, aux, LABEL), plain + 0.25 * share)
    assert torch.equal(loss(main, theirs, LABEL), plain)
    assert torch.equal(loss(mine, aux, LABEL), plain)
    assert torch.equal(DIST()(main, aux, LABEL), plain)


def test_no_gradient_reaches_the_teacher() -> None:
    s, t = (x.requires_grad_() for x in maps(5, 2, 3, 4, 5))
    out, hints = SegOutput(s, s * 2, {}), SegOutput(t, t * 2, {})
    DIST(aux_weight=0.4)(out, hints, LABEL).backward()
    for relation in (inter_class_relation, intra_class_relation):
        relation(s, t).backward()
    assert s.grad is not None
    assert t.grad is None


def test_the_auxiliary_head_of_the_teacher_is_asked_for_only_where_it_counts() -> None:
    assert not DIST().reads_teacher_aux
    assert DIST(aux_weight=0.4).reads_teacher_aux


@pytest.mark.parametrize("changes", [{"beta": 2.0}, {"gamma": 0.5}, {"softmax": False}])
def test_every_option_changes_the_value(changes: dict[str, Any]) -> None:
    s, t = maps(6, 2, 3, 4, 5)
    assert value(s, t, **changes) != value(s, t)


@pytest.mark.parametrize("name", ["beta", "gamma", "aux_weight"])
@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
def test_weights_that_are_negative_or_no_number_are_refused(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be 0 or more"):
        DIST(**{name: bad})  # type: ignore[arg-type]


def test_gradients_of_the_correlation_are_those_of_finite_differences() -> None:
    s, t = maps(7, 2, 3, 2, 2)
    s.requires_grad_()
    for dims in ((1,), PIXELS):
        assert torch.autograd.gradcheck(lambda x, d=dims: pearson(x, t, d, over_ranks=True), s)
    assert torch.autograd.gradcheck(standardise_channels, s)


def test_the_root_of_0_has_gradient_0() -> None:
    x = torch.tensor([0.0, 4.0], requires_grad=True)
    root(x).sum().backward()
    assert root(x).tolist() == [0, 2]
    assert x.grad is not None
    assert x.grad.tolist() == [0, 0.25]


def test_deviations_have_mean_0() -> None:
    x, _ = maps(8, 2, 3, 4, 5)
    for dims in ((1,), PIXELS):
        assert centred(x + 5, dims, over_ranks=True).mean(dims).abs().max() < 1e-12
