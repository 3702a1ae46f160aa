"""`hwdkit doctor` on this machine, and the problems that can be provoked on it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from tiny_runs import hwdkit

from hwdkit.commands.doctor import Doctor, diagnosis, environment, machine, packages, prepared
from hwdkit.commands.doctor.finding import REINSTALL, Finding, findings_of
from hwdkit.data.cache import cache_for
from hwdkit.data.index import load_index
from hwdkit.prepare.prepare import prepare
from hwdkit.prepare.scenes import SceneOptions
from hwdkit.recipe.find import shipped


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory, and none of the variables that steer hwdkit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for name in (*environment.RANKS, *environment.OF_HWDKIT, *environment.OF_OTHERS, "SLURM_NNODES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A data root with a tiny dataset."""
    prepare("scenes", root=tmp_path / "data", scenes=SceneOptions(train=3, val=2, size=(32, 32)))
    return tmp_path / "data"


def by_name(check: Callable[[], Iterable[Finding]]) -> dict[str, Finding]:
    return {finding.name: finding for finding in check()}


def dataset(root: Path, name: str = "scenes") -> Finding:
    return by_name(partial(prepared.datasets, root))[name]


def test_the_document_is_complete_and_explains_the_exit_code(scenes: Path) -> None:
    outcome = hwdkit("doctor", "--json", "--data-root", scenes)
    document = outcome.document
    problems = document["counts"]["problem"]
    assert (outcome.code, document["status"]) == ((6, "error") if problems else (0, "ok"))
    assert sum(document["counts"].values()) == len(document["findings"])
    sections = dict.fromkeys(finding["section"] for finding in document["findings"])
    assert list(sections) == ["versions", "extras", "devices", "limits", "datasets", "recipes", "environment"]
    for finding in document["findings"]:
        assert finding.keys() == {"section", "name", "value", "level", "fix", "facts"}
        assert finding["fix"] or finding["level"] != "problem"
    names = {finding["name"] for finding in document["findings"]}
    assert names >= {"hwdkit", "python", "torch", "torchvision", "timm", "torchvision loads", "thop is"}
    assert names >= {"cores", "threads", "shared memory", "open files", "disk, data root", "disk, here"}
    assert names >= {"scenes", "shipped", "ranks", "pretrained weights"}
    assert {f["name"] for f in document["findings"] if f["section"] == "extras"} >= {"onnx", "video", "tsne"}


def test_text_is_readable_in_a_pipe_and_ends_with_the_problems(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text("a: 1\n")
    done = hwdkit("doctor")
    assert done.code == 6, done.err
    assert done.err.startswith("error[environment]: ")
    assert "\x1b" not in done.out
    lines = done.out.splitlines()
    assert all(line == line.rstrip() and len(line) < 250 for line in lines)
    starts = {line.index(word) for line in lines for word in ("torch  ", "timm  ") if f" {word}" in line}
    assert len(starts) == 1, "names are aligned"
    problems = lines.index("problems")
    assert not any(line.startswith("problem ") for line in lines[:problems])
    (row,) = [i for i, line in enumerate(lines) if "mine" in line and "does not load" in line]
    assert row > problems
    assert lines[row + 1].strip() == "type: hwdkit recipes validate recipes/mine.yaml"
    assert lines[-1].split(",")[0].endswith(("problem", "problems"))


def test_a_small_machine_has_problems_that_say_what_to_type(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    room = SimpleNamespace(total=2**27, used=0, free=2**27)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: room)
    monkeypatch.setattr("resource.getrlimit", lambda _: (64, 4096))
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    monkeypatch.setenv("RANK", "0")
    (tmp_path / "my data").mkdir()
    result = diagnosis.run(Doctor(data_root=tmp_path / "my data"))
    problems = {f["name"]: f for f in result["findings"] if f["level"] == "problem"}
    assert list(problems) == [
        *("threads", "shared memory", "open files", "disk, data root", "disk, here", "ranks")
    ]
    assert all(problem["fix"] for problem in problems.values())
    assert problems["disk, data root"]["fix"].startswith(f"du -sh '{tmp_path}/my data'/*")
    failure = diagnosis.verdict(result)
    assert failure is not None
    assert failure.exit_code == 6
    assert failure.message.startswith("6 problems: threads, shared memory")


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (ModuleNotFoundError("No module named 'packaging'", name="packaging"), "pip install packaging"),
        (ImportError("libcudart.so.13: cannot open shared object file"), REINSTALL),
        (RuntimeError("no such\nthing"), "hwdkit doctor --json   (and report it)"),
    ],
)
def test_a_check_that_breaks_is_a_problem_after_what_it_had_found(error: Exception, fix: str) -> None:
    def breaks() -> Iterable[Finding]:
        yield Finding("first", "fine")
        raise error

    first, broken = findings_of("second", breaks)
    assert first == Finding("first", "fine")
    assert (broken.name, broken.level, broken.fix) == ("second", "problem", fix)
    assert broken.value.startswith(f"could not be checked: {type(error).__name__}: ")
    assert "\n" not in broken.value


