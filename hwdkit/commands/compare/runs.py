"""The networks of `hwdkit compare`: which are seeds of one method, and what their runs recorded.

Everything is checked here, weights included, before the first image is looked at.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from hwdkit.checkpoints.files import file_digest
from hwdkit.commands.compare.seed_paths import TEACHER, SeedPaths
from hwdkit.engine.networks import load_network
from hwdkit.engine.rundir import RunDir, training_seconds
from hwdkit.errors import CheckpointError, HwdkitError, UsageError
from hwdkit.measure.comparison import Costs
from hwdkit.measure.profile import count_parameters, true_macs
from hwdkit.models.segmenter import NetworkSpec
from hwdkit.recipe.load import loads_resolved
from hwdkit.recipe.schema import RESUMABLE, Recipe

log = logging.getLogger("hwdkit")


class Size(NamedTuple):
    """Parameters, and 1e9 multiply-adds of one 512x512 image, as deployed."""

    params: int
    gmacs: float


@dataclass(frozen=True)
class Checkpoint:
    """A trained network, and the run that made it as far as that is known.

    Attributes:
        argument: the path that was named.
        path: of the checkpoint.
        recipe: of its run; None for a checkpoint alone, or where it cannot be read.
    """

    argument: Path
    path: Path
    digest: str
    spec: NetworkSpec
    classes: tuple[str, ...]
    metadata: dict[str, Any]
    size: Size
    recipe: Recipe | None
    info: dict[str, Any]
    costs: Costs

    @property
    def is_teacher(self) -> bool:
        return self.metadata.get("role") == "teacher"

    @property
    def seed(self) -> int | None:
        return None if self.recipe is None else self.recipe.seed

    @property
    def learns_alone(self) -> bool:
        """Whether it is known to be a student without any distillation loss."""
        if self.recipe is None or self.is_teacher:
            return False
        return all(loss.loss == "ce" or loss.weight == 0 for loss in self.recipe.losses.values())

    def method_key(self) -> str:
        """The same for runs that differ in their seed alone, or in what moves no weight.

        A teacher is told by its content, wherever it lies; by its path where the run has not noted that.
        """
        if self.recipe is None:
            return f"checkpoint {self.argument}"
        content = self.recipe.model_dump(mode="json", exclude={"seed", "summary"})
        for key in RESUMABLE:
            section, _, name = key.partition(".")
            content[section].pop(name)
        sha256 = self.info.get("teacher_sha256")
        if content["teacher"] and sha256:
            content["teacher"]["checkpoint"] = {"sha256": sha256}
        return json.dumps([self.metadata.get("role"), content], sort_keys=True)

    def own_name(self) -> str:
        """How it is called unless the command line says: its recipe, or its file."""
        if self.recipe is not None:
            return self.recipe.name
        return str(self.metadata.get("recipe") or self.path.stem)


@dataclass(frozen=True)
class Group:
    """A method: its name, one network a seed, and the folder that stands for all of them, if one does."""

    name: str
    networks: tuple[Checkpoint, ...]
    folder: Path | None = None

    @property
    def is_teacher(self) -> bool:
        return self.name == TEACHER or all(network.is_teacher for network in self.networks)

    @property
    def learns_alone(self) -> bool:
        return not self.is_teacher and all(network.learns_alone for network in self.networks)


def read_groups(methods: Sequence[SeedPaths], advance: Callable[[int], None]) -> list[Group]:
    """Read networks and say which of them belong together, in the order of the arguments.

    Args:
        methods: the arguments, the teacher's included.
        advance: told how many networks have been read.

    Raises:
        CheckpointError: a network is missing or damaged, or two have other classes, datasets or, within a
            group, shapes.
        UsageError: a network twice in a group, or two groups of one name.
    """
    read: dict[Path, Checkpoint] = {}
    sizes: dict[str, Size] = {}
    for path in (path for each in methods for path in each.paths):
        read[path] = read.get(path) or _network(path, sizes)
        advance(len(read))
    sets: dict[str, list[Checkpoint]] = {}
    names: dict[str, str] = {}
    folders: dict[str, Path] = {}
    for each in methods:
        networks = [read[path] for path in each.paths]
        keys = [network.method_key() for network in networks]
        if each.name:
            keys = [f"name {each.name}"] * len(networks)
            names[keys[0]] = each.name
        elif each.folder and len(set(keys)) == 1:  # else they are no seeds of one method, wherever they lie
            keys = [f"folder {each.folder}"] * len(networks)
            folders[keys[0]] = each.folder
        for key, network in zip(keys, networks, strict=True):
            sets.setdefault(key, []).append(network)
    names |= _own_names(sets, names, folders)
    groups = [Group(names[key], tuple(networks), folders.get(key)) for key, networks in sets.items()]
    if len(set(names.values())) < len(groups):
        raise UsageError(f"two methods have one name: {', '.join(names.values())}", hint="use NAME=PATH")
    for group in groups:
        _require_sound(group)
    _require_alike(list(read.values()))
    return groups


def _own_names(
    sets: dict[str, list[Checkpoint]], named: dict[str, str], folders: dict[str, Path]
) -> dict[str, str]:
    """Name what the command line has not named; where two would be called the same, by where they lie."""
    own = {key: networks[0].own_name() for key, networks in sets.items() if key not in named}
    own |= {key: os.path.basename(os.path.abspath(folder)) for key, folder in folders.items()}
    wanted = dict(own)
    for place in ("name", "path"):
        taken = [*named.values(), *wanted.values()]
        for key in [key for key, name in wanted.items() if taken.count(name) > 1]:
            first = sets[key][0].argument
            where = folders.get(key) or (first.name if place == "name" else first)
            wanted[key] = f"{own[key]} ({where})"
    return wanted


def _require_sound(group: Group) -> None:
    """Refuse a group that is not one method with different seeds."""
    first = group.networks[0]
    seen: dict[str, Checkpoint] = {}
    for network in group.networks:
        if network.digest in seen:
            other = seen[network.digest]
            raise UsageError(
                f"{group.name}: {other.argument} and {network.argument} are the same network: "
                "one seed counts once",
                hint="give other seeds, or compare it under another name: NAME=PATH",
            )
        if network.spec != first.spec:
            raise CheckpointError(
                f"another network than {first.path}, and both are to be seeds of {group.name!r}",
                where=str(network.path),
                hint="seeds of one method have the same network; give each its own NAME=PATH",
            )
        seen[network.digest] = network


def _require_alike(networks: Sequence[Checkpoint]) -> None:
    """Refuse networks that cannot be evaluated on the same labels."""
    first = networks[0]
    for network in networks[1:]:
        if network.classes != first.classes:
            raise CheckpointError(
                f"has {len(network.classes)} classes that are not those ({len(first.classes)}) of "
                f"{first.path}; their mIoU cannot be compared",
                where=str(network.path),
            )
        if network.metadata["dataset"] != first.metadata["dataset"]:
            raise CheckpointError(
                f"trained on {network.metadata['dataset']}, {first.path} on {first.metadata['dataset']}",
                where=str(network.path),
                hint="compare networks of one dataset; hwdkit evaluate --dataset measures on another",
            )


def _network(argument: Path, sizes: dict[str, Size]) -> Checkpoint:
    loaded = load_network(argument)
    shape = json.dumps(loaded.model.spec.to_dict(), sort_keys=True)
    if shape not in sizes:
        image = torch.empty(1, 3, 512, 512, dtype=torch.uint8, device="meta")  # counts without computing
        macs = true_macs(loaded.model.to("meta"), image, aux=False)
        sizes[shape] = Size(count_parameters(loaded.model)[1], macs / 1e9)
    recipe, info, costs = _recorded(RunDir(argument)) if argument.is_dir() else (None, {}, Costs())
    return Checkpoint(
        argument=argument,
        path=loaded.path,
        digest=file_digest(loaded.path),
        spec=loaded.model.spec,
        classes=loaded.classes,
        metadata=loaded.metadata,
        size=sizes[shape],
        recipe=recipe,
        info=info,
        costs=costs,
    )


def _recorded(run: RunDir) -> tuple[Recipe | None, dict[str, Any], Costs]:
    """What a run says of itself; a file that is missing or damaged costs what it would have said."""
    recipe: Recipe | None = None
    info: dict[str, Any] = {}
    costs = Costs()
    try:
        recipe = loads_resolved(run.recipe.read_text(encoding="utf-8"), source=str(run.recipe))
    except (OSError, ValueError, HwdkitError) as error:
        log.warning("%s: no recipe to read (%s): its seed is unknown", run.path, _first_line(error))
    try:
        found = run.read_info()
        info = found if isinstance(found, dict) else {}
        costs = _costs(run.read_metrics(), info)
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s: its records cannot be read (%s): costs are unknown", run.path, _first_line(error))
    return recipe, info, costs


def _costs(rows: list[Any], info: dict[str, Any]) -> Costs:
    """Time and memory from metrics.jsonl, which may hold anything."""
    steps = [row for row in rows if isinstance(row, dict) and _positive(row, "step", "step_ms")]
    memory = [float(row["memory_mib"]) for row in steps if _positive(row, "memory_mib")]
    device = info.get("device")
    return Costs(
        step_seconds=median(row["step_ms"] for row in steps) / 1000 if steps else None,
        memory_mib=max(memory, default=None),
        hours=training_seconds(steps) / 3600 if steps else None,
        device=device if isinstance(device, str) else None,
    )


def _positive(row: dict[str, Any], *keys: str) -> bool:
    values = [row.get(key) for key in keys]
    return all(
        isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
        for value in values
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
