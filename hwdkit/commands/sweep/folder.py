"""A sweep's folder: sweep.json, which says all of it, and the lock that keeps two sweeps apart."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwdkit.checkpoints.files import file_digest, replacing, write_failure
from hwdkit.commands.sweep.grid import GRID
from hwdkit.commands.sweep.plan import Cell, Plan
from hwdkit.engine import build
from hwdkit.engine.networks import load_network
from hwdkit.errors import EnvironmentFailure, RecipeError, UsageError
from hwdkit.recipe.load import differences, dump
from hwdkit.recipe.schema import SAME_SCORES, Recipe

LOCK = ".sweep.lock"
"""A file in every sweep's folder, from its first moment on."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,+-]*")


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold a sweep's folder; yields the lock's descriptor, for runs to hold it too.

    A run that outlives a killed sweep keeps the folder locked: two processes in one run would ruin it.

    Raises:
        EnvironmentFailure: another sweep, or a run of one, is at work here.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise write_failure(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EnvironmentFailure(
                "another sweep or a run that it started is at work here",
                where=str(folder),
                hint="wait for it, or stop it: it saves first; the same command then continues",
            ) from None
        yield file.fileno()


def prepared(plan: Plan, *, teacher: str | None, out: Path) -> Plan:
    """The plan with every teacher pinned to one file, checked against the sweep that lies in `out`.

    Raises:
        CheckpointError: a teacher is missing.
        RecipeError: another sweep lies there, or a teacher is given that nothing learns from.
    """
    varied = any(key.startswith("teacher.") for key in plan.keys)
    if teacher is not None and varied:
        raise UsageError("--teacher and a --grid over teacher: the first would win over the second")
    known: dict[Path, tuple[str, str]] = {}
    cells = [_pinned(cell, teacher, known) if plan.command == "distill" else cell for cell in plan.cells]
    if teacher is not None and not known:
        raise RecipeError(f"recipe {plan.recipe} does not learn from a teacher", hint="leave out --teacher")
    plan = replace(plan, cells=tuple(cells))
    before = read(out)
    return extended(before, plan, where=str(out)) if before else plan


def _pinned(cell: Cell, teacher: str | None, known: dict[Path, tuple[str, str]]) -> Cell:
    """The cell with its teacher as one file: a newer one may be trained while the sweep runs."""
    if cell.recipe.teacher is None or not build.needs_teacher(cell.recipe):
        return cell
    source = Path(teacher) if teacher is not None else build.teacher_checkpoint(cell.recipe)
    if source not in known:
        path = load_network(source).path.resolve()
        known[source] = str(path), file_digest(path)
    path_text, sha256 = known[source]
    return replace(cell, recipe=cell.recipe.student_taught(by=path_text), teacher_sha256=sha256)


def require_ours(out: Path) -> None:
    """Raise a RecipeError if something other than a sweep lies in the folder."""
    if out.is_file():
        raise RecipeError("a file is in the way of the sweep's folder", where=str(out))
    if not out.is_dir() or (out / "sweep.json").is_file():
        return
    if (out / LOCK).is_file() and any(out.glob("*/seed=*")):
        raise RecipeError(
            "runs of a sweep without its sweep.json", where=str(out), hint="choose another --out"
        )
    if any(out.iterdir()) and not (out / LOCK).is_file():
        raise RecipeError(
            "the folder is used, and not by a sweep", where=str(out), hint="choose another --out"
        )


def kept(plan: Plan, out: Path) -> Plan:
    """Write the plan down, and for every cell the recipe that its runs are started with.

    What another sweep has written since `prepared` is checked once more.
    """
    before = read(out)
    if before:
        plan = extended(before, plan, where=str(out))
    with replacing(out / "sweep.json") as temporary:
        temporary.write_text(_written(plan), encoding="utf-8")
    for cell in plan.cells:
        path, text = out / cell.name / "recipe.yaml", dump(cell.recipe)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return plan


def read(folder: Path) -> Plan | None:
    """The sweep that lies in a folder, or None.

    Raises:
        RecipeError: its files are not what a sweep writes.
    """
    path = folder / "sweep.json"
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        cells = tuple(map(_read_cell, document["cells"]))
        seeds = tuple(int(seed) for seed in document["seeds"])
        keys = tuple(str(key) for key in document["keys"])
        command = document["command"]
        if not cells or not seeds or command not in ("distill", "train-teacher"):
            raise ValueError("no cells, no seeds or no command")
        if any(set(cell.values) != (set(keys) if cell.line == GRID else set()) for cell in cells):
            raise ValueError("values that do not belong to its keys")
        return Plan(str(document["recipe"]), command, keys, seeds, cells)
    except (KeyError, TypeError, ValueError, AttributeError, OSError, RecursionError) as error:
        raise RecipeError(f"not a sweep's file: {error!r}", where=str(path)) from None


def _read_cell(entry: dict[str, Any]) -> Cell:
    name, line = str(entry["name"]), str(entry["line"])
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a cell")
    return Cell(
        name, line, dict(entry["values"]), Recipe.model_validate(entry["recipe"]), entry["teacher_sha256"]
    )


def extended(before: Plan, after: Plan, *, where: str) -> Plan:
    """The plan to go on with: `after`, if all of `before` is in it unchanged.

    Raises:
        RecipeError: a cell or a seed is missing, or its recipe or teacher has changed.
    """
    another = "or choose another --out"
    if before.command != after.command or before.keys != after.keys:
        grids = " and ".join(before.keys) or "no key"
        raise RecipeError(f"holds a {before.command} sweep over {grids}", where=where, hint=another[3:])
    new = {cell.name: cell for cell in after.cells}
    missing = [cell.name for cell in before.cells if cell.name not in new]
    missing += [f"seed {seed}" for seed in before.seeds if seed not in after.seeds]
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise RecipeError(
            f"the sweep there also has {shown}: cells can be added, not taken away",
            where=where,
            hint=f"name all of it, {another}",
        )
    for cell in before.cells:
        _require_unchanged(cell, new[cell.name], where=where, hint=another)
    return replace(after, recipe=before.recipe)


def _require_unchanged(before: Cell, after: Cell, *, where: str, hint: str) -> None:
    if before.line != after.line or before.teacher_sha256 != after.teacher_sha256:
        old = before.recipe.teacher.checkpoint if before.recipe.teacher else None
        raise RecipeError(
            f"the teacher of {before.name} is not the one that the sweep began with",
            where=where,
            hint=f"give that one, --teacher {old}, {hint}" if old else hint[3:],
        )
    changed = differences(before.recipe, after.recipe)
    gone = differences(after.recipe, before.recipe)
    # A pinned teacher is told by its content, and may lie elsewhere.
    keys = sorted(
        key
        for key in changed.keys() | gone.keys()
        if key not in SAME_SCORES and not (before.teacher_sha256 and key.startswith("teacher."))
    )
    if keys:
        now = ", ".join(
            f"{key} was {gone.get(key, 'absent')}, is {changed.get(key, 'absent')}" for key in keys
        )
        raise RecipeError(
            f"the recipe of {before.name} has changed since the sweep began: {now}",
            where=where,
            hint=f"change it back, {hint}",
        )


def _written(plan: Plan) -> str:
    """sweep.json: what a cell's own files say may be deleted or edited, and does not count."""
    cells = [
        {
            "name": cell.name,
            "line": cell.line,
            "values": cell.values,
            "teacher_sha256": cell.teacher_sha256,
            "recipe": cell.recipe.model_dump(mode="json"),
        }
        for cell in plan.cells
    ]
    facts = {"recipe": plan.recipe, "command": plan.command, "keys": plan.keys, "seeds": plan.seeds}
    return json.dumps({"schema_version": 1, **facts, "cells": cells}, indent=2) + "\n"