def test_shipped_recipes_are_counted_once_and_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").symlink_to(shipped())  # as in a checkout, where ./recipes are those that ship
    monkeypatch.chdir(tmp_path)
    (finding,) = prepared.recipes()
    assert finding.level == "ok"
    assert finding.facts["recipes"] > 0


def test_a_working_directory_that_is_gone_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    (finding,) = diagnosis.run(Doctor(data_root=tmp_path))["findings"]
    assert (finding["level"], finding["fix"]) == ("problem", "cd")


def distribution(name: str, version: str, *requires: str, extras: str = "") -> None:
    """Install a fake package in front of the real ones."""
    folder = Path("site", f"{name.replace('-', '_')}-{version}.dist-info")
    folder.mkdir(parents=True)
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {of}" for of in requires)]
    lines += [f"Provides-Extra: {extra}" for extra in extras.split()]
    (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines, ""]))


def test_an_old_package_is_a_problem() -> None:
    distribution("timm", "0.9.1")
    finding = by_name(packages.versions)["timm"]
    assert finding.fix == "pip install --upgrade 'timm>=1.0.9'"
    assert finding.facts == {"version": "0.9.1"}


def test_ultralytics_thop_shadows_the_papers_counter() -> None:
    distribution("ultralytics-thop", "2.0.14")
    finding = by_name(packages.thop_is_the_papers)["thop is"]
    assert finding.level == "problem"
    assert "AGPL-3.0" in finding.value
    assert finding.fix.startswith("pip uninstall ultralytics-thop")


def test_an_extra_that_is_too_old_is_noted_and_a_missing_one_is_no_fault() -> None:
    distribution(
        "hwdkit", "9", "av>=13; extra == 'video'", "none-such>=1; extra == 'odd'", extras="video odd"
    )
    distribution("av", "1.0")
    findings = by_name(packages.extras)
    assert findings.keys() == {"video", "odd"}
    video, odd = findings["video"], findings["odd"]
    assert (video.level, video.value) == ("note", "av 1.0 is too old: no videos in hwdkit predict")
    assert video.fix == "pip install --upgrade 'hwdkit[video]'"
    assert (odd.level, odd.facts["versions"]) == ("ok", {"none-such": None})


def test_a_package_that_is_required_and_missing_is_a_problem() -> None:
    distribution("hwdkit", "9", "none-such>=3")
    finding = by_name(packages.versions)["none-such"]
    assert (finding.level, finding.fix) == ("problem", "pip install 'none-such>=3'")


@pytest.mark.parametrize(
    ("variables", "level", "says"),
    [
        ({"RANK": "0"}, "problem", "WORLD_SIZE is not"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "problem", "not within"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_NNODES": "2"}, "problem", "no MASTER_ADDR"),
        ({"RANK": "0", "WORLD_SIZE": "8"}, "note", "rank 0 of 8"),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, "note", "rank 1 of 4"),
        ({"SLURM_NTASKS": "4"}, "ok", "one process"),
    ],
)
def test_ranks_that_make_no_sense_are_a_problem(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], level: str, says: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (finding,) = environment.ranks()
    assert finding.level == level
    assert says in finding.value


def test_a_driver_without_a_device_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "NVIDIA", (tmp_path / "nvidiactl",))
    assert by_name(machine.devices)["cuda"].level == "note", "a machine without a GPU is no problem"
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    assert by_name(machine.devices)["cuda"].level == "problem"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert by_name(machine.devices)["cuda"].fix == "unset CUDA_VISIBLE_DEVICES"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "this torch is for CPUs" in by_name(machine.devices)["cuda"].value


