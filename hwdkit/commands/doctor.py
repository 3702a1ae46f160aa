"""`hwdkit doctor`: whether this machine, its datasets and its recipes are fit for a run, and what to type.

Asks hwdkit's own files and variables, and collects all answers; the machine is asked in `checkup.py` and
`limits.py`.
Nothing here raises, writes (a temporary file aside) or uses the network: a check that fails is a finding.
"""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from hwdkit.commands import checkup, limits
from hwdkit.commands.checkup import Finding
from hwdkit.commands.limits import writable
from hwdkit.errors import EnvironmentFailure, HwdkitError

LEVELS = ("ok", "note", "problem")
STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}
OURS = ("HWDKIT_DATA", "HWDKIT_RECIPES", "HWDKIT_DEBUG", "HWDKIT_WORKER_ERRORS")
THEIRS = (
    "CUDA_VISIBLE_DEVICES",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "MASTER_ADDR",
    "MASTER_PORT",
)
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
SAMPLE = 64
"""Files looked for in every split."""


def run(data_root: Path) -> dict[str, Any]:
    """Ask everything.

    Args:
        data_root: folder of the prepared datasets; it need not exist.

    Returns:
        counts: findings by level. findings: section, name, level, value, fix (what to type, or "") and
        facts (the same as values) of each, in the order of the text.
    """
    findings = [
        {"section": section, **vars(finding)}
        for section, checks in _checks(data_root).items()
        for name, check in checks.items()
        for finding in _asked(name, check)
    ]
    counts = {level: sum(finding["level"] == level for finding in findings) for level in LEVELS}
    return {"counts": counts, "data_root": str(data_root), "findings": findings}


def verdict(result: dict[str, Any]) -> EnvironmentFailure | None:
    """What the command ends with: None without problems."""
    count = result["counts"]["problem"]
    names = ", ".join(f["name"] for f in result["findings"] if f["level"] == "problem")
    return EnvironmentFailure(f"{_counted(count, 'problem')}: {names}") if count else None


def _checks(data_root: Path) -> dict[str, dict[str, Callable[[], Iterable[Finding]]]]:
    """Name every check, by section, in the order of the text."""
    try:
        Path.cwd()
    except OSError:  # torch would end the process on import
        value = "the working directory is gone: nothing else was checked"
        return {"limits": {"disk, here": lambda: [Finding("disk, here", value, "problem", "cd")]}}
    return {
        "versions": {
            "packages": checkup.versions,
            "imports": checkup.imports,
            "torchvision fits": checkup.torchvision_fits,
            "thop is": checkup.thop_is_the_papers,
        },
        "devices": {"cuda": checkup.devices},
        "back ends": {"back ends": checkup.back_ends, "threads": limits.threads},
        "limits": {
            "shared memory": limits.shared_memory,
            "open files": limits.open_files,
            "temporary folder": limits.temporary_folder,
            "disk, data root": lambda: [limits.disk("disk, data root", data_root)],
            "disk, here": lambda: [limits.disk("disk, here", Path.cwd())],
        },
        "datasets": {"datasets": partial(datasets, data_root)},
        "recipes": {"recipes": recipes},
        "environment": {"variables": variables, "ranks": ranks, "pretrained weights": pretrained_weights},
    }


