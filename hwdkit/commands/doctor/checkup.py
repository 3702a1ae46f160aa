"""What `hwdkit doctor` asks the machine: packages, devices, back ends.

How the answers are put together is `doctor.py`. torch is imported inside the checks: a torch that cannot be
imported is a finding, not the end.
"""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from hwdkit import __version__
from hwdkit.commands.doctor.findings import GIB, REINSTALL, Finding, first_line

REQUIRED = {
    "torch": "2.6",
    "torchvision": "0.21",
    "timm": "1.0.9",
    "safetensors": "0.4.3",
    "numpy": "1.26",
    "pillow": "10",
    "thop": "0.1.1.post2209072238",
    "setuptools": "0",
    "pydantic": "2.7",
    "pyyaml": "6",
    "typer": "0.26",
    "rich": "13",
    "jinja2": "3.1",
    "matplotlib": "3.8",
    "packaging": "22",
}
"""Oldest versions that hwdkit works with; a test compares with pyproject.toml."""

NVIDIA = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"))
"""Where one of these is, a driver has found an NVIDIA GPU."""


def versions() -> Iterator[Finding]:
    """Every package that hwdkit needs is there and new enough."""
    here = Path(__file__).resolve().parents[1]
    yield Finding("hwdkit", f"{__version__} in {here}", facts={"version": __version__, "path": str(here)})
    python = platform.python_version()
    yield Finding("python", f"{python} on {platform.platform()}", facts={"version": python})
    from packaging.version import Version

    for name, least in REQUIRED.items():
        wanted = f"{name}>={least}" if least != "0" else name
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, "not installed", "problem", f"pip install '{wanted}'", {"version": None})
            continue
        facts = {"version": version}
        if Version(version) < Version(least):
            value = f"{version}, hwdkit needs {least} or newer"
            yield Finding(name, value, "problem", f"pip install --upgrade '{wanted}'", facts)
        else:
            yield Finding(name, version, facts=facts)


def imports() -> Iterator[Finding]:
    """What is installed can also be loaded: a package's metadata says nothing about its compiled parts."""
    loaded: dict[str, Callable[[], object]] = {
        "pillow": lambda: import_module("PIL.Image"),
        "timm": lambda: import_module("hwdkit.models.backbone"),
    }
    for name, load in loaded.items():
        try:
            load()
        except Exception as error:
            fix = f"pip install --force-reinstall {name}"
            yield Finding(f"{name} loads", first_line(error), "problem", fix, {"loads": False})
        else:
            yield Finding(f"{name} loads", "yes", facts={"loads": True})


def torchvision_fits() -> Iterator[Finding]:
    """torchvision wants this torch, was built for the same CUDA, and its operators load: timm imports it."""
    import torch
    from packaging.requirements import Requirement

    load: Any = torch.ops.load_library

    name = "torchvision fits"
    wants = [Requirement(text) for text in metadata.requires("torchvision") or ()]
    unmet = [str(r) for r in wants if r.name == "torch" and not r.specifier.contains(torch.__version__, True)]
    if unmet:
        yield Finding(name, f"it wants {unmet[0]}, torch is {torch.__version__}", "problem", REINSTALL)
        return
    vision = metadata.version("torchvision")
    builds = [version.partition("+")[2] for version in (torch.__version__, vision)]
    if all(builds) and builds[0] != builds[1]:
        yield Finding(name, f"torch is a {builds[0]} build, torchvision {builds[1]}", "problem", REINSTALL)
        return
    # The operators alone: importing all of torchvision takes a second.
    spec = find_spec("torchvision")
    try:
        for place in (spec and spec.submodule_search_locations) or ():
            for library in Path(place).glob("_C*.so"):
                load(library)
    except Exception as error:
        yield Finding(name, f"its operators cannot be loaded: {first_line(error)}", "problem", REINSTALL)
    else:
        yield Finding(name, f"torch {torch.__version__}")


