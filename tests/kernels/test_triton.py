"""Triton's kernels give the numbers of torch's operations in its interpreter, and compile for GPUs.

The interpreter runs them on the CPU (conftest.py chooses it where there is no GPU; where there is one, these
tests run on it), and Triton brings the compiler for GPUs with it.
"""

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from hwdkit.kernels import choice
from hwdkit.kernels.upsampled_ce import upsampled_ce_sum
from hwdkit.losses.channel_wise import CWD
from hwdkit.losses.cross_entropy import CrossEntropy
from hwdkit.losses.hwd import HWD
from hwdkit.types import IGNORE, SegOutput

pytest.importorskip("triton")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NAMES = ("hwdkit.kernels.triton_ce", "hwdkit.kernels.triton_channel_kl")


@pytest.fixture(autouse=True)
def _chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(choice, "DEVICES", (DEVICE.type,))
    choice.choose("triton")
    yield
    choice.choose("torch")


def kernels(name: str) -> ModuleType:
    return importlib.import_module(name)


def maps(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return (3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(DEVICE, dtype)


def labels(classes: int, *shape: int) -> Tensor:
    made = torch.Generator().manual_seed(2)
    label = torch.randint(classes, shape, generator=made)
    return torch.where(torch.rand(shape, generator=made) < 0.2, IGNORE, label).to(DEVICE)


def agree(ours: Tensor, exact: Tensor, student: Tensor, exact_student: Tensor, *, within: float) -> None:
    (gradient,) = torch.autograd.grad(ours, student)
    (expected,) = torch.autograd.grad(exact, exact_student)
    assert abs(ours.double() - exact) <= within * exact.abs() + 1e-12
    assert gradient.dtype == student.dtype
    assert (gradient.double() - expected).abs().max() <= within * expected.abs().max() + 1e-12


SHAPES = [  # (h, w), (H, W), C
    ((3, 4), (17, 25), 7),
    ((2, 3), (16, 20), 40),
    ((3, 5), (20, 31), 3),
    ((1, 1), (8, 8), 5),
    ((1, 3), (4, 24), 2),
    ((3, 3), (3, 3), 4),
    ((4, 5), (3, 4), 3),  # the label is the smaller one
    ((2, 2), (70, 70), 3),  # a large cell: few classes at a time
    ((4, 2), (2, 16), 1),
]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("size", "target", "classes"), SHAPES)
def test_cross_entropy_is_that_of_torch(
    size: tuple[int, int], target: tuple[int, int], classes: int, align_corners: bool
) -> None:
    student = maps(2, classes, *size).requires_grad_()
    exact = student.detach().double().requires_grad_()
    label = labels(classes, 2, *target)
    ours, expected = (
        upsampled_ce_sum(x, label, align_corners=align_corners, ignore=IGNORE) for x in (student, exact)
    )
    agree(ours, expected, student, exact, within=1e-6)


def test_a_map_stretched_too_far_goes_the_usual_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels(NAMES[0]), "value_and_gradient", None)  # it would fail if it were called
    label = labels(3, 1, 100, 100)
    value = upsampled_ce_sum(maps(1, 3, 1, 1), label, align_corners=True, ignore=IGNORE)
    assert value.isfinite()


def test_a_label_that_is_no_class_makes_the_loss_nan() -> None:
    """A kernel cannot raise; the loop stops at a loss that is not finite, by its name."""
    label = labels(3, 1, 16, 16)
    label[0, 3, 4] = 7
    assert upsampled_ce_sum(maps(1, 3, 2, 2), label, align_corners=True, ignore=IGNORE).isnan()


EVERY_HWD: list[dict[str, Any]] = [
    dict(zip(("divergence", "divergence_on", "smoothing", "area_correction", "normalise"), one, strict=True))
    for one in (
        *itertools.product(
            ("mse", "l1", "smooth_l1", "kl"),
            ("activation",),
            ("effective_number",),
            ("none", "paper"),
            (True,),
        ),
        *itertools.product(("mse", "l1", "smooth_l1"), ("logits",), ("softmax",), ("sqrt",), (True, False)),
        ("mse", "activation", "softmax", "square", True),
        ("mse", "activation", "effective_number", "none", False),
    )
]
"""Each value of each option, and those together that meet in a kernel."""

NUMBERS = {"temperature": 2.0, "mu": 1.0, "sigma": 0.7, "beta": 0.3, "softmax_temperature": 2.0}


@pytest.mark.parametrize(
    ("dtype", "options"),
    [(torch.float32, EVERY_HWD), (torch.bfloat16, EVERY_HWD[:2]), (torch.float16, EVERY_HWD[:2])],
    ids=["float32", "bfloat16", "float16"],
)
def test_hwd_is_that_of_torch_with_every_option(dtype: torch.dtype, options: list[dict[str, Any]]) -> None:
    label = labels(4, 2, 40, 48)
    for option in options:
        loss = HWD(**option, **NUMBERS)
        student, teacher = (
            maps(2, 4, 5, 6, dtype=dtype).requires_grad_(),
            maps(2, 4, 5, 6, seed=1, dtype=dtype),
        )
        exact = student.detach().double().requires_grad_()
        ours, expected = (
            loss(SegOutput(s, None, {}), SegOutput(t, None, {}), label)
            for s, t in ((student, teacher), (exact, teacher.double()))
        )
        agree(ours, expected, student, exact, within=1e-5 if dtype == torch.float32 else 4e-3)


