"""Folders of runs among the arguments of `hwdkit compare`: runs/RECIPE stands for the finished runs in it.

Which of them are seeds of one method is decided in runs.py.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hwdkit.commands.compare.seed_paths import SeedPaths
from hwdkit.engine.networks import network_in, runs_below
from hwdkit.engine.rundir import RunDir
from hwdkit.errors import CheckpointError

log = logging.getLogger("hwdkit")


def with_runs_below(methods: Sequence[SeedPaths]) -> list[SeedPaths]:
    """Put the finished runs below a folder in its place: runs/RECIPE holds one a time stamp.

    Raises:
        CheckpointError: a folder holds neither a network nor finished runs.
    """
    result = []
    for each in methods:
        paths = tuple(run for path in each.paths for run in _runs_of(path))
        folder = each.paths[0] if each.name is None and paths != each.paths else None
        result.append(replace(each, paths=paths, folder=folder))
    return result


def _runs_of(path: Path) -> tuple[Path, ...]:
    if not path.is_dir() or network_in(path) or RunDir(path).info.is_file():
        return (path,)  # load_network knows what to say of a run that has not finished
    finished, unfinished = runs_below(path)
    names = ", ".join(run.name for run in unfinished)
    if not finished:
        raise CheckpointError(
            "holds no network, and directly below it there is no finished run",
            where=str(path),
            hint=f"not finished: {names}; continue one: --resume {unfinished[-1]}" if unfinished else "",
        )
    if unfinished:
        log.warning("%s: left out, not finished: %s", path, names)
    return _newest_of_each_recipe(path, finished)


def _recipe_of(run: Path) -> bytes:
    """What makes a run: all of its settings, seed included."""
    recipe = RunDir(run).recipe
    return recipe.read_bytes() if recipe.is_file() else str(run).encode()


def _newest_of_each_recipe(path: Path, runs: Sequence[Path]) -> tuple[Path, ...]:
    """The same recipe with the same seed, run again, says nothing new."""
    by_age = sorted(runs, key=lambda run: (network_in(run) or run).stat().st_mtime)
    newest = {_recipe_of(run): run for run in by_age}
    again = [run.name for run in runs if run not in newest.values()]
    if again:
        log.warning("%s: left out, run again later with the same recipe and seed: %s", path, ", ".join(again))
    return tuple(newest.values())
