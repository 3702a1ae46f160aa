"""Networks in files: rebuilding one from a checkpoint that describes itself, and describing one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from hwdkit import __version__
from hwdkit.checkpoints.files import load_model
from hwdkit.data.index import DatasetIndex
from hwdkit.engine.rundir import RunDir
from hwdkit.errors import CheckpointError, RecipeError
from hwdkit.models.network import Network
from hwdkit.models.segmenter import NetworkSpec, Segmenter
from hwdkit.models.segmenter import build as build_segmenter

NETWORK_FILES = ("student.safetensors", "teacher.safetensors")
"""What a finished run calls its network, after what it trains."""

ADAPTED = "module"
"""Key of a description whose network is a user's module, which no file can rebuild."""

FORMAT = 1
"""Version of the description inside a checkpoint."""


@dataclass(frozen=True)
class Loaded:
    """A network from a checkpoint, and what the checkpoint says about itself."""

    model: Segmenter
    path: Path
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    metadata: dict[str, Any]


def load_network(path: Path) -> Loaded:
    """Rebuild a network from a self-describing checkpoint, or from a run directory that holds one.

    Raises:
        CheckpointError: missing, damaged, not hwdkit's, or its weights do not fit its description.
    """
    path = network_file(path)
    state, metadata = load_model(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"its description has format {metadata.get('format')!r}, this hwdkit reads {FORMAT}",
            where=str(path),
            hint="use the hwdkit that wrote it",
        )
    if isinstance(metadata.get("network"), dict) and ADAPTED in metadata["network"]:
        raise CheckpointError(
            f"holds the weights of your own module {metadata['network'][ADAPTED]}, not a network of hwdkit",
            where=str(path),
            hint="in Python: hwdkit.load(path, into=module)",
        )
    try:
        spec = NetworkSpec.from_dict(metadata["network"])
        classes = tuple(str(name) for name in metadata["classes"])
        palette = tuple((int(r), int(g), int(b)) for r, g, b in metadata["palette"])
        if not _names_a_folder(metadata["dataset"]):
            raise ValueError("its dataset is no name of a folder")
        if not len(classes) == len(palette) == spec.classes:
            raise ValueError(f"{len(classes)} classes, {len(palette)} colours, {spec.classes} channels")
        if not all(0 <= part <= 255 for colour in palette for part in colour):
            raise ValueError("a colour outside 0..255")
        model = build_segmenter(spec)
    except (
        RecipeError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        RuntimeError,
        OverflowError,
    ) as error:
        # Whatever a file from outside holds is no bug of hwdkit.
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"its description is invalid: {first}", where=str(path)) from error
    load_weights(model, state, where=str(path))
    model.about = metadata
    return Loaded(model, path, classes, palette, metadata)


def network_file(path: Path) -> Path:
    """A checkpoint's own path, or that of the trained network in a run directory.

    Raises:
        CheckpointError: the folder holds none.
    """
    if not path.is_dir():
        return path
    file = network_in(path)
    if file is None:
        raise CheckpointError(
            "no student.safetensors or teacher.safetensors here",
            where=str(path),
            hint=_instead_of_network(path),
        )
    return file


def network_in(folder: Path) -> Path | None:
    """The trained network of a run directory; None if it holds none."""
    return next((folder / name for name in NETWORK_FILES if (folder / name).is_file()), None)


class RunsBelow(NamedTuple):
    """The run directories directly below a folder, each by name: those that have finished, and the others."""

    finished: tuple[Path, ...]
    unfinished: tuple[Path, ...]


def runs_below(folder: Path) -> RunsBelow:
    """Find the runs directly below a folder: runs/RECIPE holds one a time stamp."""
    runs = sorted(file.parent for file in folder.glob("*/run.json"))
    finished = tuple(run for run in runs if _has_finished(run))
    return RunsBelow(finished, tuple(run for run in runs if run not in finished))


def _has_finished(run: Path) -> bool:
    try:
        info = RunDir(run).read_info()
    except (OSError, ValueError, RecursionError):  # run.json is damaged
        return False
    return isinstance(info, dict) and info.get("status") == "finished" and network_in(run) is not None


def _instead_of_network(folder: Path) -> str:
    """What to type instead of a folder that holds no network."""
    if RunDir(folder).info.is_file():
        return f"a run writes it when it ends; continue it: --resume {folder}"
    finished, unfinished = runs_below(folder)
    if finished:
        newest = max(finished, key=lambda run: (network_in(run) or run).stat().st_mtime)
        return f"its newest finished run: {newest}"
    if unfinished:
        return f"no run below it has finished; continue one: --resume {unfinished[-1]}"
    return "name a run directory, or a .safetensors file"


def _names_a_folder(dataset: object) -> bool:
    """Whether a dataset's name, which comes from a file, names a folder below the data root."""
    return isinstance(dataset, str) and dataset not in ("", ".", "..") and not set(dataset) & set("/\\\0")


def load_weights(model: nn.Module, state: dict[str, torch.Tensor], *, where: str) -> None:
    """Load strictly: every name and shape must match.

    Raises:
        CheckpointError: listing what does not.
    """
    expected = model.state_dict()
    problems = [f"missing {name}" for name in expected if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in expected]
    problems += [
        f"{name} is {tuple(state[name].shape)}, the network needs {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    if problems:
        more = f"\n  and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise CheckpointError(
            "the weights do not fit the network:\n  " + "\n  ".join(problems[:8]) + more, where=where
        )
    model.load_state_dict(state)


def require_classes(loaded: Loaded, index: DatasetIndex) -> None:
    """Refuse a checkpoint made for other classes than the dataset's.

    Raises:
        CheckpointError: naming both.
    """
    if loaded.classes == index.classes:
        return
    counts = len(loaded.classes), len(index.classes)
    differ = ""
    if counts[0] == counts[1]:
        pairs = zip(loaded.classes, index.classes, strict=True)
        differ = next(f": {a!r} against {b!r}" for a, b in pairs if a != b)
    raise CheckpointError(
        f"checkpoint has {counts[0]} classes, dataset {index.name} has {counts[1]}{differ}",
        where=str(loaded.path),
        hint=f"it was trained on {loaded.metadata.get('dataset', 'another dataset')}",
    )


def description(model: Network, index: DatasetIndex, **facts: Any) -> dict[str, Any]:
    """What a checkpoint says about itself, so that evaluating it needs no recipe.

    Args:
        model: the network.
        index: the dataset whose classes it was trained for.
        facts: role, recipe, recipe_sha256, step, metrics: JSON-able.
    """
    return {
        **self_description(model),
        "classes": list(index.classes),
        "palette": [list(colour) for colour in index.palette],
        "dataset": index.name,
        "dataset_fingerprint": index.fingerprint,
        **facts,
    }


def self_description(model: Network) -> dict[str, Any]:
    """The part of `description` that is about the network alone."""
    spec = model.spec.to_dict() if isinstance(model, Segmenter) else {ADAPTED: model.name}
    return {"format": FORMAT, "hwdkit": __version__, "network": spec}