def thop_is_the_papers() -> Iterator[Finding]:
    """The packages thop (MIT) and ultralytics-thop (AGPL) install the same module: the last one in wins."""
    try:
        other = metadata.version("ultralytics-thop")
    except metadata.PackageNotFoundError:
        yield Finding("thop is", "the MIT one", facts={"ultralytics_thop": None})
        return
    yield Finding(
        "thop is",
        f"shadowed: ultralytics-thop {other} (AGPL-3.0) installs a module of the same name, "
        "so the GMACs of `profile` may not be those of the papers' counter",
        "problem",
        "pip uninstall ultralytics-thop && pip install --force-reinstall --no-deps thop",
        {"ultralytics_thop": other},
    )


def devices() -> Iterator[Finding]:
    """CUDA devices, or why there are none."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    built = torch.version.cuda or getattr(torch.version, "hip", None)
    for i in range(found):
        try:
            yield _device(i)
        except RuntimeError as error:
            yield Finding(f"cuda:{i}", f"cannot be used: {first_line(error)}", "problem", "nvidia-smi")
    if not found:
        yield _no_device(built, next((first_line(entry.message) for entry in said), ""))
    if torch.backends.mps.is_available():
        yield Finding("MPS", "there, but hwdkit works on CUDA devices or the CPU", "note")


def _device(i: int) -> Finding:
    import torch

    of = torch.cuda.get_device_properties(i)
    major, minor = of.major, of.minor
    facts = {"name": of.name, "bytes": of.total_memory, "capability": [major, minor]}
    value = f"{of.name}, {of.total_memory / GIB:.0f} GiB, compute capability {major}.{minor}"
    kernels = [_architecture(word) for word in torch.cuda.get_arch_list() if word[:3] in ("sm_", "com")]
    # Machine code runs on its own major version; PTX ("compute_…") is compiled for any later device.
    runs = [k for k in kernels if k[1:] <= (major, minor) and (k[0] == "compute" or k[1] == major)]
    if kernels and not runs:
        return Finding(f"cuda:{i}", f"{value}: this torch has no code for it", "problem", REINSTALL, facts)
    return Finding(f"cuda:{i}", value, facts=facts)


def _architecture(word: str) -> tuple[str, int, int]:
    kind, _, number = word.partition("_")
    digits = "".join(filter(str.isdigit, number))  # sm_90a is sm_90 and more
    return kind, int(digits[:-1]), int(digits[-1])


def _no_device(built: str | None, reason: str) -> Finding:
    facts: dict[str, Any] = {"built_for": built}
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    driver = any(sign.exists() for sign in NVIDIA)
    if built and hidden is not None and (not hidden.strip() or hidden.strip().startswith("-")):
        value = f"CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU: the CPU is used"
        return Finding("cuda", value, "note", "unset CUDA_VISIBLE_DEVICES", facts)
    if driver and built:
        value = f"an NVIDIA driver is here, and torch (built for {built}) sees no device"
        fix = "nvidia-smi   (and in a container: docker run --gpus all …)"
        return Finding("cuda", f"{value}{reason and ': '}{reason}", "problem", fix, facts)
    if driver:
        return Finding(
            "cuda", "an NVIDIA driver is here, but this torch is for CPUs", "note", REINSTALL, facts
        )
    return Finding("cuda", "no GPU: hwdkit works on the CPU, which is slow", "note", facts=facts)


def back_ends() -> Iterator[Finding]:
    """What several processes talk through, and what convolutions run on."""
    import torch
    from torch import distributed

    cuda = torch.cuda.is_available()
    gloo = distributed.is_available() and distributed.is_gloo_available()
    nccl = distributed.is_available() and distributed.is_nccl_available()
    for name, there, use, needed in (
        ("gloo", gloo, "several processes on the CPU", False),
        ("nccl", nccl, "several GPUs", cuda and torch.cuda.device_count() > 1),
    ):
        level: Literal["ok", "note", "problem"] = "ok" if there else "problem" if needed else "note"
        value = "available" if there else f"not in this torch: no {use}"
        yield Finding(name, value, level, REINSTALL if needed and not there else "", {"available": there})
    cudnn: Any = torch.backends.cudnn
    version = cudnn.version() if cudnn.is_available() else None
    if version:
        yield Finding("cuDNN", str(version), facts={"version": version})
    elif cuda:
        yield Finding("cuDNN", "not found, convolutions will be slow", "problem", REINSTALL)
