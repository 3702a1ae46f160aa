"""Several processes as one: ranks, sums over ranks, and batch norm over ranks.

With one process there is no process group, and every function here is the identity.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hwdkit.errors import EnvironmentFailure, HwdkitError


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many, and the device it works on."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def environment() -> tuple[int, int, int]:
    """(rank, local rank, world size) as torchrun or Slurm set them; (0, 0, 1) when neither did.

    Raises:
        EnvironmentFailure: the variables are half there or contradict each other.
    """
    if ("RANK" in os.environ) != ("WORLD_SIZE" in os.environ):
        name, missing = ("RANK", "WORLD_SIZE") if "RANK" in os.environ else ("WORLD_SIZE", "RANK")
        raise EnvironmentFailure(
            f"{name}={os.environ[name]} is set, but {missing} is not",
            hint=f"start with torchrun or srun, which set both, or unset {name}",
        )
    for names in (("RANK", "LOCAL_RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")):
        if names[0] in os.environ and names[2] in os.environ:
            rank, local, world = (_number(name) for name in names)
            if not 0 <= rank < world:
                raise EnvironmentFailure(f"{names[0]}={rank} is not within {names[2]}={world}")
            return rank, local, world
    return 0, 0, 1


def _number(name: str) -> int:
    text = os.environ.get(name, "0")
    try:
        return int(text)
    except ValueError as error:
        raise EnvironmentFailure(f"{name}={text!r} is not a number") from error


@contextmanager
def started(*, cpu: bool = False) -> Iterator[Ranks]:
    """Join the process group if there is one to join, and leave it at the end; one that exists is kept.

    Args:
        cpu: work on the CPU even where there is a GPU.

    Yields:
        This process's rank and device.
    """
    rank, local, world = environment()
    use_cuda = torch.cuda.is_available() and not cpu
    if use_cuda and "RANK" not in os.environ and torch.cuda.device_count() == 1:
        local = 0  # Slurm's --gpus-per-task shows each process its own GPU only
    elif use_cuda and world == 1:
        local = torch.cuda.current_device()  # as the caller's script has chosen
    if use_cuda and local >= torch.cuda.device_count():
        raise EnvironmentFailure(
            f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}",
            hint="start no more processes than GPUs, or pass --gpus 0 to work on the CPU",
        )
    device = torch.device("cuda", local) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(device)
    if dist.is_available() and dist.is_initialized():  # by the caller's own script
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
        return
    if world == 1:
        yield Ranks(0, 1, device)
        return
    if "MASTER_ADDR" not in os.environ and int(os.environ.get("SLURM_NNODES", "1")) > 1:
        raise EnvironmentFailure(
            "several Slurm nodes need MASTER_ADDR: the host where they meet",
            hint='export MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"',
        )
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")
    dist.init_process_group(
        "nccl" if use_cuda else "gloo", rank=rank, world_size=world, timeout=timedelta(minutes=30)
    )
    try:
        yield Ranks(rank, world, device)
    finally:
        dist.destroy_process_group()


def _grouped() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of everyone's tensor, on every rank; the argument is left alone."""
    if not _grouped():
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """The mean of everyone's tensor, on every rank; the argument is left alone."""
    return sum_over_ranks(tensor) / world_size() if _grouped() else tensor


