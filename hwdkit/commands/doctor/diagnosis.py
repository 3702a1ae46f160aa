"""What `hwdkit doctor` checks, in the order of its text, and how the findings are shown.

No check raises, writes (a temporary file aside) or uses the network: one that fails is a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from hwdkit.commands.doctor import Doctor, environment, machine, packages, prepared
from hwdkit.commands.doctor.finding import Finding, counted, findings_of
from hwdkit.errors import EnvironmentFailure
from hwdkit.report.render import printable

LEVELS = ("ok", "note", "problem")
STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def run(options: Doctor) -> dict[str, Any]:
    """Check everything.

    Returns:
        counts: findings by level. findings: section and the fields of `Finding` of each, in the order of the
        text.
    """
    findings = [
        {"section": section, **vars(finding)}
        for section, checks in _checks(options.data_root).items()
        for name, check in checks.items()
        for finding in findings_of(name, check)
    ]
    counts = {level: sum(finding["level"] == level for finding in findings) for level in LEVELS}
    return {"counts": counts, "data_root": str(options.data_root), "findings": findings}


def verdict(result: dict[str, Any]) -> EnvironmentFailure | None:
    """The error that the command ends with; None without problems."""
    count = result["counts"]["problem"]
    names = ", ".join(f["name"] for f in result["findings"] if f["level"] == "problem")
    return EnvironmentFailure(f"{counted(count, 'problem')}: {names}") if count else None


def _checks(data_root: Path) -> dict[str, dict[str, Callable[[], Iterable[Finding]]]]:
    """Name every check, by section, in the order of the text."""
    try:
        here = Path.cwd()
    except OSError:  # torch would end the process on import
        value = "the working directory was deleted: nothing else was checked"
        return {"limits": {"disk, here": lambda: [Finding("disk, here", value, "problem", "cd")]}}
    return {
        "versions": {
            "packages": packages.versions,
            "imports": packages.imports,
            "thop is": packages.thop_is_the_papers,
        },
        "extras": {"extras": packages.extras},
        "devices": {"cuda": machine.devices},
        "limits": {
            "threads": machine.threads,
            "shared memory": machine.shared_memory,
            "open files": machine.open_files,
            "disk, data root": partial(machine.disk, "disk, data root", data_root),
            "disk, here": partial(machine.disk, "disk, here", here),
        },
        "datasets": {"datasets": partial(prepared.datasets, data_root)},
        "recipes": {"recipes": prepared.recipes},
        "environment": {
            "variables": environment.variables,
            "ranks": environment.ranks,
            "pretrained weights": environment.pretrained_weights,
        },
    }


def render(result: dict[str, Any]) -> Group:
    """Show the findings by section, the problems last, each with what to type."""
    findings = result["findings"]
    width = max(len(printable(finding["name"])) for finding in findings)
    parts: list[Text | Table] = []
    for section in dict.fromkeys(finding["section"] for finding in findings):
        rows = [f for f in findings if f["section"] == section and f["level"] != "problem"]
        parts += [Text(section, "bold"), _table(rows, width), Text("")] if rows else []
    problems = [finding for finding in findings if finding["level"] == "problem"]
    if problems:
        parts += [Text("problems", "bold red"), _table(problems, width), Text("")]
    counts = result["counts"]
    parts.append(Text(f"{counted(len(problems), 'problem')}, {counted(counts['note'], 'note')}"))
    return Group(*parts)


def _table(findings: list[dict[str, Any]], width: int) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(min_width=len("problem"), no_wrap=True)
    table.add_column(min_width=width, no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        value = Text(printable(finding["value"]))
        if finding["fix"]:
            value.append(f"\ntype: {printable(finding['fix'])}", "cyan")
        level, name = finding["level"], Text(printable(finding["name"]))  # brackets are not markup
        table.add_row(Text(level, STYLES[level]), name, value)
    return table
