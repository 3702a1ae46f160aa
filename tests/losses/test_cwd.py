"""Channel-wise distillation: normalisations, divergences, projectors. test_golden.py has the plain one."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from golden_inputs import LABEL, arrays, student, teacher, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.losses.channel_wise import CWD, channel_wise
from hwdkit.types import SegOutput

GOLDEN = arrays("cwd")
SCORE_MAPS: dict[str, dict[str, Any]] = {
    "channel_l2": {"divergence": "l2", "temperature": 1.0},
    "spatial_l2": {"divergence": "l2", "temperature": 1.0, "normalise": "spatial"},
    "channel_mean_l2": {"divergence": "l2", "temperature": 1.0, "normalise": "channel_mean"},
    "spatial_kl": {"normalise": "spatial"},
    "bhattacharyya_tau_1": {"divergence": "bhattacharyya", "temperature": 1.0},
    "bhattacharyya_tau_4": {"divergence": "bhattacharyya"},
    "l2_tau_1": {"divergence": "l2", "temperature": 1.0},
    "l2_tau_4": {"divergence": "l2"},
}
FEATURES: dict[str, dict[str, Any]] = {
    "feature_hwd": {"projector": "linear_bn_relu"},
    "feature_cirkd": {"projector": "linear", "official_divisor": True},
    "feature_linear": {"projector": "linear"},
}
KINDS = [("kl", "channel"), ("kl", "spatial"), ("bhattacharyya", "channel"), ("bhattacharyya", "spatial")] + [
    ("l2", normalise) for normalise in ("channel", "spatial", "channel_mean", "none")
]
every_kind = pytest.mark.parametrize(("divergence", "normalise"), KINDS)
quickly = settings(deadline=None, derandomize=True, max_examples=10)
seeds = st.integers(0, 2**16)
sizes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 5))


def score_cwd(classes: int = 7, **options: Any) -> CWD:
    return CWD(student_channels=classes, teacher_channels=classes, **options)


def feature_cwd(**options: Any) -> CWD:
    """6 channels to 8, with the recorded weights."""
    loss = CWD(tap="embedding", student_channels=6, teacher_channels=8, **options).double()
    convolution = next(module for module in loss.modules() if isinstance(module, torch.nn.Conv2d))
    with torch.no_grad():
        convolution.weight.copy_(GOLDEN["proj_weight"])
    return loss


def maps(seed: int, *size: int, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    """Of a student (wants gradients) and of a teacher, float64."""
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = scale * torch.randn(2, *size, generator=generator, dtype=torch.float64)
    return ours.requires_grad_(), theirs


def value(loss: CWD, ours: Tensor, theirs: Tensor) -> Tensor:
    label = torch.zeros(len(ours), 8, 8, dtype=torch.int64)
    result: Tensor = loss(SegOutput(ours, None, {}), SegOutput(theirs, None, {}), label)
    return result


def gradient(loss: CWD, ours: Tensor, theirs: Tensor) -> Tensor:
    (result,) = torch.autograd.grad(value(loss, ours, theirs), ours)
    return result


def naive(ours: Tensor, theirs: Tensor, *, divergence: str, normalise: str, temperature: float) -> float:
    """The formula with lists: vectors that are compared, their divergences, and the mean."""
    n, c, h, w = ours.shape
    total = 0.0
    for image in range(n):
        pair = [(maps[image] / temperature).flatten(1).tolist() for maps in (ours, theirs)]
        if normalise in ("spatial", "none"):
            pair = [[list(column) for column in zip(*table, strict=True)] for table in pair]
        if normalise == "channel_mean":
            pair = [[[sum(row) / len(row)] for row in table] for table in pair]
        for s, t in zip(*pair, strict=True):
            if normalise in ("channel", "spatial"):
                s, t = ([math.exp(x) / sum(map(math.exp, row)) for x in row] for row in (s, t))
            entries = list(zip(s, t, strict=True))
            if divergence == "kl":
                total += temperature**2 * sum(q * math.log(q / p) for p, q in entries)
            elif divergence == "l2":
                total += sum((p - q) ** 2 for p, q in entries)
            else:
                total -= math.log(sum(math.sqrt(p * q) for p, q in entries))
    return total / (n * (c if normalise in ("channel", "channel_mean") else h * w))


@pytest.mark.parametrize("case", SCORE_MAPS)
def test_score_maps_agree_with_the_recorded_numbers(case: str) -> None:
    found, slope = value_and_gradient(score_cwd(**SCORE_MAPS[case]), "logits")
    assert found == pytest.approx(GOLDEN[f"value_{case}"].item(), rel=1e-8)
    if f"gradient_{case}" in GOLDEN:
        torch.testing.assert_close(slope, GOLDEN[f"gradient_{case}"], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("case", FEATURES)
def test_projected_features_agree_with_the_recorded_numbers(case: str) -> None:
    found, slope = value_and_gradient(feature_cwd(**FEATURES[case]))
    assert found == pytest.approx(GOLDEN[f"value_{case}"].item(), rel=1e-8)
    if f"gradient_{case}" in GOLDEN:
        torch.testing.assert_close(slope, GOLDEN[f"gradient_{case}"], rtol=1e-7, atol=1e-12)


def test_raw_maps_are_compared_over_the_whole_batch_and_not_by_their_first_image() -> None:
    loss = score_cwd(divergence="l2", temperature=1.0, normalise="none")
    ours, theirs = student().logits, teacher().logits
    # The official slip: the first image's sum over N*h*w.
    first = value(loss, ours[:1], theirs[:1])
    assert first.item() / 2 == pytest.approx(GOLDEN["value_none_l2_first_image"].item(), rel=1e-8)
    expected = (ours - theirs).square().sum(1).mean()
    torch.testing.assert_close(value(loss, ours, theirs), expected)


@every_kind
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_every_kind_is_its_formula(divergence: str, normalise: str, temperature: float) -> None:
    options: dict[str, Any] = {"divergence": divergence, "normalise": normalise, "temperature": temperature}
    ours, theirs = maps(1, 2, 3, 2, 4)
    assert value(score_cwd(3, **options), ours, theirs).item() == pytest.approx(
        naive(ours, theirs, **options), rel=1e-10
    )


@quickly
@given(seed=seeds, size=sizes, kind=st.sampled_from(KINDS))
def test_student_that_equals_the_teacher_has_nothing_to_learn(
    seed: int, size: tuple[int, int, int, int], kind: tuple[str, str]
) -> None:
    loss = score_cwd(size[1], divergence=kind[0], normalise=kind[1])
    ours, _ = maps(seed, *size)
    assert value(loss, ours, ours.detach()).item() == pytest.approx(0, abs=1e-12)
    assert gradient(loss, ours, ours.detach()).abs().max() < 1e-12


@quickly
@given(seed=seeds, size=sizes, kind=st.sampled_from(KINDS))
def test_a_batch_is_the_mean_of_its_images(
    seed: int, size: tuple[int, int, int, int], kind: tuple[str, str]
) -> None:
    loss = score_cwd(size[1], divergence=kind[0], normalise=kind[1])
    ours, theirs = maps(seed, *size)
    images = [value(loss, ours[n : n + 1], theirs[n : n + 1]) for n in range(size[0])]
    torch.testing.assert_close(value(loss, ours, theirs), torch.stack(images).mean())


@quickly
@given(seed=seeds, size=sizes, divergence=st.sampled_from(["kl", "bhattacharyya", "l2"]))
def test_channel_does_not_see_a_constant_added_to_a_channel_of_an_image(
    seed: int, size: tuple[int, int, int, int], divergence: str
) -> None:
    loss = score_cwd(size[1], divergence=divergence)
    ours, theirs = maps(seed, *size)
    shift = 10 * torch.randn(*size[:2], 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(value(loss, ours + shift, theirs), value(loss, ours, theirs))
    torch.testing.assert_close(value(loss, ours, theirs - shift), value(loss, ours, theirs))
    assert gradient(loss, ours, theirs).sum((2, 3)).abs().max() < 1e-12


@quickly
@given(seed=seeds, size=sizes, divergence=st.sampled_from(["kl", "bhattacharyya", "l2"]))
def test_spatial_does_not_see_a_constant_added_to_a_position(
    seed: int, size: tuple[int, int, int, int], divergence: str
) -> None:
    loss = score_cwd(size[1], divergence=divergence, normalise="spatial")
    ours, theirs = maps(seed, *size)
    shift = 10 * torch.randn(
        size[0], 1, *size[2:], dtype=torch.float64, generator=torch.Generator().manual_seed(9)
    )
    torch.testing.assert_close(value(loss, ours + shift, theirs), value(loss, ours, theirs))
    assert gradient(loss, ours, theirs).sum(1).abs().max() < 1e-12


def test_kl_does_not_forgive_what_the_student_misses_as_it_forgives_what_it_adds() -> None:
    peaked = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    peaked[..., 0, 0] = 30.0
    flat = torch.zeros_like(peaked)
    loss = score_cwd(1, temperature=1.0)
    assert value(loss, flat, peaked).item() == pytest.approx(math.log(4))  # KL(teacher || student)
    assert value(loss, peaked, flat).item() > 20


@every_kind
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (1, 1, 1, 1), (1, 3, 1, 1), (2, 1, 3, 3)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_value_and_gradient_are_finite_in_float32(
    divergence: str, normalise: str, size: tuple[int, int, int, int], scale: float
) -> None:
    loss = score_cwd(size[1], divergence=divergence, normalise=normalise)
    ours, theirs = (tensor.detach().float() for tensor in maps(2, *size, scale=scale))
    for target in (theirs, ours):
        leaf = ours.clone().requires_grad_()
        assert value(loss, leaf, target).isfinite()
        assert gradient(loss, leaf, target).isfinite().all()


@pytest.mark.parametrize("case", FEATURES)
def test_every_parameter_of_the_projector_is_trained_and_the_teacher_is_not(case: str) -> None:
    loss = feature_cwd(**FEATURES[case])
    out, target = student(), teacher()
    target.taps["embedding"].requires_grad_()
    loss(out, target, LABEL).backward()
    target.taps["embedding"].requires_grad_(False)
    assert target.taps["embedding"].grad is None
    assert all(p.grad is not None and p.grad.any() for p in loss.parameters())


@every_kind
def test_teacher_of_the_formula_gets_no_gradient(divergence: Any, normalise: Any) -> None:
    ours, theirs = maps(4, 2, 3, 2, 4)
    theirs.requires_grad_()
    result = channel_wise(ours, theirs, divergence=divergence, normalise=normalise, temperature=2.0)
    assert torch.autograd.grad(result, (ours, theirs), allow_unused=True)[1] is None


def test_autocast_leaves_the_projector_in_full_precision() -> None:
    loss = feature_cwd(projector="linear").float()
    ours, theirs = student().taps["embedding"].detach().float(), teacher().taps["embedding"].float()
    pair = (SegOutput(ours, None, {"embedding": ours}), SegOutput(ours, None, {"embedding": theirs}), LABEL)
    with torch.autocast("cpu", torch.bfloat16):
        cast = loss(*pair)
    assert torch.equal(cast, loss(*pair))


def test_official_divisor_counts_only_where_channels_are_projected_and_averaged() -> None:
    ours, theirs = maps(3, 2, 4, 3, 3)
    plain, slip = (score_cwd(4, official_divisor=official) for official in (False, True))
    assert torch.equal(value(plain, ours, theirs), value(slip, ours, theirs))
    pair = (student(), teacher(), LABEL)
    values = [
        feature_cwd(normalise="spatial", official_divisor=official)(*pair) for official in (False, True)
    ]
    assert torch.equal(*values)


def test_equal_channels_are_compared_without_a_projector_unless_one_is_asked_for() -> None:
    assert not list(score_cwd(5).parameters())
    assert len(list(score_cwd(5, projector="linear").parameters())) == 1
    assert len(list(CWD(tap="stage4", student_channels=5, teacher_channels=6).parameters())) == 1


def test_every_kind_has_a_value_of_its_own() -> None:
    ours, theirs = maps(5, 2, 4, 3, 5)
    options = [{"divergence": divergence, "normalise": normalise} for divergence, normalise in KINDS]
    found = sorted(value(score_cwd(4, **choice), ours, theirs).item() for choice in options)
    assert all(larger > smaller * (1 + 1e-6) for smaller, larger in pairwise(found))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": -1.0}, "temperature must be positive"),
        ({"temperature": math.nan}, "temperature must be positive"),
        ({"temperature": math.inf}, "temperature must be positive"),
        ({"normalise": "class"}, "normalise must be channel, spatial, channel_mean or none"),
        ({"divergence": "mse"}, "divergence must be kl, bhattacharyya or l2"),
        ({"divergence": "kl", "normalise": "none"}, "kl compares distributions"),
        ({"divergence": "kl", "normalise": "channel_mean"}, "kl compares distributions"),
        ({"divergence": "bhattacharyya", "normalise": "none"}, "bhattacharyya compares distributions"),
        ({"divergence": "bhattacharyya", "normalise": "channel_mean"}, "bhattacharyya compares distribut"),
        ({"projector": "conv"}, "projector must be"),
        ({"teacher_tap": "stage4"}, "logits can be compared with logits only"),
    ],
)
def test_option_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_cwd(**options)


def test_channels_that_differ_are_refused_without_a_projector() -> None:
    with pytest.raises(ValueError, match="none needs equal channels"):
        CWD(tap="embedding", student_channels=6, teacher_channels=8, projector="none")