def gather_over_ranks(tensor: Tensor) -> Tensor:
    """Everyone's tensor, joined along dimension 0 in the order of the ranks, on every rank; no gradient.

    Args:
        tensor: at least one dimension, any type; the same shape on every rank.

    Returns:
        (ranks * n, ...); with one process the tensor itself, detached.
    """
    tensor = tensor.detach()
    if not _grouped():
        return tensor
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def differentiable_sum_over_ranks(tensor: Tensor) -> Tensor:
    """`sum_over_ranks` with a gradient that can be differentiated again.

    Every rank must take part in the backward as well, with the same sums in the same order.
    """
    if not _grouped():
        return tensor
    total: Tensor = _SumOverRanks.apply(tensor)
    return total


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if _grouped() else 1


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set on any rank; the same answer on all."""
    if not _grouped():
        return flag
    return bool(sum_over_ranks(torch.tensor(float(flag), device=device)).item())


def on_main_rank(work: Callable[[], None]) -> None:
    """Run on the main rank what the others rely on; what it raises, every rank raises.

    Otherwise the others would wait for a rank that has ended.
    """
    if not _grouped():
        work()
        return
    verdict: list[HwdkitError | None] = [None]
    if dist.get_rank() == 0:
        try:
            work()
        except HwdkitError as error:
            verdict = [error]
    dist.broadcast_object_list(verdict)
    if verdict[0] is not None:
        raise verdict[0]


def copy_from_main_rank(module: nn.Module) -> None:
    """Give everyone the main rank's parameters and buffers."""
    if _grouped():
        for tensor in (*module.parameters(), *module.buffers()):
            shared = tensor.detach().contiguous()  # channels-last weights cannot be sent as they are
            dist.broadcast(shared, 0)
            tensor.data.copy_(shared)


def wait_for_all() -> None:
    """Return when every rank has arrived here."""
    if _grouped():
        dist.barrier()


class _SumOverRanks(torch.autograd.Function):
    """`sum_over_ranks` with a gradient; torch's differentiable all_reduce is deprecated from 2.15 on."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        return sum_over_ranks(tensor)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        # Every rank's loss depends on every rank's summand. Through the function again, not the plain sum:
        # a gradient penalty differentiates this backward too.
        again: Tensor = _SumOverRanks.apply(gradient.contiguous())
        return again


class GlooSyncBatchNorm(nn.BatchNorm2d):
    """Batch norm with statistics over all ranks, for the CPU: torch's own exists for GPUs only.

    Keeps the activation that timm's BatchNormAct2d carries inside (`act`, and `drop`, both optional).
    """

    def forward(self, x: Tensor) -> Tensor:
        x = self._normalise_over_ranks(x) if self.training else super().forward(x)
        for name in ("drop", "act"):
            if hasattr(self, name):
                x = getattr(self, name)(x)
        return x

    def _normalise_over_ranks(self, x: Tensor) -> Tensor:
        # Under autocast x is bfloat16, whose sums are good for two digits.
        values = x if x.dtype == torch.float64 else x.float()
        count = x.numel() // x.shape[1] * world_size()  # every rank holds as many images
        mean = differentiable_sum_over_ranks(values.sum((0, 2, 3))) / count
        # Deviations from the common mean, not E[x^2] - mean^2: that cancels when the mean is large.
        centred = values - mean[:, None, None]
        var = differentiable_sum_over_ranks(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            if self.running_mean is not None and self.running_var is not None:
                momentum = 0.1 if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.detach(), momentum)
                self.running_var.lerp_(var.detach() * count / max(count - 1, 1), momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = torch.rsqrt(var + self.eps)
        scale = scale * self.weight if self.affine else scale
        normalised: Tensor = centred * scale[:, None, None]
        if self.affine:
            normalised = normalised + self.bias[:, None, None]
        return normalised.to(x.dtype)


def sync_batchnorm_on_cpu(module: nn.Module) -> nn.Module:
    """Replace every BatchNorm2d below `module` by one that shares statistics over gloo ranks.

    Parameters and buffers stay the same objects: what was frozen stays frozen.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            shared = GlooSyncBatchNorm(
                child.num_features,
                eps=child.eps,
                momentum=child.momentum,
                affine=child.affine,
                track_running_stats=child.track_running_stats,
            )
            shared._parameters.update(child._parameters)
            shared._buffers.update(child._buffers)
            shared._modules.update(child._modules)
            setattr(module, name, shared.train(child.training))
        else:
            sync_batchnorm_on_cpu(child)
    return module
