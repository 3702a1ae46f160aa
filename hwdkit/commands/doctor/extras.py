"""What `hwdkit doctor` says of the optional packages: what each extra is for, and whether it is there."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple

from hwdkit.commands.doctor.findings import Finding


class Extra(NamedTuple):
    """What an extra of pyproject.toml is for, and its packages with the oldest version that will do."""

    use: str
    packages: dict[str, str]


EXTRAS = {
    "onnx": Extra(
        "hwdkit export --format onnx", {"onnx": "1.17", "onnxruntime": "1.20", "onnxscript": "0.3"}
    ),
    "video": Extra("films in hwdkit predict", {"av": "13"}),
    "tsne": Extra("hwdkit visualize embeddings", {"scikit-learn": "1.5"}),
    "tensorboard": Extra("scalars of a run in TensorBoard", {"tensorboard": "2.14"}),
}
"""A test compares with pyproject.toml."""


def extras() -> Iterator[Finding]:
    """Each extra is there and new enough; one that is not there is nothing to worry about."""
    from packaging.version import Version

    for name, extra in EXTRAS.items():
        there = {package: _version(package) for package in extra.packages}
        missing = [package for package, version in there.items() if version is None]
        old = [
            f"{package} {version}"
            for package, version in there.items()
            if version is not None and Version(version) < Version(extra.packages[package])
        ]
        facts = {"for": extra.use, "versions": there}
        listed = ", ".join(f"{package} {version}" for package, version in there.items() if version)
        if len(missing) == len(there):
            value = f"not installed; for {extra.use}"
            yield Finding(name, value, "ok", _install(name), facts)
        elif missing or old:
            value = (
                f"{', '.join([*(f'no {package}' for package in missing), *(f'{o} is too old' for o in old)])}"
            )
            yield Finding(name, f"{value}: no {extra.use}", "note", _install(name), facts)
        else:
            yield Finding(name, f"{listed}: {extra.use}", facts=facts)


def _install(name: str) -> str:
    return f"pip install --upgrade 'hwdkit[{name}]'"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
