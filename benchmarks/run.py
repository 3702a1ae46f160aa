"""Run the benchmarks that have goals, keep their numbers, and write the table of docs/performance.md.

python benchmarks/run.py --full                  # an hour on two busy cores
python benchmarks/run.py --quick                 # does everything run? Prints, writes nothing
python benchmarks/run.py --full --parts FOLDER   # keeps each script's result there, and goes on from it
python benchmarks/run.py --full --device cuda    # also throughput.py and triton_kernels.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from goals import Row, markdown
from measurement import RESULTS, commit, keep, slug

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "performance.md"
BEGIN, END = "<!-- results of benchmarks/run.py -->", "<!-- end of the results -->"
SCRIPTS = ("hwd_loss", "upsampled_ce", "distil_step", "evaluate", "data", "cli")
ON_A_GPU = ("throughput", "triton_kernels")
ON_THE_CPU = ("data", "cli")
"""What no GPU has a part in."""


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.parts or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        wanted = arguments.only or scripts(arguments.device)
        results = {name: result(name, folder, arguments) for name in wanted}
    print(table(results))
    if arguments.quick:
        return
    device = torch.device(arguments.device)
    out = arguments.out or RESULTS / f"{slug(device)}-{commit()}-goals.json"
    keep({"commit": commit(), "scripts": results}, out)
    print(f"written: {out}", file=sys.stderr)
    if set(wanted) >= set(SCRIPTS):
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(with_table(page, results, source=out), encoding="utf-8")
        print(f"written: {PAGE}", file=sys.stderr)


def scripts(device: str) -> tuple[str, ...]:
    return SCRIPTS + ON_A_GPU if device.startswith("cuda") else SCRIPTS


def result(name: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """What a script finds; from a run before, if --parts has it."""
    path = folder / f"{name}.json"
    if not path.is_file() or not path.stat().st_size:
        print(f"running {name}", file=sys.stderr)
        options = ["--out", str(path), "--json", *(["--quick"] if arguments.quick else [])]
        if name not in ON_THE_CPU:
            options += ["--device", arguments.device]
        subprocess.run(
            [sys.executable, str(HERE / f"{name}.py"), *options],
            check=True,
            stdout=subprocess.DEVNULL,
            env=environment(),
            cwd=HERE.parent,
        )
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def environment() -> dict[str, str]:
    """One thread from the start, and this checkout's hwdkit."""
    paths = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def table(results: dict[str, dict[str, Any]]) -> str:
    """All rows of all scripts."""
    return markdown([Row(**row) for found in results.values() for row in found["rows"]])


def with_table(page: str, results: dict[str, dict[str, Any]], *, source: Path) -> str:
    """The page with a new table between the markers, and how it was measured.

    Raises:
        ValueError: the page has no markers, or not in this order.
    """
    head, found, rest = page.partition(BEGIN)
    _, closed, tail = rest.partition(END)
    if not found or not closed:
        raise ValueError(f"{PAGE} lacks the lines {BEGIN} and {END}")
    loads = [of["load"][0] for of in results.values()]
    first = next(iter(results.values()))
    changed = " with uncommitted changes" if any(of["modified"] for of in results.values()) else ""
    link = os.path.relpath(source.resolve(), PAGE.parent)
    commits = ", ".join(sorted({of["commit"] for of in results.values()}))
    how = (
        f"{first['machine']}, {first['cores']} cores, {first['threads']} thread, {first['device']}, "
        f"torch {first['torch']}, commit {commits}{changed}; "
        f"load of the machine when each script ended: {min(loads):.1f} to {max(loads):.1f}. "
        f"Numbers and their circumstances: [{source.name}]({link})."
    )
    return f"{head}{BEGIN}\n{how}\n\n{table(results)}\n{END}{tail}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--quick", action="store_true", help="tiny sizes: does everything run?")
    size.add_argument("--full", action="store_true", help="the sizes that the goals are about")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS + ON_A_GPU, metavar="SCRIPT")
    parser.add_argument("--parts", type=Path, help="folder of the scripts' results: those there are not run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/MACHINE-COMMIT-goals.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
