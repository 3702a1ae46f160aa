"""From other people's names of tensors to hwdkit's: what every importer needs. No files, no networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hwdkit.errors import CheckpointError

WEIGHT, BIASED = ("weight",), ("weight", "bias")
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

Rows = Iterator[tuple[str, str, tuple[str, ...]]]
"""(their module, hwdkit's module, the tensors that it has)."""

RESNETS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
STEM_MODULES = (("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1"))
"""timm has the three convolutions of a deep stem and their norms in a Sequential, but for the last norm."""


@dataclass(frozen=True)
class Converted:
    """A network under hwdkit's names.

    Attributes:
        network: what a `NetworkSpec` is rebuilt from, the input contract included (None: timm's of the
            backbone). Of a backbone alone: `backbone`, `backbone_options` and `input`.
        state: name -> tensor, the very tensors that were given.
        dropped: their names of tensors that have no place in it.
        class_names: the classes in the order of the logits, where the file names them.
        assumed: what neither the tensors nor a description say, as text for people.
    """

    network: dict[str, Any]
    state: dict[str, Tensor]
    dropped: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()


def renamed(
    weights: Mapping[str, Tensor],
    rows: Iterable[tuple[str, str, tuple[str, ...]]],
    *,
    what: str,
    counters: bool = True,
) -> dict[str, Tensor]:
    """Rename every tensor by a table that must match exactly.

    Args:
        rows: (their module, our module, the tensors that it has).
        what: the network, as text for people.
        counters: whether `num_batches_tracked` must be there; PyTorch before 0.4.1 did not write it, and only
            momentum=None would read it.

    Raises:
        CheckpointError: the table or the weights have something that the other lacks.
    """
    names = {f"{a}.{leaf}": f"{b}.{leaf}" for a, b, leaves in rows for leaf in leaves}
    missing = [key for key in names if key not in weights and (counters or not key.endswith(NORM[-1]))]
    unexpected = [key for key in weights if key not in names]
    problems = []
    for kind, keys in (("missing", missing), ("unexpected", unexpected)):
        # Names come from a file: in a list of lines none may be two, or fill the screen.
        problems += [f"{kind} {repr(key[:120])[1:-1]}" for key in keys[:8]]
        problems += [f"{kind} {len(keys) - 8} more"] if len(keys) > 8 else []
    if problems:
        raise CheckpointError(f"not a {what}:\n  " + "\n  ".join(problems))
    return {names[key]: tensor for key, tensor in weights.items()}


def without_module(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the `module.` that DistributedDataParallel puts before every name."""
    prefix = "module." if weights and all(key.startswith("module.") for key in weights) else ""
    return {key.removeprefix(prefix): tensor for key, tensor in weights.items()}


def has(weights: Mapping[str, Tensor], *prefixes: str) -> bool:
    """Whether any name begins with one of the prefixes."""
    return any(key.startswith(prefixes) for key in weights)


def described(
    state: dict[str, Tensor],
    *,
    backbone: str,
    head: str,
    input: Mapping[str, Any] | None,  # the field's name
    options: Mapping[str, Any] | None = None,
    output_stride: int = 8,
) -> dict[str, Any]:
    """What a `NetworkSpec` is rebuilt from; widths, classes and auxiliary head are read from the tensors.

    Args:
        state: under hwdkit's names.

    Raises:
        CheckpointError: a convolution's weight is none.
    """
    widths = []
    for key in ("head.block.0.weight", "head.classifier.weight"):
        shape = tuple(state[key].shape)
        if len(shape) != 4:
            raise CheckpointError(f"{key} is {shape}: not the weight of a convolution")
        widths.append(shape[0])
    return {
        "backbone": backbone,
        "backbone_options": dict(options or {}),
        "output_stride": output_stride,
        "head": head,
        "head_channels": widths[0],
        "aux": has(state, "aux_head."),
        "classes": widths[1],
        "input": input and dict(input),
    }


def resnet_name(weights: Mapping[str, Tensor], prefix: str) -> str:
    """The likeliest of RESNETS; whether everything fits, the table says."""
    if not has(weights, f"{prefix}layer1.0.conv3."):
        return "resnet18"
    # The seventh block of the third layer tells the two deep ones apart.
    return "resnet101" if has(weights, f"{prefix}layer3.6.") else "resnet50"


def resnet_blocks(resnet: str, source: str, target: str, *, stem_channels: int) -> Rows:
    """The four layers of a ResNet: in them CIRKD, torchvision, mmseg and timm use the same names."""
    convolutions = 2 if resnet == "resnet18" else 3
    first_width = 64 if convolutions == 2 else 256
    for layer, blocks in enumerate(RESNETS[resnet], 1):
        for block in range(blocks):
            name = f"layer{layer}.{block}."
            for i in range(1, convolutions + 1):
                yield from _pair(source, target, f"{name}conv{i}", f"{name}bn{i}")
            if block == 0 and (layer > 1 or stem_channels != first_width):
                yield from _pair(source, target, f"{name}downsample.0", f"{name}downsample.1")


def _pair(source: str, target: str, conv: str, norm: str) -> Rows:
    yield f"{source}{conv}", f"{target}{conv}", WEIGHT
    yield f"{source}{norm}", f"{target}{norm}", NORM


def plain_stem(source: str, target: str) -> Rows:
    """One 7x7 convolution, named alike everywhere."""
    yield from _pair(source, target, "conv1", "bn1")


def block_rows(source: str, target: str, *, first: int = 0, target_first: int = 0) -> Rows:
    """A convolution and its batch norm: two neighbours in a Sequential, here and there."""
    yield f"{source}.{first}", f"{target}.{target_first}", WEIGHT
    yield f"{source}.{first + 1}", f"{target}.{target_first + 1}", NORM
