"""What a network costs: parameters and multiply-adds by three counters, put together with latency and memory.

Only computing lives here; tables and JSON are rendered elsewhere.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hwdkit.measure.latency import Latency, evaluating, measure_latency, measure_peak_memory
from hwdkit.models.segmenter import Segmenter


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of one image by three counters that disagree.

    Attributes:
        true: torch's counter: convolutions and matrix products at their real output size.
        paper: the counter of the HWD and CIRKD papers, which forgets dilation (`paper_macs`).
        thop: the `thop` package, which adds some for normalisation and resizing; None if it failed or was
            not asked for.
        thop_error: why thop is None, else "".
    """

    true: int
    paper: int
    thop: int | None
    thop_error: str = ""


@dataclass(frozen=True)
class Profile:
    """What one network costs at one image size.

    Attributes:
        height, width: of the image, in pixels.
        batch: images per forward pass, for latency and memory; multiply-adds are always per image.
        device: where latency and memory were measured ("cpu", "cuda:0").
        params: parameters including the auxiliary head, as the papers count them.
        params_deployed: parameters without the auxiliary head.
        macs: with the auxiliary head, as the papers count them.
        macs_deployed: without it, as the network runs after training.
        latency: of the deployed network; None if it was not asked for.
        peak_memory_mib: most memory that the network's tensors held at once during a forward pass, weights
            included; None if it was not asked for or the device cannot tell.
        peak_memory_note: why peak_memory_mib is None, else "".
    """

    height: int
    width: int
    batch: int
    device: str
    params: int
    params_deployed: int
    macs: Macs
    macs_deployed: Macs
    latency: Latency | None = None
    peak_memory_mib: float | None = None
    peak_memory_note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the profile as JSON-ready values."""
        return dataclasses.asdict(self)


def profile(
    network: Segmenter,
    size: tuple[int, int],
    *,
    batch: int = 1,
    warmup: int = 10,
    repeats: int = 50,
    dtype: torch.dtype | None = None,
    thop: bool = True,
) -> Profile:
    """Measure a network on the device it is on; neither its weights nor its mode change.

    Args:
        network: any Segmenter.
        size: (H, W) of the image, pixels.
        batch, warmup, dtype: of the forward passes, see `measure_latency`.
        repeats: timed forward passes; 0 skips latency and memory, and only counts.
        thop: whether to run that counter too, the slowest of the three.
    """
    device = next(network.parameters()).device
    params, params_deployed = count_parameters(network)
    latency, memory, note = None, None, "not measured"
    if repeats:
        latency = measure_latency(network, size, batch=batch, warmup=warmup, repeats=repeats, dtype=dtype)
        memory, note = measure_peak_memory(network, size, batch=batch, dtype=dtype)
    return Profile(
        height=size[0],
        width=size[1],
        batch=batch,
        device=str(device),
        params=params,
        params_deployed=params_deployed,
        macs=count_macs(network, size, aux=True, thop=thop),
        macs_deployed=count_macs(network, size, aux=False, thop=thop),
        latency=latency,
        peak_memory_mib=memory,
        peak_memory_note=note,
    )


def count_parameters(network: Segmenter) -> tuple[int, int]:
    """(All parameters, those without the auxiliary head); the HWD paper prints the first."""
    total = sum(p.numel() for p in network.parameters())
    aux = 0 if network.aux_head is None else sum(p.numel() for p in network.aux_head.parameters())
    return total, total - aux


def count_macs(network: Segmenter, size: tuple[int, int], *, aux: bool = False, thop: bool = True) -> Macs:
    """Count the multiply-adds of one image of (H, W) pixels on a copy without storage: nothing is computed.

    `aux` counts the auxiliary head, if there is one; `thop` runs that counter, too.
    """
    twin = _without_storage(network)
    image = torch.empty(1, 3, *size, dtype=torch.uint8, device="meta")
    counted, error = _thop_macs(twin, image, aux=aux) if thop else (None, "not asked for")
    return Macs(true_macs(twin, image, aux=aux), paper_macs(twin, image, aux=aux), counted, error)


def true_macs(network: Segmenter, image: Tensor, *, aux: bool) -> int:
    """Count convolutions and matrix products with torch's own counter (1 MAC = 2 of its FLOPs)."""
    with evaluating(network), FlopCounterMode(display=False) as counter:
        network(image, aux=aux)
    return int(counter.get_total_flops()) // 2


def paper_macs(network: Segmenter, image: Tensor, *, aux: bool) -> int:
    """Count multiply-adds as the HWD and CIRKD papers do, for comparison with their tables only.

    Their counter takes a convolution's output to be (h + 2p - k) // s + 1 high, whatever its dilation: a 3x3
    convolution of rate 36 on a 64x64 map, which pads by 36, counts as if it made a 134x134 map. Each layer's
    input is the real one, so the error does not accumulate. Bias, batch norm and resizing are free.

    With the auxiliary head this reproduces the printed values: at 512x512 and 150 classes 384.7, 86.0, 22.6
    and 67.6 G (DeepLabV3 on ResNet-101, ResNet-18 and MobileNetV2, PSPNet on ResNet-18), which the authors
    cut after one decimal; at 1024x2048 and 19 classes 2371.7 and 572.0 G, which they rounded.

    A convolution that pads inside its forward (timm's TensorFlow-style "same") is taken at its real output.
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features
            return
        assert isinstance(layer, nn.Conv2d)
        positions = output.shape[2] * output.shape[3]
        if type(layer) is nn.Conv2d and not isinstance(layer.padding, str):
            positions = 1
            for axis in (0, 1):
                padded = inputs[0].shape[2 + axis] + 2 * layer.padding[axis]
                positions *= (padded - layer.kernel_size[axis]) // layer.stride[axis] + 1
        total += output.shape[0] * positions * layer.weight.numel()

    hooks = [
        m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    try:
        with evaluating(network):
            network(image, aux=aux)
    finally:
        for hook in hooks:
            hook.remove()
    return total


def _thop_macs(network: Segmenter, image: Tensor, *, aux: bool) -> tuple[int | None, str]:
    """Run thop on a copy: it leaves buffers in modules that it has no rule for."""
    try:
        import thop  # unmaintained, and imports distutils: a broken thop must not break profiling

        macs, _ = thop.profile(_WithAux(copy.deepcopy(network), aux), inputs=(image,), verbose=False)
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"
    return int(macs), ""


class _WithAux(nn.Module):
    """Fix the keyword that thop cannot pass."""

    def __init__(self, network: Segmenter, aux: bool) -> None:
        super().__init__()
        self.network = network
        self.aux = aux

    def forward(self, image: Tensor) -> Any:
        return self.network(image, aux=self.aux)


def _without_storage(network: Segmenter) -> Segmenter:
    """Copy a network to the meta device without ever copying its weights."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in network.parameters()}
    memo |= {id(b): b.to("meta") for b in network.buffers()}
    return copy.deepcopy(network, memo)
