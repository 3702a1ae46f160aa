"""hwdkit demo: how most people begin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwdkit.terminal import values
from hwdkit.terminal.command import Result, command
from hwdkit.terminal.options import OneGpu


@command(example="hwdkit demo --out my-demo")
class Demo:
    """The whole road in minutes: data, teacher, baseline, CWD, HWD, evaluation, report."""

    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for data, runs and report; must be new or empty.")
    ] = Path("demo")
    seed: Annotated[int, typer.Option(min=0, help="Seed of all runs.")] = 0
    quick: Annotated[
        bool, typer.Option("--quick", help="Smoke test, about a minute; its numbers mean nothing.")
    ] = False
    gpus: OneGpu = "auto"

    def run(self) -> Result:
        cpu = values.one_device(values.launch_plan(gpus=self.gpus))

        from hwdkit.commands.demo import road

        summary = road.run(self.out, seed=self.seed, quick=self.quick, cpu=cpu)
        return Result(summary, lambda: road.render(summary))
