"""A tiny trained teacher and student for tests of commands, and the command line as a function."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hwdkit import cli

ROOT = Path(__file__).resolve().parents[1]
SMALL = "{layers: [1, 1, 1, 1], channels: [8, 16, 24, 32]}"
TINY = [
    *("--set", "train.batch_size=2", "--set", "train.log_every=1", "--set", "data.workers=0"),
    *("--set", "data.crop=[32, 32]", "--set", "optimizer.warmup=0"),
]
TEACHER = ["--recipe", "scenes-r18-teacher", *TINY]
TEACHER += ["--set", f"teacher.backbone_options={SMALL}", "--set", "teacher.head_channels=8"]
STUDENT = ["--recipe", "scenes-r10-hwd", *TINY]
STUDENT += ["--set", f"student.backbone_options={SMALL}", "--set", "student.head_channels=8"]


def steps(count: int) -> list[str]:
    """Options for a run of so many steps."""
    return ["--set", f"train.iterations={count}"]


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """stdout as the one JSON document that it must be."""
        value: dict[str, Any] = json.loads(self.out)
        return value


def hwdkit(*arguments: object) -> Outcome:
    """Run a command in this process, through the same entry point as the shell's."""
    out, err = io.StringIO(), io.StringIO()
    logger = logging.getLogger("hwdkit")
    before = logger.handlers[:], logger.propagate, logger.level
    argv = ["hwdkit", *(str(argument) for argument in arguments)]
    try:
        with patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
            cli.main()
    except SystemExit as leaving:
        code = leaving.code
    finally:
        logger.handlers[:], logger.propagate = before[:2]
        logger.setLevel(before[2])
    assert isinstance(code, int)
    return Outcome(code, out.getvalue(), err.getvalue())


def environment(**more: str) -> Mapping[str, str]:
    """A process's environment in which `python -m hwdkit` is this checkout, and no terminal is forced."""
    forced = ("GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS", "RANK", "WORLD_SIZE", "HWDKIT_DATA")
    kept = {key: value for key, value in os.environ.items() if key not in forced}
    path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


@dataclass(frozen=True)
class Pair:
    """A prepared dataset of 16 + 4 scenes, and the runs of a teacher and a student on it."""

    data: Path
    teacher: Path
    student: Path


@cache
def trained_pair(folder: Path) -> Pair:
    """Prepare data and train both networks for two steps; once a folder."""
    pair = Pair(folder / "data", folder / "teacher", folder / "student")
    made = hwdkit("prepare-data", "scenes", "--train", 16, "--val", 4, "--data-root", pair.data, "-q")
    assert made.code == 0, made.err
    on_cpu = ["--data-root", pair.data, "--gpus", 0, "--quiet"]
    made = hwdkit("train-teacher", *TEACHER, *steps(2), "--out", pair.teacher, *on_cpu)
    assert made.code == 0, made.err
    made = hwdkit("distill", *STUDENT, *steps(2), "--teacher", pair.teacher, "--out", pair.student, *on_cpu)
    assert made.code == 0, made.err
    return pair
