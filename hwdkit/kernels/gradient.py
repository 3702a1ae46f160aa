"""Values whose gradient is formed along with them, as nodes of autograd's graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def wants_gradient(tensor: Tensor) -> bool:
    """Whether autograd would record what is made of a tensor here."""
    return tensor.requires_grad and torch.is_grad_enabled()


def with_gradient(value: Tensor, source: Tensor, gradient: Tensor | None) -> Tensor:
    """Tell autograd the gradient of a value that was computed without it.

    Args:
        value: a scalar.
        source: what it was computed of; it is not kept.
        gradient: d value / d source, of the source's shape and at least float32; kept for the backward
            pass, which scales it in place: nobody else may hold it. None: it is not needed.

    Returns:
        The value, differentiable once in the source; with `create_graph` its backward pass raises a
        RuntimeError, since the gradient is a constant there.
    """
    if gradient is None:
        return value
    differentiable: Tensor = _Precomputed.apply(source, value, gradient)
    return differentiable


# torch has no public name for this; without it every gradient is taken to be read again.
_graph_is_retained: Callable[[], bool] = getattr(
    torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True
)
"""Whether the backward pass that is running was asked to `retain_graph`."""


def _is_read_again(slope: Tensor) -> bool:
    """Whether a saved gradient must stay as it is; so it must for several slopes at once, and when traced."""
    if torch.compiler.is_compiling():
        return True
    functorch = torch._C._functorch
    batched = functorch.is_batchedtensor(slope) or functorch.is_legacy_batchedtensor(slope)
    return batched or _graph_is_retained()


class _Precomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, source: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.dtype = source.dtype
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        # torch's once_differentiable lets create_graph pass where the slope is a constant: the second
        # derivatives lack a term then, and nobody is told.
        if torch.is_grad_enabled():
            raise RuntimeError(
                "this loss is differentiable once: its gradient is formed in the forward pass. "
                "For create_graph=True write it with torch's own operations"
            )
        (gradient,) = ctx.saved_tensors
        # In place where the saved gradient is not read again: a copy would be as large as the logits.
        scaled = gradient * slope if _is_read_again(slope) else gradient.mul_(slope)
        return scaled.to(ctx.dtype), None, None
