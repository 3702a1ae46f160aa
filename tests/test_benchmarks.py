"""The benchmarks: every script runs at a tiny size, and what they share counts and compares rightly."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
QUICK = ("hwd_loss", "upsampled_ce", "evaluate")
SLOW = (
    "cli",
    "data",
    "distil_step",
    "growth",
    "losses",
    "methods",
    "report",
    "step",
    "throughput",
    "triton_kernels",
)
SHARED = ("goals", "measurement", "plain", "run")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts import one another by bare names, which must not stay behind: one is called `data`."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    before = dict(sys.modules)
    for name in (path.stem for path in FOLDER.glob("*.py")):
        sys.modules.pop(name, None)
    yield
    for name in (path.stem for path in FOLDER.glob("*.py")):
        sys.modules.pop(name, None)
        if name in before:
            sys.modules[name] = before[name]


def shared(name: str) -> ModuleType:
    return importlib.import_module(name)


def run(name: str, *options: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *options])
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def test_every_script_is_tried() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {*QUICK, *SLOW, *SHARED}


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_quick_run_prints_one_json_document_that_says_how_it_was_made(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if name == "triton_kernels":
        pytest.importorskip("triton")
    out = tmp_path / "new" / "result.json"
    printed = run(name, "--quick", "--json", "--out", str(out), monkeypatch=monkeypatch, capsys=capsys)
    result = json.loads(printed)
    assert result == json.loads(out.read_text())
    assert result["quick"] is True
    assert result["threads"] == 1
    assert result["torch"] == torch.__version__
    assert len(result["load"]) == 3
    for row in result.get("rows", []):
        assert row["ours"] >= 0
        assert (row["met"] is None) == (row["goal"] == "")


def test_hwd_takes_few_operations_and_the_plain_way_some_for_every_class() -> None:
    module = shared("hwd_loss")
    arguments = module.parser("", rounds=1, quick="").parse_args([])
    counts = {}
    for classes in (5, 9):
        maps = [torch.randn(2, classes, 8, 8) for _ in range(2)]
        rows, _ = module.of_hwd(maps, torch.randint(classes, (2, 64, 64)), arguments)
        counts[classes] = next(row for row in rows if row.measure == "operations")
    assert counts[5].ours == counts[9].ours <= 60
    assert counts[9].plain - counts[5].plain == 2 * 4 * 4  # images, more classes, operations of each


def test_ratio_is_the_median_of_the_rounds_and_decides_the_goal() -> None:
    times = {"ours": [1.0, 2.0, 1.0], "plain": [4.0, 6.0, 10.0]}
    row = shared("goals").time_row("x", times, least=4)
    assert (row.times, row.spread, row.met) == (4.0, (3.0, 10.0), True)
    assert shared("goals").time_row("x", times, least=4.1).met is False
    assert shared("goals").time_row("x", times).met is None


@pytest.mark.parametrize(("most", "met"), [(2.0, True), (1.9, False), (None, None)])
def test_bound_is_met_up_to_itself(most: float | None, met: bool | None) -> None:
    assert shared("goals").most_row("x", "MiB", 2.0, 8.0, most=most).met is met


def test_every_way_runs_once_a_round_and_in_the_warmup() -> None:
    runs: list[str] = []
    ways = {name: lambda name=name: runs.append(name) for name in "ab"}
    times = shared("measurement").interleaved(ways, rounds=3, device=torch.device("cpu"), warmup=2)
    assert sorted(runs) == ["a"] * 5 + ["b"] * 5
    assert [len(of) for of in times.values()] == [3, 3]
    assert all(set(runs[i : i + 2]) == {"a", "b"} for i in range(0, 10, 2))


def test_views_and_allocations_are_no_operations() -> None:
    x = torch.randn(4, 4)
    counted = shared("measurement").operations(
        lambda: torch.empty(4, 4).copy_(x.t().reshape(4, 4)[:2, :2].sum())
    )
    assert counted.count == 2
    assert counted.bytes == (4 * 4 + 4) + (4 * 16 + 4 + 4 * 16)  # the sum; the copy's target, source, result


def test_plain_areas_are_those_of_the_confusion_matrix() -> None:
    plain = shared("plain")
    logits, label = torch.randn(4, 5, 6), torch.randint(4, (33, 41))
    label[:5] = 255
    counts = plain.confusion(logits, label).double()
    areas = plain.areas(logits, label)
    assert counts.sum() == (label != 255).sum()
    assert torch.equal(areas.intersection.double(), counts.diagonal())
    assert torch.equal(areas.union.double(), counts.sum(0) + counts.sum(1) - counts.diagonal())


@pytest.mark.slow
def test_growth_of_a_square_is_two() -> None:
    assert shared("growth").exponent([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)


def results(**changes: Any) -> dict[str, Any]:
    row = {
        "what": "HWD",
        "measure": "ms",
        "ours": 2.0,
        "plain": 8.0,
        "times": 4.0,
        "goal": "≥ 3",
        "met": True,
    }
    made = {
        "machine": "M",
        "cores": 2,
        "threads": 1,
        "device": "cpu",
        "torch": "2",
        "commit": "abc",
        "modified": True,
    }
    return {"hwd_loss": {**made, "load": [3.0, 2.0, 1.0], "rows": [row], **changes}}


def test_table_replaces_what_is_between_its_markers_only() -> None:
    module = shared("run")
    page = f"before\n{module.BEGIN}\nold\n{module.END}\nafter\n"
    new = module.with_table(page, results(), source=FOLDER / "results" / "x.json")
    assert new.startswith(f"before\n{module.BEGIN}\nM, 2 cores")
    assert new.endswith(f"{module.END}\nafter\n")
    assert "old" not in new
    assert "commit abc with uncommitted changes" in new
    assert "| HWD | ms | 2 | 8 | 4 | ≥ 3 | yes |  |" in new
    assert "(../benchmarks/results/x.json)" in new
    assert module.with_table(new, results(), source=FOLDER / "results" / "x.json") == new


def test_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks the lines"):
        shared("run").with_table("nothing", results(), source=FOLDER / "x.json")


def test_finished_parts_are_not_run_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "cli.json").write_text(json.dumps(results()["hwd_loss"]))
    options = ("--full", "--only", "cli", "--parts", str(tmp_path), "--out", str(tmp_path / "all.json"))
    assert "| HWD | ms |" in run("run", *options, monkeypatch=monkeypatch, capsys=capsys)
    assert json.loads((tmp_path / "all.json").read_text())["scripts"]["cli"]["commit"] == "abc"
