"""What holds for every loss on a GPU: the CPU's numbers, and no waiting for the device."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from test_every_loss import both, every_loss, gradients, labels, make
from torch import Tensor, nn

from hwdkit.types import SegOutput

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Convolutions of projectors and critics round to TF32 otherwise."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def moved(out: SegOutput) -> SegOutput:
    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().to(CUDA).requires_grad_()

    assert out.aux is not None
    return SegOutput(leaf(out.logits), leaf(out.aux), {name: leaf(tap) for name, tap in out.taps.items()})


def steady(name: str) -> nn.Module:
    """The loss without dice, which differ between devices."""
    return make(name, **({"mask_ratio": 0.0} if name in ("mgd", "af_dcd") else {}))


@every_loss
def test_a_gpu_gives_the_value_and_the_gradient_of_the_cpu(name: str) -> None:
    loss = steady(name)
    on_gpu = copy.deepcopy(loss).to(CUDA)
    student, teacher = both(loss)
    expected = loss(student, teacher, labels())
    expected.backward()
    there, hints = moved(student), moved(teacher)
    value = on_gpu(there, hints, labels().to(CUDA))
    value.backward()
    torch.testing.assert_close(value.cpu(), expected, rtol=1e-4, atol=1e-6)
    assert gradients(hints) == []
    for ours, theirs in zip(gradients(there), gradients(student), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-3, atol=1e-5 * theirs.abs().max().item())


@every_loss
def test_a_step_never_waits_for_the_gpu(name: str) -> None:
    loss = make(name).to(CUDA)
    student, teacher = (moved(out) for out in both(loss))
    label = labels().to(CUDA)

    def step() -> None:
        loss(student, teacher, label).backward()
        if hasattr(loss, "update_critic"):
            loss.update_critic(0.0)

    step()  # the first one may look something up
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_critic_with_a_gradient_penalty_learns_as_on_the_cpu() -> None:
    loss = make("holistic", adversary="wgan_gp", gradient_penalty=0.0)
    on_gpu = copy.deepcopy(loss).to(CUDA)
    student, teacher = both(loss)
    for one, out, hints in ((loss, student, teacher), (on_gpu, moved(student), moved(teacher))):
        one(out, hints, labels().to(out.logits.device)).backward()
    torch.testing.assert_close(on_gpu.update_critic(0.0).cpu(), loss.update_critic(0.0), rtol=1e-4, atol=1e-5)
    penalised = make("holistic", adversary="wgan_gp").to(CUDA)
    penalised(moved(student), moved(teacher), labels().to(CUDA)).backward()
    assert penalised.update_critic(0.0).isfinite()
