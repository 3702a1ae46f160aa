"""How long `hwdkit --help` takes, beside importing what draws it and beside importing everything at once.

Processor time of whole processes, in turns.

    python benchmarks/cli.py
    python benchmarks/cli.py --quick --json
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from pathlib import Path

from goals import most_row, show, time_row
from measurement import begin, interleaved, parser, ratios

PROGRAM = {
    "ours": ["-m", "hwdkit", "--help"],
    "importing typer and rich": ["-c", "import typer, rich"],
    "importing typer and rich's tables": ["-c", "import typer, rich.console, rich.panel, rich.table"],
    "a help page": ["-c", "import sys, typer; sys.argv = ['x', '--help']; typer.run(lambda: None)"],
    "plain": ["-c", "import torch, torchvision, timm, typer"],
}
"""typer and rich import little by themselves: with the tables that a page is drawn of, it is what the study
called importing them. `a help page` is the shortest typer program there is; `plain` is what a training script
imports before it reads its arguments."""
TORCH = """
import sys
sys.argv = ["hwdkit", "--help"]
from hwdkit.cli import main
try:
    main()
except SystemExit:
    pass
print(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "timm", "torchvision", "numpy"}))
"""


def main() -> None:
    arguments = parser(__doc__, rounds=7, quick="1 round").parse_args()
    if arguments.quick:
        arguments.rounds = 1
    device = begin(arguments)
    costs: dict[str, list[float]] = {name: [] for name in PROGRAM}
    works = {name: lambda name=name: costs[name].append(processor_ms(PROGRAM[name])) for name in PROGRAM}
    interleaved(works, rounds=arguments.rounds, device=device)
    times = {name: values[1:] for name, values in costs.items()}  # the first fills the disk's cache
    over = {
        name: statistics.median(ratios(times, "ours", name))
        for name in ("importing typer and rich", "importing typer and rich's tables", "a help page")
    }
    loaded = subprocess.run(
        [sys.executable, "-c", TORCH], capture_output=True, text=True, check=True, cwd=root()
    ).stdout.splitlines()[-1]
    rows = [
        time_row("hwdkit --help", times, floor="a help page of typer's"),
        *(
            most_row("hwdkit --help", f"times {name}", of, None, most=1.5, floor="1")
            for name, of in over.items()
        ),
        most_row("hwdkit --help", "heavy packages imported", 0 if loaded == "[]" else 1, 4, most=0),
    ]
    show(rows, arguments, imported=loaded)


def processor_ms(arguments: list[str]) -> float:
    """User and system time of a Python process, milliseconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True, cwd=root())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def root() -> Path:
    return Path(__file__).resolve().parents[1]


if __name__ == "__main__":
    main()
