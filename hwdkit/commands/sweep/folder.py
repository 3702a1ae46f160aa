"""A sweep's folder: sweep.json, which says all of it, and the lock that keeps two sweeps apart."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from hwdkit.checkpoints.files import file_digest, replacing, write_failure
from hwdkit.commands.sweep.plan import Cell, Plan
from hwdkit.engine import build
from hwdkit.engine.networks import load_network
from hwdkit.errors import EnvironmentFailure, RecipeError, UsageError
from hwdkit.recipe.load import dump, in_line, leaves
from hwdkit.recipe.schema import SAME_SCORES

LOCK = ".sweep.lock"
"""A file in every sweep's folder, from its first moment on."""

ANOTHER = "choose another --out"


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
                "another sweep or one of its runs is still working here",
                where=str(folder),
                hint="wait for it, or stop it (it saves first); the same command then continues",
            ) from None
        yield file.fileno()


def prepared(plan: Plan, *, teacher: str | None, out: Path) -> Plan:
    """The plan with every teacher pinned to one file, checked against the sweep in `out`, if there is one.

    Raises:
        CheckpointError: a teacher is missing.
        RecipeError: `out` holds another sweep, or a teacher is named that nothing learns from.
    """
    if teacher is not None and any(key.startswith("teacher.") for key in plan.keys):
        raise UsageError("--teacher and a --grid over teacher: the first would win over the second")
    digests: dict[Path, tuple[str, str]] = {}

    def pinned(cell: Cell) -> Cell:
        """A newer teacher may be trained while the sweep runs: name one file."""
        if plan.command != "distill" or cell.recipe.teacher is None or not build.needs_teacher(cell.recipe):
            return cell
        source = Path(teacher) if teacher is not None else build.teacher_checkpoint(cell.recipe)
        if source not in digests:
            path = load_network(source).path.resolve()
            digests[source] = str(path), file_digest(path)
        file, sha256 = digests[source]
        return cell.with_recipe(cell.recipe.student_taught(by=file), teacher_sha256=sha256)

    plan = plan.model_copy(update={"cells": tuple(map(pinned, plan.cells))})
    if teacher is not None and not digests:
        raise RecipeError(f"recipe {plan.recipe} does not learn from a teacher", hint="leave out --teacher")
    return _continued(plan, out)


def require_ours(out: Path) -> None:
    """Raise a RecipeError if the folder holds something else than a sweep."""
    problem = ""
    if out.is_file():
        problem = "is a file, but a sweep needs a folder"
    elif out.is_dir() and not (out / "sweep.json").is_file():
        if not (out / LOCK).is_file():
            problem = "the folder is used, and not by a sweep" if any(out.iterdir()) else ""
        elif any(out.glob("*/seed=*")):
            problem = "runs of a sweep without its sweep.json"
    if problem:
        raise RecipeError(problem, where=str(out), hint=ANOTHER)


def written(plan: Plan, out: Path) -> Plan:
    """Write the plan, and for every cell the recipe that its runs are started with.

    What another sweep has written since `prepared` is checked once more.
    """
    plan = _continued(plan, out)
    # Only sweep.json counts: the files of a cell may be deleted or edited.
    texts = {out / cell.name / "recipe.yaml": dump(cell.recipe) for cell in plan.cells}
    for path, text in {out / "sweep.json": plan.model_dump_json(indent=2) + "\n", **texts}.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return plan


def read(folder: Path) -> Plan | None:
    """The sweep in a folder, or None.

    Raises:
        RecipeError: its sweep.json is not what a sweep writes.
    """
    path = folder / "sweep.json"
    if not path.is_file():
        return None
    try:
        return Plan.model_validate_json(path.read_bytes())
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        message = f"{'.'.join(map(str, fault['loc']))} {fault['msg']}".strip()
    except OSError as error:
        message = str(error.strerror)
    raise RecipeError(f"not a sweep's file: {message}", where=str(path))


def _continued(plan: Plan, out: Path) -> Plan:
    """The plan, if all of the sweep in `out` is in it unchanged; that sweep's name stays.

    Raises:
        RecipeError: a cell or a seed is missing, or its recipe or teacher has changed.
    """
    before = read(out)
    if before is None:
        return plan
    if before.command != plan.command or before.keys != plan.keys:
        grids = " and ".join(before.keys) or "no key"
        raise RecipeError(f"holds a {before.command} sweep over {grids}", where=str(out), hint=ANOTHER)
    cells = {cell.name: cell for cell in plan.cells}
    missing = [cell.name for cell in before.cells if cell.name not in cells]
    missing += [f"seed {seed}" for seed in before.seeds if seed not in plan.seeds]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise RecipeError(
            f"the sweep there also has {', '.join(missing[:3])}{more}: cells can be added, not taken away",
            where=str(out),
            hint=f"name them too, or {ANOTHER}",
        )
    for cell in before.cells:
        _require_unchanged(cell, cells[cell.name], out)
    return plan.model_copy(update={"recipe": before.recipe})


def _require_unchanged(before: Cell, after: Cell, out: Path) -> None:
    if before.line != after.line or before.teacher_sha256 != after.teacher_sha256:
        old = before.recipe.teacher.checkpoint if before.recipe.teacher else None
        raise RecipeError(
            f"the teacher of {before.name} is not the one that the sweep began with",
            where=str(out),
            hint=f"use that one: --teacher {old}, or {ANOTHER}" if old else ANOTHER,
        )
    was, now = (leaves(cell.recipe.model_dump()) for cell in (before, after))
    changed = [
        f"{key} was {in_line(was.get(key, 'absent'))}, is {in_line(now.get(key, 'absent'))}"
        for key in sorted(was.keys() | now.keys())
        if was.get(key, ...) != now.get(key, ...)
        and key not in SAME_SCORES
        # A teacher with a checksum may have moved: its content is what counts.
        and not (before.teacher_sha256 and key.startswith("teacher."))
    ]
    if changed:
        raise RecipeError(
            f"the recipe of {before.name} has changed since the sweep began: {', '.join(changed)}",
            where=str(out),
            hint=f"change it back, or {ANOTHER}",
        )
