"""The networks of `hwdkit compare`: which are seeds of one method, and what their runs recorded.

Everything is checked here, weights included, before the first image is looked at.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from hwdkit.checkpoints.files import file_digest
from hwdkit.commands.compare.seed_paths import TEACHER, SeedPaths
from hwdkit.engine.networks import Loaded, load_network
from hwdkit.engine.rundir import RunDir, training_seconds
from hwdkit.errors import CheckpointError, HwdkitError, UsageError
from hwdkit.measure.comparison import Costs
from hwdkit.recipe.load import loads_resolved
from hwdkit.recipe.schema import RESUMABLE, Recipe

log = logging.getLogger("hwdkit")


@dataclass
class Checkpoint:
    """A trained network, and the run that made it as far as that is known.

    Attributes:
        argument: the path that was named.
        loaded: the network, without its weights: they are read again when it is evaluated.
        digest: sha256 of the file.
        recipe, info, costs: of its run; None or empty for a checkpoint alone, or where they cannot be read.
    """

    argument: Path
    loaded: Loaded
    digest: str
    recipe: Recipe | None = None
    info: dict[str, Any] = field(default_factory=dict)
    costs: Costs = field(default_factory=Costs)

    @property
    def is_teacher(self) -> bool:
        return self.loaded.metadata.get("role") == "teacher"

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

        A teacher is known by its content, wherever it lies; by its path where the run has not noted that.
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
        return json.dumps([self.loaded.metadata.get("role"), content], sort_keys=True)

    def read_records(self) -> None:
        """Read what its run recorded; of a file that is missing or damaged nothing is known."""
        run = RunDir(self.argument)
        try:
            self.recipe = loads_resolved(run.recipe.read_text(encoding="utf-8"), source=str(run.recipe))
        except (OSError, ValueError, HwdkitError) as error:
            log.warning("%s: no recipe to read (%s): its seed is unknown", run.path, _first_line(error))
        try:
            info = run.read_info()
            self.info = info if isinstance(info, dict) else {}
            self.costs = _costs(run.read_metrics(), self.info)
        except (OSError, ValueError, RecursionError) as error:
            log.warning(
                "%s: its records cannot be read (%s): costs are unknown", run.path, _first_line(error)
            )


@dataclass
class Group:
    """A method: its name, one network a seed, and the folder that stands for all of them, if one does."""

    name: str = ""
    folder: Path | None = None
    networks: list[Checkpoint] = field(default_factory=list)

    @property
    def is_teacher(self) -> bool:
        return self.name == TEACHER or all(network.is_teacher for network in self.networks)

    @property
    def learns_alone(self) -> bool:
        return not self.is_teacher and all(network.learns_alone for network in self.networks)

    def short_name(self) -> str:
        """What it is called unless the command line says: its folder, its recipe or its file."""
        first = self.networks[0]
        if self.folder is not None:
            return os.path.basename(os.path.abspath(self.folder))
        if first.recipe is not None:
            return first.recipe.name
        return str(first.loaded.metadata.get("recipe") or first.loaded.path.stem)


def read_groups(methods: Sequence[SeedPaths], advance: Callable[[int], None]) -> list[Group]:
    """Read networks and say which of them belong together, in the order of the arguments.

    Raises:
        CheckpointError: a network is missing or damaged, or two have other classes, datasets or, within a
            group, shapes.
        UsageError: a network twice in a group, or two groups of one name.
    """
    networks: dict[Path, Checkpoint] = {}
    for path in (path for each in methods for path in each.paths):
        networks[path] = networks.get(path) or _network(path)
        advance(len(networks))
    groups: dict[str, Group] = {}
    for each in methods:
        members = [networks[path] for path in each.paths]
        keys, group = [member.method_key() for member in members], Group()
        if each.name:
            keys, group = [f"name {each.name}"] * len(keys), Group(each.name)
        elif each.folder and len(set(keys)) == 1:  # else they are no seeds of one method, wherever they lie
            keys, group = [f"folder {each.folder}"] * len(keys), Group(folder=each.folder)
        for key, member in zip(keys, members, strict=True):
            groups.setdefault(key, Group(group.name, group.folder)).networks.append(member)
    result = list(groups.values())
    _name(result)
    for each_group in result:
        _require_seeds(each_group)
    _require_comparable(list(networks.values()))
    return result


def _network(argument: Path) -> Checkpoint:
    loaded = load_network(argument)
    loaded.model.to("meta")
    network = Checkpoint(argument, loaded, file_digest(loaded.path))
    if argument.is_dir():
        network.read_records()
    return network


def _name(groups: Sequence[Group]) -> None:
    """Name what the command line has not named; where two would be called the same, by where they lie."""
    unnamed = [group for group in groups if not group.name]
    for group in unnamed:
        group.name = group.short_name()
    for whole_path in (False, True):
        uses = Counter(group.name for group in groups)
        for group in unnamed:
            if uses[group.name] > 1:
                argument = group.networks[0].argument
                where = group.folder or (argument if whole_path else argument.name)
                group.name = f"{group.short_name()} ({where})"
    names = [group.name for group in groups]
    if len(set(names)) < len(names):
        raise UsageError(f"two methods have the same name: {', '.join(names)}", hint="use NAME=PATH")


def _require_seeds(group: Group) -> None:
    """Refuse a group that is not one method with different seeds."""
    first = group.networks[0]
    seen: dict[str, Checkpoint] = {}
    for network in group.networks:
        if network.digest in seen:
            raise UsageError(
                f"{group.name}: {seen[network.digest].argument} and {network.argument} are the same network: "
                "one seed counts once",
                hint="give other seeds, or compare it under another name: NAME=PATH",
            )
        if network.loaded.model.spec != first.loaded.model.spec:
            raise CheckpointError(
                f"another network than {first.loaded.path}, and both are to be seeds of {group.name!r}",
                where=str(network.loaded.path),
                hint="seeds of one method have the same network; give each its own NAME=PATH",
            )
        seen[network.digest] = network


def _require_comparable(networks: Sequence[Checkpoint]) -> None:
    """Refuse networks that cannot be evaluated on the same labels."""
    first = networks[0].loaded
    for loaded in (network.loaded for network in networks[1:]):
        if loaded.classes != first.classes:
            raise CheckpointError(
                f"has {len(loaded.classes)} classes that are not those ({len(first.classes)}) of "
                f"{first.path}; their mIoU cannot be compared",
                where=str(loaded.path),
            )
        if loaded.metadata["dataset"] != first.metadata["dataset"]:
            raise CheckpointError(
                f"trained on {loaded.metadata['dataset']}, {first.path} on {first.metadata['dataset']}",
                where=str(loaded.path),
                hint="compare networks of one dataset; hwdkit evaluate --dataset measures on another",
            )


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
