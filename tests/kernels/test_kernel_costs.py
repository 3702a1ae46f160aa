"""What the kernels may cost, in figures that do not depend on the machine: operations, and bytes held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hwdkit.kernels import channel_kl as kernel
from hwdkit.losses.cross_entropy import CrossEntropy
from hwdkit.losses.hwd import HWD
from hwdkit.measure.memory import peak_bytes
from hwdkit.types import SegOutput

CPU = torch.device("cpu")

aten = torch.ops.aten
LAUNCH_NOTHING = {
    aten.detach.default,
    aten.new_empty.default,
    aten.promote_types.default,
    aten.scalar_tensor.default,
}


class Watch(TorchDispatchMode):
    """Counts the operations that compute something, and remembers the largest tensor made."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [t for t in torch.utils._pytree.tree_leaves(result) if isinstance(t, Tensor)]
        if not func.is_view and func not in LAUNCH_NOTHING:
            self.operations += 1
        self.largest = max([self.largest, *(t.untyped_storage().nbytes() // t.element_size() for t in made)])
        return result


def watched(step: Callable[[], Tensor]) -> Watch:
    with Watch() as watch:
        step().backward()
    return watch


def output(classes: int, *, side: int = 8, grad: bool) -> SegOutput:
    maps = torch.randn(8, classes, side, side, requires_grad=grad)
    return SegOutput(maps, torch.randn(8, classes, side, side, requires_grad=grad), {})


def test_hwd_is_at_most_sixty_operations_whatever_the_number_of_classes(monkeypatch: Any) -> None:
    monkeypatch.setattr(kernel, "CPU_BYTES", kernel.GPU_BYTES)  # as a GPU runs it: the batch at once
    label = torch.randint(150, (8, 64, 64))
    loss = HWD(area_correction="paper")

    def operations(classes: int) -> int:
        pair = output(classes, grad=True), output(classes, grad=False)
        return watched(lambda: loss(*pair, label)).operations

    assert operations(19) == operations(150) <= 60


def test_no_step_of_the_losses_makes_a_tensor_of_the_upsampled_logits_size() -> None:
    student, teacher = output(20, side=16, grad=True), output(20, side=16, grad=False)
    label = torch.randint(20, (8, 128, 128))
    task, distilled = CrossEntropy(), HWD()
    watch = watched(lambda: task(student, None, label) + distilled(student, teacher, label))
    assert watch.largest < 8 * 20 * 128 * 128 / 4


def test_cross_entropy_holds_little_more_than_its_gradient() -> None:
    peaks = [_peak_bytes(classes) for classes in (10, 20)]
    logits = 4 * 2 * 10 * 32 * 32
    upsampled = 4 * 2 * 10 * 256 * 256
    assert peaks[0] < 10 * logits + 3 * 2 * 2**20 < 3 * upsampled


def _peak_bytes(classes: int) -> int:
    maps = torch.randn(2, classes, 32, 32, requires_grad=True)
    label = torch.randint(classes, (2, 256, 256))
    return peak_bytes(lambda: CrossEntropy()(SegOutput(maps, None, {}), None, label).backward(), CPU)


def test_hwd_holds_at_most_one_and_a_half_maps_of_the_logits_its_backward_pass_included() -> None:
    student = torch.randn(8, 150, 64, 64, requires_grad=True)
    teacher = torch.randn(8, 150, 64, 64)
    label = torch.randint(150, (8, 128, 128))
    loss = HWD(area_correction="paper")
    pair = SegOutput(student, None, {}), SegOutput(teacher, None, {})
    assert peak_bytes(lambda: loss(*pair, label).backward(), CPU) <= 1.5 * student.nbytes
