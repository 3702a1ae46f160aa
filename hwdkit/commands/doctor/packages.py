"""Packages, as `hwdkit doctor` checks them: those that hwdkit requires, and those of its extras."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING

from hwdkit import __version__
from hwdkit.commands.doctor.finding import REINSTALL, Finding, first_line

if TYPE_CHECKING:
    from packaging.requirements import Requirement

USES = {
    "onnx": "hwdkit export --format onnx",
    "video": "films in hwdkit predict",
    "tsne": "hwdkit visualize embeddings",
    "tensorboard": "scalars of a run in TensorBoard",
}
"""What extras are for; their packages are listed in pyproject.toml alone."""

FOR_DEVELOPERS = {"test", "dev"}


def versions() -> Iterator[Finding]:
    """Every package that hwdkit requires is there and new enough."""
    folder = Path(__file__).resolve().parents[2]
    yield Finding("hwdkit", f"{__version__} in {folder}", facts={"version": __version__, "path": str(folder)})
    python = platform.python_version()
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
    loads: tuple[tuple[str, Callable[[], object], str], ...] = (
        ("pillow", lambda: import_module("PIL.Image"), "pip install --force-reinstall pillow"),
        ("torchvision", lambda: import_module("torchvision"), REINSTALL),
        ("timm", lambda: import_module("hwdkit.models.backbone"), "pip install --force-reinstall timm"),
    )
    for name, load, fix in loads:
        try:
            load()
        except Exception as error:
            yield Finding(f"{name} loads", first_line(error), "problem", fix, {"loads": False})
        else:
            yield Finding(f"{name} loads", "yes", facts={"loads": True})


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


def extras() -> Iterator[Finding]:
    """Each extra is there and new enough; one that is not there is nothing to worry about."""
    for extra in metadata.metadata("hwdkit").get_all("Provides-Extra") or ():
        if extra in FOR_DEVELOPERS:
            continue
        packages, use = _required(extra), USES.get(extra, "")
        installed = {package.name: _installed(package) for package in packages}
        lacking = [
            f"no {package.name}" if version is None else f"{package.name} {version} is too old"
            for package in packages
            if (version := installed[package.name]) is None
            or not package.specifier.contains(version, prereleases=True)
        ]
        facts, fix = {"for": use, "versions": installed}, f"pip install --upgrade 'hwdkit[{extra}]'"
        if not any(installed.values()):
            yield Finding(extra, f"not installed; for {use}", "ok", fix, facts)
        elif lacking:
            yield Finding(extra, f"{', '.join(lacking)}: no {use}", "note", fix, facts)
        else:
            listed = ", ".join(f"{name} {version}" for name, version in installed.items())
            yield Finding(extra, f"{listed}: {use}", facts=facts)


def _required(extra: str = "") -> list[Requirement]:
    """What hwdkit requires, or what one of its extras adds to that."""
    from packaging.requirements import Requirement

    def is_required(requirement: Requirement, extra: str) -> bool:
        return requirement.marker is None or requirement.marker.evaluate({"extra": extra})

    return [
        requirement
        for requirement in map(Requirement, metadata.requires("hwdkit") or ())
        if is_required(requirement, extra) and not (extra and is_required(requirement, ""))
    ]


def _installed(requirement: Requirement) -> str | None:
    try:
        return metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return None
