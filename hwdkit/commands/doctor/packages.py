"""Packages, as `hwdkit doctor` checks them: those that hwdkit requires, and those of its extras."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING

from hwdkit import __version__
from hwdkit.commands.doctor.finding import REINSTALL, Finding, first_line

if TYPE_CHECKING:
    from packaging.requirements import Requirement

USES = {
    "onnx": "hwdkit export --format onnx",
    "video": "videos in hwdkit predict",
    "tsne": "hwdkit visualize embeddings",
    "tensorboard": "scalars of a run in TensorBoard",
}
"""What extras are for; their packages are listed in pyproject.toml alone."""

FOR_DEVELOPERS = {"test", "dev"}
LOADED = {
    "pillow": ("PIL.Image", "pip install --force-reinstall pillow"),
    "torchvision": ("torchvision", REINSTALL),
    "timm": ("hwdkit.models.backbone", "pip install --force-reinstall timm"),
}
"""A package, the module whose import shows that it works, and what to type if it does not."""


def versions() -> Iterator[Finding]:
    """Every package that hwdkit requires is there and new enough."""
    folder, python = Path(__file__).resolve().parents[2], platform.python_version()
    yield Finding("hwdkit", f"{__version__} in {folder}", facts={"version": __version__, "path": str(folder)})
    yield Finding("python", f"{python} on {platform.platform()}", facts={"version": python})
    for requirement in _required():
        version, name = _installed(requirement), requirement.name
        facts = {"version": version}
        if version is None:
            yield Finding(name, "not installed", "problem", f"pip install '{requirement}'", facts)
        elif not requirement.specifier.contains(version, prereleases=True):
            value = f"{version}, hwdkit needs {requirement.specifier}"
            yield Finding(name, value, "problem", f"pip install --upgrade '{requirement}'", facts)
        else:
            yield Finding(name, version, facts=facts)


def imports() -> Iterator[Finding]:
    """What is installed also loads; torchvision refuses a torch that it was not built for."""
    for name, (module, fix) in LOADED.items():
        try:
            import_module(module)
            yield Finding(f"{name} loads", "yes", facts={"loads": True})
        except Exception as error:
            yield Finding(f"{name} loads", first_line(error), "problem", fix, {"loads": False})


def thop_is_the_papers() -> Iterator[Finding]:
    """The packages thop (MIT) and ultralytics-thop (AGPL) install the same module: the last one in wins."""
    try:
        other = metadata.version("ultralytics-thop")
    except metadata.PackageNotFoundError:
        yield Finding("thop is", "the MIT one", facts={"ultralytics_thop": None})
        return
    yield Finding(
        "thop is",
        f"replaced: ultralytics-thop {other} (AGPL-3.0) installs a module of the same name, "
        "so the GMACs of `profile` may not be those of the papers' counter",
        "problem",
        "pip uninstall ultralytics-thop && pip install --force-reinstall --no-deps thop",
        {"ultralytics_thop": other},
    )


def extras() -> Iterator[Finding]:
    """Each extra is there and new enough; one that is not there is nothing to worry about."""
    for extra in metadata.metadata("hwdkit").get_all("Provides-Extra") or ():
        if extra in FOR_DEVELOPERS:
            continue
        versions: dict[str, str | None] = {}
        faults, use = [], USES.get(extra, "")
        for package in _required(extra):
            version = versions[package.name] = _installed(package)
            if version is None:
                faults.append(f"no {package.name}")
            elif not package.specifier.contains(version, prereleases=True):
                faults.append(f"{package.name} {version} is too old")
        facts, fix = {"for": use, "versions": versions}, f"pip install --upgrade 'hwdkit[{extra}]'"
        if not any(versions.values()):
            yield Finding(extra, f"not installed; for {use}", "ok", fix, facts)
        elif faults:
            yield Finding(extra, f"{', '.join(faults)}: no {use}", "note", fix, facts)
        else:
            listed = ", ".join(f"{name} {version}" for name, version in versions.items())
            yield Finding(extra, f"{listed}: {use}", facts=facts)


def _required(extra: str = "") -> list[Requirement]:
    """What hwdkit requires, or what one of its extras adds to that."""
    from packaging.requirements import Requirement

    requirements = [Requirement(line) for line in metadata.requires("hwdkit") or ()]
    core = [line for line in requirements if line.marker is None or line.marker.evaluate({"extra": ""})]
    if not extra:
        return core
    return [
        line
        for line in requirements
        if line not in core and line.marker is not None and line.marker.evaluate({"extra": extra})
    ]


def _installed(requirement: Requirement) -> str | None:
    try:
        return metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return None