@pytest.mark.parametrize(
    ("error", "level", "fix"),
    [
        ("", "ok", ""),
        ("CUDA error: no kernel image is available for execution on the device", "problem", REINSTALL),
        ("CUDA-capable device(s) is/are busy or unavailable\nmore", "problem", "nvidia-smi"),
    ],
)
def test_a_device_is_described_and_tried(
    monkeypatch: pytest.MonkeyPatch, error: str, level: str, fix: str
) -> None:
    def on_device(size: int, *, device: str) -> torch.Tensor:
        if error:
            raise RuntimeError(error)
        return torch.ones(size)

    gpu = SimpleNamespace(name="NVIDIA H200", total_memory=141 * 2**30, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    monkeypatch.setattr(torch, "zeros", on_device)
    finding = by_name(machine.devices)["cuda:0"]
    assert (finding.level, finding.fix) == (level, fix)
    if not error:
        assert finding.value == "NVIDIA H200, 141 GiB, compute capability 9.0"
    else:
        assert finding.value == f"cannot be used: {error.splitlines()[0]}"


def test_a_dataset_is_described(scenes: Path) -> None:
    index = load_index(scenes / "scenes")
    facts = dataset(scenes).facts
    assert facts["images"] == {"train": 3, "val": 2}
    assert facts["fingerprint"] == index.fingerprint
    assert (facts["missing"], facts["partial"]) == ([], index.partial)
    assert facts["cache"] == {"train": "none", "val": "none"}


def test_files_that_are_gone_make_a_dataset_stale(scenes: Path) -> None:
    last = load_index(scenes / "scenes").splits["val"][-1].label
    (scenes / "scenes" / last).unlink()
    finding = dataset(scenes)
    assert finding.level == "problem"
    assert finding.facts["missing"] == [last]
    again = f"hwdkit prepare-data scenes --data-root {scenes} --train 3 --val 2 --seed 0 --overwrite"
    assert finding.fix == again
    assert hwdkit(*again.split()[1:], "--quiet").code == 0
    assert dataset(scenes).facts["missing"] == []


def test_an_index_that_cannot_be_read_is_a_problem(scenes: Path) -> None:
    (scenes / "scenes" / "dataset.json").write_text("{}")
    finding = dataset(scenes)
    assert finding.facts == {"readable": False}
    assert finding.fix == f"hwdkit prepare-data scenes --data-root {scenes} --overwrite"


def test_a_cache_of_other_data_is_noted(scenes: Path) -> None:
    cache_for(load_index(scenes / "scenes"), scenes / "scenes")
    assert dataset(scenes).facts["cache"] == {"train": "current", "val": "current"}
    header = scenes / "scenes" / "cache" / "val.json"
    header.write_text(json.dumps({**json.loads(header.read_text()), "key": "0" * 64}))
    finding = dataset(scenes)
    assert finding.level == "note"
    assert finding.facts["cache"]["val"].startswith("is of other data")
    assert finding.fix == f"hwdkit prepare-data scenes --data-root {scenes} --cache"


def test_a_broken_recipe_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "mine.yaml").write_text("base: scenes-r10-hwd\nseeed: 1\n")
    monkeypatch.setenv("HWDKIT_RECIPES", str(tmp_path / "more"))
    finding = by_name(prepared.recipes)["mine"]
    assert "unknown key 'seeed'" in finding.value
    assert finding.fix == "hwdkit recipes validate more/mine.yaml"


def test_a_recipe_folder_that_is_not_there_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWDKIT_RECIPES", "absent")
    assert by_name(prepared.recipes)["absent"].level == "note"


def test_a_misspelt_variable_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWDKIT_DATE", "x")
    assert by_name(environment.variables)["HWDKIT_DATE"].value.endswith("did you mean HWDKIT_DATA?")


def test_names_cannot_command_a_terminal() -> None:
    row = {
        "section": "datasets",
        "level": "note",
        "name": "[red]a\x1b[2J",
        "value": "b\x1b[3J\udcff",
        "fix": "\x07",
    }
    page = Console(record=True, width=80, file=io.StringIO())
    page.print(diagnosis.render({"counts": {"note": 1}, "findings": [row]}))
    text = page.export_text()
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]a\ufffd[2J" in text


def test_a_data_root_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert dataset(tmp_path / "file", "prepared").value == f"{tmp_path / 'file'} is a file, not a folder"
    for root, complaint in ((tmp_path / "file" / "x", "is a file"), (tmp_path / ("a" * 300), "too long")):
        outcome = hwdkit("doctor", "--data-root", root)
        assert outcome.code == 2
        assert complaint in outcome.err
