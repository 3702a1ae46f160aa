"""What a recipe cannot have on a device: refused before a run begins, not by torch in its first step."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec

import torch
from torch import nn

from hwdkit.errors import EnvironmentFailure


def require_possible(
    device: torch.device, *, amp: str, deterministic: str, compiled: bool, kernels: str
) -> None:
    """Refuse what a device cannot do; the words are those of a recipe's `train`.

    Raises:
        EnvironmentFailure: fp16 or Triton's kernels on a CPU, strict determinism on a GPU, or compiling
            without a compiler or triton.
    """
    if amp == "fp16" and device.type != "cuda":
        raise EnvironmentFailure("train.amp: fp16 needs a GPU", hint="use --set train.amp=bf16 or off")
    if deterministic == "strict" and device.type == "cuda":
        raise EnvironmentFailure(
            "train.deterministic: strict cannot be kept on a GPU: torch has no deterministic kernel for "
            "bilinear resizing and adaptive pooling backwards",
            hint="use --set train.deterministic=warn, or train on the CPU with --gpus 0",
        )
    if compiled:
        require_compiler(device)
    if kernels == "triton" and device.type != "cuda":
        raise EnvironmentFailure(
            "train.kernels: triton needs a GPU", hint="use --set train.kernels=torch: the same numbers"
        )
    if kernels == "triton":
        require_triton()


def require_triton() -> None:
    """Refuse `train.kernels: triton` without triton, or the C compiler that it builds its launchers with.

    Raises:
        EnvironmentFailure: either is.
    """
    hint = "{}, or use --set train.kernels=torch: the same numbers"
    if find_spec("triton") is None:
        raise EnvironmentFailure(
            "train.kernels: triton needs the package triton", hint=hint.format("pip install triton")
        )
    compilers = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang", "cc"]
    if not any(map(shutil.which, compilers)):
        raise EnvironmentFailure(
            f"train.kernels: triton needs a C compiler, and there is no {compilers[0]}",
            hint=hint.format("install gcc or clang, or name another in the variable CC"),
        )


def require_compiler(device: torch.device) -> None:
    """Refuse `train.compile` where nothing can be compiled.

    Raises:
        EnvironmentFailure: there is no C++ compiler, or no triton for a GPU.
    """
    # The one that torch's inductor calls; on a GPU triton builds its launchers with its C sibling.
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise EnvironmentFailure(
            f"train.compile needs a C++ compiler, and there is no {compiler}",
            hint="install g++, or name another in the variable CXX, or use --set train.compile=false",
        )
    if device.type == "cuda" and find_spec("triton") is None:
        raise EnvironmentFailure(
            "train.compile needs triton on a GPU", hint="pip install triton, or use --set train.compile=false"
        )


def require_sound_channels_last(network: nn.Module, device: torch.device) -> None:
    """Refuse `train.channels_last` for networks whose backward pass ends in a segmentation fault.

    oneDNN (torch 2.15) corrupts memory in the backward pass of a strided 1x1 convolution of 8 channels or
    fewer on channels-last maps; 12 and more channels are sound.

    Raises:
        EnvironmentFailure: a CPU, and such a convolution.
    """
    if device.type != "cpu":
        return
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d) or module.kernel_size != (1, 1) or max(module.stride) == 1:
            continue
        if module.in_channels < 12:
            raise EnvironmentFailure(
                f"train.channels_last: torch crashes on a CPU in {name}, a strided 1x1 convolution of "
                f"{module.in_channels} channels",
                hint="use --set train.channels_last=false",
            )