def _asked(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What a check says; if it breaks, that too."""
    found: list[Finding] = []
    try:
        found.extend(check())  # keeps what came before the failure
    except Exception as error:
        value = f"could not be checked: {type(error).__name__}: {checkup.first_line(error)}"
        fix = "hwdkit doctor --json   (and report it)"
        if isinstance(error, ImportError):
            missing = isinstance(error, ModuleNotFoundError)
            fix = f"pip install {error.name}" if missing else checkup.REINSTALL
        found.append(Finding(name, value, "problem", fix))
    return found


def datasets(data_root: Path) -> Iterator[Finding]:
    """Every prepared dataset can be read, its files are there, and its cache is its own."""
    from hwdkit.data.index import prepared_in

    names = prepared_in(data_root)
    if not names:
        fix = f"hwdkit prepare-data scenes --data-root {shlex.quote(str(data_root))}"
        yield Finding("prepared", f"nothing in {data_root}", "note", fix)
    for name in names:
        yield from _asked(name, partial(_dataset, data_root / name))


def _dataset(folder: Path) -> Iterator[Finding]:
    from hwdkit.data.index import load_index

    name, again = folder.name, _prepare(folder)
    try:
        index = load_index(folder, files_must_exist=False)
    except HwdkitError as error:
        yield Finding(name, checkup.first_line(error), "problem", again + _source(name), {"readable": False})
        return
    gone, caches = _gone(index), _caches(index, folder)
    images = {split: len(pairs) for split, pairs in index.splits.items()}
    facts = {
        "images": images,
        "partial": index.partial,
        "fingerprint": index.fingerprint,
        "files_root": str(index.root),
        "missing": gone,
        "cache": caches,
    }
    states = sorted(set(caches.values()), key=lambda state: state in ("none", "current"))
    counts = ", ".join(f"{count} {split}" for split, count in images.items())
    partial = "partial, " if index.partial else ""
    value = f"{counts}, {partial}fingerprint {index.fingerprint[:8]}, cache {' and '.join(states)}"
    if gone:
        value = f"files are gone, such as {index.root / gone[0]}; {value}"
        yield Finding(name, value, "problem", again + _source(name, index.options), facts)
    elif not {"none", "current"}.issuperset(states):
        yield Finding(name, value, "note", f"{again} --cache", facts)
    else:
        yield Finding(name, value, "note" if index.partial else "ok", facts=facts)


def _prepare(folder: Path) -> str:
    from hwdkit.data.names import NAMES

    name = shlex.quote(folder.name)
    kind = name if folder.name in NAMES else f"folder --name {name}"
    return f"hwdkit prepare-data {kind} --data-root {shlex.quote(str(folder.parent))}"


def _source(name: str, options: Mapping[str, Any] | None = None) -> str:
    """Say where files come from: from a download, or drawn again."""
    if name != "scenes":
        return " --source …"
    same = ((key, (options or {}).get(key)) for key in ("train", "val", "seed"))
    return "".join(f" --{key} {value}" for key, value in same if isinstance(value, int)) + " --overwrite"


def _gone(index: Any) -> list[str]:
    """Files that are missing among an even sample of each split, the first and the last pair included."""
    missing: list[str] = []
    for pairs in index.splits.values():
        count = min(SAMPLE, len(pairs))
        chosen = {i * (len(pairs) - 1) // max(count - 1, 1) for i in range(count)}
        files = (file for i in sorted(chosen) for file in (pairs[i].image, pairs[i].label))
        missing += [file for file in files if not (index.root / file).is_file()]
    return missing


def _caches(index: Any, folder: Path) -> dict[str, str]:
    """The state of each split's cache: none, current, or what is wrong with it."""
    from hwdkit.data.cache_files import FOLDER, CachedSplit

    caches = {split: CachedSplit(index, folder / FOLDER, split) for split in index.splits}
    return {
        split: (cached.problem() or "current") if cached.header.exists() else "none"
        for split, cached in caches.items()
    }


def recipes() -> Iterator[Finding]:
    """Every recipe that can be named loads."""
    from hwdkit.commands.recipes import list_recipes
    from hwdkit.recipe.find import listed, search_path, shipped

    rows = list_recipes()
    folders = {folder.resolve(): folder for folder in reversed(search_path())}  # in a checkout two are one
    for place, folder in reversed(folders.items()):
        whose = "shipped" if place == shipped().resolve() else str(folder)
        facts: dict[str, Any] = {"path": str(place), "recipes": len(listed(folder))}
        if folder.is_dir():
            yield Finding(whose, f"{_counted(facts['recipes'], 'recipe')} in {place}", facts=facts)
        elif folder != Path("recipes"):  # which need not be there
            fix = "unset HWDKIT_RECIPES   (or let it name folders that exist, joined by :)"
            yield Finding(whose, "named by HWDKIT_RECIPES, but no such folder", "note", fix, facts)
    for row in rows:
        if row["error"]:
            fix = f"hwdkit recipes validate {shlex.quote(row['path'])}"
            yield Finding(
                row["name"], f"does not load: {row['error']}", "problem", fix, {"path": row["path"]}
            )


def variables() -> Iterator[Finding]:
    """Variables that steer hwdkit; one that it does not know is probably misspelt."""
    for name in sorted(os.environ):
        facts = {"value": os.environ[name]}
        if name.startswith("HWDKIT_") and name not in OURS:
            close = difflib.get_close_matches(name, OURS, n=1)
            guess = f"; did you mean {close[0]}?" if close else ""
            yield Finding(name, f"hwdkit reads no such variable{guess}", "note", f"unset {name}", facts)
        elif name in OURS + THEIRS or name.startswith("NCCL_"):
            yield Finding(name, facts["value"], facts=facts)


def ranks() -> Iterator[Finding]:
    """Which of several processes this would be, as a run started here would see it."""
    from hwdkit.distributed import environment

    theirs = [name for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if name in os.environ]
    slurms = [name for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS") if name in os.environ]
    clear = f"unset {' '.join(theirs or slurms)}"
    try:
        rank, local, world = environment()
    except HwdkitError as error:
        yield Finding("ranks", error.message, "problem", clear)
        return
    facts = {"rank": rank, "local_rank": local, "world": world}
    tasks = os.environ.get("SLURM_NTASKS")
    # srun may start one torchrun a node, which then counts for more than Slurm knows of; never for less.
    if theirs and slurms and (tasks or "").isdecimal() and world % max(int(tasks or 1), 1):
        value = f"WORLD_SIZE={world} contradicts SLURM_NTASKS={tasks}; hwdkit believes the former"
        yield Finding("ranks", value, "problem", clear, facts)
    elif world > 1 and os.environ.get("SLURM_NNODES", "1") != "1" and "MASTER_ADDR" not in os.environ:
        fix = 'export MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"'
        yield Finding("ranks", "several Slurm nodes, and no MASTER_ADDR", "problem", fix, facts)
    elif world > 1:
        value = f"rank {rank} of {world}: a run started here waits for the others"
        yield Finding("ranks", value, "note", f"{clear}   (unless torchrun or srun set them)", facts)
    else:
        yield Finding("ranks", "one process, or as many as hwdkit starts", facts=facts)


def pretrained_weights() -> Iterator[Finding]:
    """Where timm's downloads go, whether they can, and how many are there."""
    environ = os.environ
    home = environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    hub = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or Path(home, "hub")
    folder = Path(os.path.expandvars(hub)).expanduser()
    there = len(list(folder.glob("models--*"))) if folder.is_dir() else 0
    offline = [name for name in OFFLINE if environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}]
    facts = {"path": str(folder), "models": there, "offline": offline}
    value = f"{_counted(there, 'model')} in {folder}"
    if offline:
        value += f"; {offline[0]} is set: nothing else is downloaded"
        yield Finding("pretrained weights", value, "note", f"unset {' '.join(offline)}", facts)
    elif not writable(folder):
        fix = "export HF_HOME=/some/writable/folder"
        yield Finding("pretrained weights", f"{value}, which is not writable", "problem", fix, facts)
    else:
        yield Finding("pretrained weights", value, facts=facts)


def render(result: dict[str, Any]) -> Group:
    """Show the findings by section, the problems last, each with what to type."""
    findings = result["findings"]
    width = max(len(_printable(finding["name"])) for finding in findings)
    parts: list[Text | Table] = []
    for section in dict.fromkeys(finding["section"] for finding in findings):
        rows = [f for f in findings if f["section"] == section and f["level"] != "problem"]
        parts += [Text(section, "bold"), _table(rows, width), Text("")] if rows else []
    problems = [finding for finding in findings if finding["level"] == "problem"]
    if problems:
        parts += [Text("problems", "bold red"), _table(problems, width), Text("")]
    counts = result["counts"]
    parts.append(Text(f"{_counted(len(problems), 'problem')}, {_counted(counts['note'], 'note')}"))
    return Group(*parts)


def _table(findings: list[dict[str, Any]], width: int) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(min_width=len("problem"), no_wrap=True)
    table.add_column(min_width=width, no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        value = Text(_printable(finding["value"]))
        if finding["fix"]:
            value.append(f"\ntype: {_printable(finding['fix'])}", "cyan")
        level, name = finding["level"], Text(_printable(finding["name"]))  # brackets are not markup
        table.add_row(Text(level, STYLES[level]), name, value)
    return table


def _printable(text: str) -> str:
    """Names of files may hold control characters, which a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def _counted(count: int, word: str) -> str:
    return f"{count or 'no'} {word}{'' if count == 1 else 's'}"