@pytest.mark.parametrize(
    "loss", [HWD(area_correction="paper", mu=1), CWD(student_channels=3, teacher_channels=3)]
)
def test_a_map_in_several_blocks_is_one_map(monkeypatch: pytest.MonkeyPatch, loss: HWD | CWD) -> None:
    """More positions than a block has, and more than are counted at a time; integers among the options."""
    monkeypatch.setattr(kernels(NAMES[1]), "BLOCK", 512)
    student = maps(1, 3, 40, 33).to(memory_format=torch.channels_last).requires_grad_()
    teacher, exact = maps(1, 3, 40, 33, seed=1), student.detach().double().requires_grad_()
    ours, expected = (
        loss(SegOutput(s, None, {}), SegOutput(t, None, {}), labels(3, 1, 80, 66))
        for s, t in ((student, teacher), (exact, teacher.double()))
    )
    agree(ours, expected, student, exact, within=1e-5)


def test_maps_and_labels_that_do_not_belong_together_are_refused() -> None:
    student = maps(2, 3, 4, 4)
    label = labels(3, 2, 16, 16)
    loss = HWD(area_correction="paper")
    for teacher in (maps(2, 3, 2, 2), maps(2, 5, 4, 4), maps(1, 3, 4, 4)):
        with pytest.raises(ValueError, match="maps of one shape"):
            loss(SegOutput(student, None, {}), SegOutput(teacher, None, {}), label)
    with pytest.raises(ValueError, match="every image needs a label"):
        loss(SegOutput(student, None, {}), SegOutput(student, None, {}), label[:1])


def test_maps_laid_out_in_any_way_have_the_same_cross_entropy() -> None:
    plain, label = maps(2, 3, 3, 4), labels(3, 2, 20, 24)
    expected = upsampled_ce_sum(plain, label, align_corners=True, ignore=IGNORE)
    for student in (plain.to(memory_format=torch.channels_last), plain.mT.contiguous().mT):
        turned = label.mT.contiguous().mT
        assert torch.equal(upsampled_ce_sum(student, turned, align_corners=True, ignore=IGNORE), expected)


@pytest.mark.parametrize("classes", [1, 4])
def test_a_student_that_equals_its_teacher_has_finite_weights(classes: int) -> None:
    student = maps(2, classes, 4, 4).requires_grad_()
    pair = SegOutput(student, None, {}), SegOutput(student.detach(), None, {})
    value = HWD(area_correction="paper")(*pair, labels(classes, 2, 16, 16))
    (gradient,) = torch.autograd.grad(value, student)
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert gradient.abs().max() < 1e-7


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # in lanes beyond a row's end
def test_logits_of_any_size_stay_finite() -> None:
    student, teacher = (1000 * maps(1, 3, 4, 4, seed=seed) for seed in (0, 1))
    student.requires_grad_()
    label = labels(3, 1, 16, 16)
    pair = SegOutput(student, None, {}), SegOutput(teacher, None, {})
    total = CrossEntropy()(*pair, label) + HWD()(*pair, label)
    (gradient,) = torch.autograd.grad(total, student)
    assert total.isfinite()
    assert gradient.isfinite().all()


def test_only_what_was_chosen_goes_through_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setattr(kernels(name), "value_and_gradient", None)  # it would fail if it were called
    label = labels(3, 1, 16, 16)

    def total(student: Tensor) -> Tensor:
        pair = SegOutput(student, None, {}), SegOutput(student + 1, None, {})
        value: Tensor = CrossEntropy()(*pair, label) + HWD()(*pair, label)
        return value

    assert total(maps(1, 3, 4, 4).double()).isfinite()  # float64 is what the kernels are tested against
    choice.choose("torch")
    assert total(maps(1, 3, 4, 4)).isfinite()


COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from hwdkit.kernels import triton_ce, triton_channel_kl

TYPES = {"*bf16": "student teacher near", "*i64": "label"}
TYPES["i32"] = "size classes height width rows columns most_columns ignore"
TYPES["fp32"] = "mu sigma log_beta one_less_beta temperature inverse factor"
KNOWN = {name: type for type, names in TYPES.items() for name in names.split()}


def build(kernel, warps=4, **constants):
    names = kernel.arg_names
    types = {n: "constexpr" if n in constants else KNOWN.get(n, "*fp32") for n in names}
    source = ASTSource(kernel, types, {(names.index(n),): v for n, v in constants.items()})
    for capability in (80, 90):
        made = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
        assert made.asm["cubin"]


for distance in range(4):
    build(triton_channel_kl._rows, 8, distance=distance, on_logits=distance == 1, block=4096)
for smoothing in (0, 1):
    build(triton_channel_kl._weights, corrected=True, normalise=True, smoothing=smoothing, block=256)
build(triton_channel_kl._weights, classes=1, corrected=False, normalise=False, smoothing=0, block=2)
build(triton_channel_kl._gradient, 8, weighted=True, block=4096)
build(triton_channel_kl._gradient, 8, size=1, weighted=False, block=1)  # numbers equal to 1 are constants
for pixels, block in ((128, 16), (2048, 2)):
    build(triton_ce._cell, needs_gradient=True, align_corners=pixels == 128, pixels=pixels, block=block)
build(triton_ce._cell, needs_gradient=False, align_corners=True, pixels=128, block=16)
sizes = "classes height width rows columns most_columns"
ones = dict.fromkeys(sizes.split(), 1)
build(triton_ce._cell, needs_gradient=True, align_corners=False, pixels=16, block=1, **ones)
"""


def test_all_kernels_compile_for_gpus(tmp_path: Path) -> None:
    pytest.importorskip("triton.backends.nvidia")
    made = subprocess.run(
        [sys.executable, "-c", COMPILE],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)},
    )
    assert made.returncode == 0, made.stderr[-2000:]
