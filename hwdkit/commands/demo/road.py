"""hwdkit demo: the whole road on the synthetic scenes, by the ordinary recipes and the ordinary commands."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Group
from rich.text import Text

from hwdkit.checkpoints.files import write_file
from hwdkit.commands.per_class_report import PerClassReport
from hwdkit.commands.per_class_report import report as per_class
from hwdkit.commands.train.run import train
from hwdkit.errors import RecipeError
from hwdkit.measure import types
from hwdkit.prepare.prepare import prepare
from hwdkit.prepare.scenes import SceneOptions
from hwdkit.recipe import load
from hwdkit.report.summary import summary_table
from hwdkit.terminal.console import progress_of_jobs

log = logging.getLogger("hwdkit")

TEACHER = "scenes-r18-teacher"
STUDENTS = {
    "baseline": "scenes-r10-baseline",
    "cwd": "scenes-r10-cwd",
    "hwd": "scenes-r10-hwd",
}


class Budget(NamedTuple):
    """How much of the recipes' full length a demo has time for."""

    train_images: int
    val_images: int
    teacher_iterations: int
    student_iterations: int


FULL = Budget(train_images=1600, val_images=200, teacher_iterations=1200, student_iterations=600)
QUICK = Budget(train_images=64, val_images=16, teacher_iterations=10, student_iterations=10)


def run(out: Path, *, seed: int = 0, quick: bool = False, cpu: bool = False) -> dict[str, Any]:
    """Prepare data, train the teacher and three students under one budget, compare them, write the report.

    Args:
        out: new or empty folder; receives data/, runs/ and report/.
        seed: of all runs.
        quick: a few steps of everything; the numbers mean nothing.
        cpu: do not use a GPU.

    Returns:
        {"models": [...], "report": path, "seconds": total, ...}: JSON-able.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RecipeError("the demo's folder is not empty", where=str(out), hint="choose another --out")
    budget = QUICK if quick else FULL
    began = time.perf_counter()
    data = out / "data"
    log.info("[1/4] drawing street scenes")
    with progress_of_jobs() as progress:
        drawn = SceneOptions(train=budget.train_images, val=budget.val_images)
        prepare("scenes", root=data, scenes=drawn, progress=progress)
    log.info("[2/4] training the teacher")
    recipe = load(TEACHER, overrides=_overrides(seed, budget.teacher_iterations))
    teacher = train(recipe, data_root=data, out=out / "runs" / "teacher", cpu=cpu)
    seconds = {"teacher": teacher.seconds}
    log.info("[3/4] training the student: alone, with CWD, with HWD")
    for name, source in STUDENTS.items():
        recipe = load(source, overrides=_overrides(seed, budget.student_iterations))
        if recipe.teacher:
            recipe = recipe.student_taught(by=str(teacher.run_dir))
        seconds[name] = train(recipe, data_root=data, out=out / "runs" / name, cpu=cpu).seconds
    log.info("[4/4] comparing them on %d held-out images", budget.val_images)
    report, files = per_class.run(
        PerClassReport(
            student=out / "runs" / "hwd",
            teacher=out / "runs" / "teacher",
            baseline=out / "runs" / "baseline",
            compare=[f"cwd={out / 'runs' / 'cwd'}"],
            data_root=data,
            formats=["json", "csv", "md", "html"],
            out=out / "report",
            gpus="0" if cpu else "auto",
        ),
        student="hwd",
    )
    models = _rows(report, seconds)
    summary = {
        "models": models,
        "iterations": {"teacher": budget.teacher_iterations, "student": budget.student_iterations},
        "images": report.images,
        "report": str(out / "report" / "per-class.html"),
        "files": [str(path) for path in files],
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_file(out / "report" / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    write_file(out / "report" / "summary.md", (summary_table(models).markdown() + "\n").encode())
    return summary


def render(result: dict[str, Any]) -> Group:
    """The demo's one table, where the report lies, and what to type next."""
    short = result["iterations"]["student"]
    text = (
        f"{result['images']} held-out images; {short} steps a student, one seed: no ranking of methods.\n"
        f"{result['seconds']:.0f} s in all. Open {result['report']}\n\n"
        "Next:  hwdkit recipes list\n"
        "       hwdkit prepare-data ade20k --source PATH && hwdkit distill --recipe ade20k-r18-hwd"
    )
    return Group(summary_table(result["models"]), Text(text))


def _overrides(seed: int, iterations: int) -> list[str]:
    return [
        f"seed={seed}",
        f"train.iterations={iterations}",
        f"train.evaluate_every={iterations}",
        f"train.save_every={iterations}",
        f"train.log_every={max(1, iterations // 10)}",
    ]


def _rows(report: types.PerClassReport, seconds: dict[str, float]) -> list[dict[str, Any]]:
    order = {"teacher": 0, "baseline": 1, "compare": 2, "student": 3}
    return [
        {
            "model": model.name,
            # In the demo CWD is a student like HWD, not one more network to compare with.
            "role": "student" if model.role == "compare" else model.role,
            "params": model.params,
            "gmacs": model.gmacs,
            "miou": model.miou,
            "seconds": seconds[model.name],
        }
        for model in sorted(report.models, key=lambda model: order[model.role])
    ]
