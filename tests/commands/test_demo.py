"""`hwdkit demo`: the whole road."""

from __future__ import annotations

import json
from pathlib import Path

from tiny_runs import hwdkit


def test_the_quick_demo_walks_the_whole_road(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = hwdkit("demo", "--quick", "--out", out, "--gpus", 0, "--json")
    assert done.code == 0, done.err
    models = done.document["models"]
    assert [row["model"] for row in models] == ["teacher", "baseline", "cwd", "hwd"]
    assert all(0 <= row["miou"] <= 1 and row["params"] > 0 and row["seconds"] > 0 for row in models)
    report = Path(done.document["report"])
    assert report.parent == out / "report"
    for name in ("teacher", "baseline", "cwd", "hwd"):
        assert name in report.read_text()
        assert name in (out / "report" / "summary.md").read_text()
    assert json.loads((out / "report" / "summary.json").read_text())["models"] == models
    for step in ("[1/4]", "[2/4]", "[3/4]", "[4/4]"):
        assert step in done.err
    again = hwdkit("demo", "--quick", "--out", out)
    assert again.code == 3
    assert "choose another --out" in again.err
