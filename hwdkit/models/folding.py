"""Batch norm of a frozen network folded into the convolution before it: the same function in fewer passes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from typing import Any

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn

from hwdkit.models.segmenter import Segmenter

log = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""How far a map may move, relative to its largest value; rounding moves it by 1e-6."""


@torch.no_grad()
def fold_batch_norm(network: Segmenter) -> Segmenter:
    """Give a network without the batch norms that follow a convolution, for evaluation only.

    Which convolution feeds which batch norm is watched in a forward pass, so that every timm backbone works
    whose forward is made of modules. A network of which any map would change is returned as it is: the
    logits, the auxiliary logits or a tap.

    Args:
        network: in evaluation mode; not changed. Best still on the CPU: a GPU's TF32 can round by as much
            as the tolerance, and both copies would lie in its memory.

    Returns:
        A copy in evaluation mode that is within rounding of the network, or the network itself.
    """
    folded = copy.deepcopy(network).eval()
    device = next(folded.parameters()).device
    seeded = torch.Generator().manual_seed(0)
    image = torch.randint(256, (1, 3, 65, 97), generator=seeded, dtype=torch.uint8).to(device)
    for convolution, name in _pairs(folded, image):
        norm = folded.get_submodule(name)
        assert isinstance(norm, nn.BatchNorm2d)
        _fold(convolution, norm)
        folded.set_submodule(name, norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity())
    pairs = zip(_maps(network, image), _maps(folded, image), strict=True)
    moved = [name for (name, old), (_, new) in pairs if not _within_rounding(old, new)]
    if not moved:
        return folded
    log.info("batch norm of %s is not folded: %s would move", network.spec.backbone, ", ".join(moved))
    return network


def _maps(network: Segmenter, image: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Every map that a loss can read."""
    output = network(image, tuple(network.tap_channels), aux=True)
    yield "logits", output.logits
    if output.aux is not None:
        yield "auxiliary logits", output.aux
    yield from output.taps.items()


def _within_rounding(old: Tensor, new: Tensor) -> bool:
    return bool((new - old).abs().max() <= TOLERANCE * old.abs().max())  # not so where anything is NaN


def _pairs(network: Segmenter, image: Tensor) -> list[tuple[nn.Conv2d, str]]:
    """(convolution, name of the batch norm that its output goes to), each of which runs once."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    feeding: dict[str, nn.Conv2d] = {}
    runs: list[nn.Module] = []

    def after(module: nn.Module, inputs: Any, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        made[id(output)] = (module, output)  # the tensor is kept, so that its id stays its own
        runs.append(module)

    def before(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        runs.append(module)
        if id(inputs[0]) in made:
            feeding[name] = made[id(inputs[0])][0]

    hooks = []
    for name, module in network.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            continue  # timm hands out the maps of some backbones that way
        if type(module) in (nn.Conv2d, Conv2dSame):
            hooks.append(module.register_forward_hook(after))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d) and module.track_running_stats:
            hooks.append(
                module.register_forward_pre_hook(
                    lambda module, inputs, name=name: before(name, module, inputs)
                )
            )
    try:
        network(image, aux=True)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        (convolution, name)
        for name, convolution in feeding.items()
        if runs.count(convolution) == 1 and runs.count(network.get_submodule(name)) == 1
    ]


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """y = gamma (Wx + b - mean) / sqrt(var + eps) + beta, as one convolution; computed in float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    shift = shift if norm.bias is None else shift + norm.bias.double()
    if convolution.bias is not None:
        shift = shift + convolution.bias.double() * scale
    weight = convolution.weight
    convolution.weight = nn.Parameter((weight.double() * scale[:, None, None, None]).to(weight.dtype), False)
    convolution.bias = nn.Parameter(shift.to(weight.dtype), False)
