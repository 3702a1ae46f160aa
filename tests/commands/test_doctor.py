"""`hwdkit doctor`: each problem provoked on purpose, and a healthy machine that is told it is well."""

from __future__ import annotations

import io
import json
import os
import sys
import tomllib
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from rich.console import Console
from tiny_runs import ROOT, hwdkit

from hwdkit.commands import prepare_data
from hwdkit.commands.doctor import checkup, extras, holdings, limits, surroundings
from hwdkit.commands.doctor import command as doctor
from hwdkit.commands.doctor.findings import REINSTALL, Finding
from hwdkit.commands.recipes.contents import show
from hwdkit.data.index import load_index

FIND = import_module("hwdkit.recipe.find")  # the package has a function of this name
SMALL = {"train": 3, "val": 2, "size": (32, 32)}
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_NNODES")


@pytest.fixture(autouse=True)
def _well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing is wrong, whatever this one is like."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for name in (*RANKS, *surroundings.OURS, *surroundings.THEIRS, *surroundings.OFFLINE, "HWDKIT_DATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setattr(checkup, "NVIDIA", (tmp_path / "nvidiactl",))
    monkeypatch.setattr(limits.shutil, "disk_usage", room(shm=4, disk=100))
    monkeypatch.setattr("resource.getrlimit", lambda _: (4096, 4096))
    # One recipe for the hundred that ship: most tests are about something else.
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "scenes-r10-hwd.yaml").write_text(load_text("scenes-r10-hwd"))
    monkeypatch.setattr(FIND, "shipped", lambda: tmp_path / "shipped")


@cache
def load_text(name: str) -> str:
    """A recipe in one file."""
    return show(name, resolved=True)


def room(*, shm: float, disk: float) -> Callable[[Path], SimpleNamespace]:
    """GiB that are free in shared memory and elsewhere."""

    def usage(place: Path) -> SimpleNamespace:
        free = shm if Path(place) == limits.SHARED_MEMORY else disk
        return SimpleNamespace(total=int(free * 2**30), used=0, free=int(free * 2**30))

    return usage


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A data root with a tiny dataset."""
    prepare_data.run("scenes", root=tmp_path / "data", scenes=SMALL)
    return tmp_path / "data"


def asked(check: Callable[[], Iterable[Finding]]) -> dict[str, Finding]:
    return {finding.name: finding for finding in check()}


def found(name: str, data_root: Path = Path("data")) -> dict[str, Any]:
    """One finding of the whole command, through its JSON document, whose exit code it must explain."""
    outcome = hwdkit("doctor", "--json", "--data-root", data_root)
    findings = outcome.document["findings"]
    problems = [finding["name"] for finding in findings if finding["level"] == "problem"]
    assert outcome.code == (6 if problems else 0)
    if problems:
        assert "error[environment]" in outcome.err
    (finding,) = [finding for finding in findings if finding["name"] == name]
    assert set(problems) <= {name}
    return finding


def test_healthy_machine_exits_0_with_a_complete_document(scenes: Path) -> None:
    outcome = hwdkit("doctor", "--json", "--data-root", scenes)
    document = outcome.document
    assert (outcome.code, outcome.err, document["status"]) == (0, "", "ok")
    assert document["counts"]["problem"] == 0
    sections = dict.fromkeys(finding["section"] for finding in document["findings"])
    expected = ["versions", "extras", "devices", "back ends", "limits", "datasets", "recipes", "environment"]
    assert list(sections) == expected
    assert {f["name"] for f in document["findings"] if f["section"] == "extras"} == extras.EXTRAS.keys()
    names = {finding["name"] for finding in document["findings"]}
    assert names >= {"hwdkit", "python", *checkup.REQUIRED, "torchvision fits", "thop is", "gloo", "nccl"}
    assert names >= {"cores", "threads", "shared memory", "open files", "temporary folder", "ranks"}
    assert names >= {"disk, data root", "disk, here", "scenes", "shipped", "pretrained weights"}
    assert names & {"cuda", "cuda:0"}
    for finding in document["findings"]:
        assert finding.keys() == {"section", "name", "value", "level", "fix", "facts"}
    assert sum(document["counts"].values()) == len(document["findings"])


def test_text_is_readable_in_a_pipe_and_ends_with_the_problems(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text("a: 1\n")
    done = hwdkit("doctor")
    assert done.code == 6, done.err
    assert done.err.startswith("error[environment]: 1 problem: ")
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


def test_every_problem_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(limits.shutil, "disk_usage", room(shm=0.06, disk=0.5))
    monkeypatch.setattr("resource.getrlimit", lambda _: (64, 4096))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    monkeypatch.setenv("RANK", "0")
    result = doctor.run(tmp_path)
    problems = [finding for finding in result["findings"] if finding["level"] == "problem"]
    assert [problem["name"] for problem in problems] == [
        *("threads", "shared memory", "open files", "temporary folder"),
        *("disk, data root", "disk, here", "ranks"),
    ]
    assert all(problem["fix"] for problem in problems)
    failure = doctor.verdict(result)
    assert failure is not None
    assert failure.exit_code == 6
    assert failure.message.startswith("7 problems: threads, shared memory")


def test_notes_are_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.shutil, "disk_usage", room(shm=0.5, disk=5))
    assert found("shared memory")["level"] == "note"
    assert found("disk, here")["level"] == "note"


def test_shipped_recipes_are_counted_once_and_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FIND, "shipped", lambda: ROOT / "recipes")
    monkeypatch.chdir(ROOT)  # where ./recipes are those that ship
    (finding,) = holdings.recipes()
    assert finding.level == "ok"
    assert finding.facts["recipes"] > 100


def test_a_working_directory_that_is_gone_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    (finding,) = doctor.run(tmp_path)["findings"]
    assert (finding["level"], finding["fix"]) == ("problem", "cd")


def test_a_device_that_cannot_be_used_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(_: int) -> None:
        raise RuntimeError("CUDA-capable device(s) is/are busy or unavailable\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", busy)
    finding = asked(checkup.devices)["cuda:0"]
    assert finding.level == "problem"
    assert finding.value.endswith("busy or unavailable")


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("no such\nthing")

    monkeypatch.setattr("resource.getrlimit", broken)
    finding = found("open files")
    assert finding["level"] == "problem"
    assert finding["value"] == "could not be checked: RuntimeError: no such"


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (ModuleNotFoundError("No module named 'packaging'", name="packaging"), "pip install packaging"),
        (ImportError("libcudart.so.13: cannot open shared object file"), REINSTALL),
    ],
)
def test_an_import_that_fails_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, error: ImportError, fix: str
) -> None:
    def broken(_: object) -> None:
        raise error

    monkeypatch.setattr("resource.getrlimit", broken)
    assert found("open files")["fix"] == fix


def test_required_versions_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {of.name: of for of in map(Requirement, project["dependencies"])}
    assert {
        name: next((s.version for s in of.specifier if s.operator == ">="), "0")
        for name, of in wanted.items()
    } == checkup.REQUIRED


def distribution(name: str, version: str, *requires: str) -> None:
    """Install a fake package in front of the real ones."""
    folder = Path("site", f"{name.replace('-', '_')}-{version}.dist-info")
    folder.mkdir(parents=True)
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {of}" for of in requires)]
    (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines, ""]))


def test_an_old_package_is_a_problem() -> None:
    distribution("timm", "0.9.1")
    finding = found("timm")
    assert finding["fix"] == "pip install --upgrade 'timm>=1.0.9'"
    assert finding["facts"] == {"version": "0.9.1"}


def test_a_missing_package_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checkup.REQUIRED, "no-such-package", "3")
    assert found("no-such-package")["fix"] == "pip install 'no-such-package>=3'"


def test_ultralytics_thop_shadows_the_papers_counter() -> None:
    distribution("ultralytics-thop", "2.0.14")
    finding = found("thop is")
    assert finding["level"] == "problem"
    assert "AGPL-3.0" in finding["value"]
    assert finding["fix"].startswith("pip uninstall ultralytics-thop")


@pytest.mark.parametrize(
    ("version", "requires", "says"),
    [
        ("0.99.0", "torch==1.2.3", "it wants torch==1.2.3"),
        ("0.99.0+xyz", "torch", "build, torchvision xyz"),
    ],
)
def test_a_torchvision_of_another_torch_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, version: str, requires: str, says: str
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.0+cpu")
    distribution("torchvision", version, requires)
    finding = found("torchvision fits")
    assert finding["level"] == "problem"
    assert says in finding["value"]


def test_operators_that_do_not_load_are_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "_C.so").write_bytes(b"not a library")
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(checkup, "find_spec", lambda _: spec)
    assert "cannot be loaded" in found("torchvision fits")["value"]


def test_a_driver_without_a_device_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert found("cuda")["level"] == "note", "a machine without a GPU is no problem"
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    assert found("cuda")["level"] == "problem"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert found("cuda")["fix"] == "unset CUDA_VISIBLE_DEVICES"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "this torch is for CPUs" in found("cuda")["value"]


@pytest.mark.parametrize(
    ("kernels", "level"),
    [
        (["sm_80", "sm_90a"], "ok"),
        (["sm_80", "compute_80"], "ok"),
        (["sm_80", "sm_100", "compute_100"], "problem"),
        ([], "ok"),
    ],
)
def test_devices_have_memory_and_capability(
    monkeypatch: pytest.MonkeyPatch, kernels: list[str], level: str
) -> None:
    gpu = SimpleNamespace(name="NVIDIA H200", total_memory=141 * 2**30, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: kernels)
    finding = asked(checkup.devices)["cuda:0"]
    assert finding.value.startswith("NVIDIA H200, 141 GiB, compute capability 9.0")
    assert finding.level == level


def test_several_gpus_need_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert asked(checkup.back_ends)["nccl"].level == "note"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert asked(checkup.back_ends)["nccl"].level == "problem"


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/a/b\n", {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("1:cpu:/x\n", {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ("1:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, None),
        ("nonsense", {}, None),
    ],
)
def test_the_container_may_allow_fewer_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: str, files: dict[str, str], limit: float | None
) -> None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(limits, "OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(limits, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "cores", lambda: 8)
    assert limits.cpu_limit() == limit
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert asked(limits.threads)["cores"].level == ("ok" if limit is None else "note")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert asked(limits.threads)["threads"].level == ("ok" if limit is None else "note")


def test_a_dataset_is_described(scenes: Path) -> None:
    index = load_index(scenes / "scenes")
    facts = found("scenes", scenes)["facts"]
    assert facts["images"] == {"train": 3, "val": 2}
    assert facts["fingerprint"] == index.fingerprint
    assert (facts["missing"], facts["partial"]) == ([], index.partial)
    assert facts["cache"] == {"train": "none", "val": "none"}


def test_files_that_are_gone_make_a_dataset_stale(scenes: Path) -> None:
    last = load_index(scenes / "scenes").splits["val"][-1].label
    (scenes / "scenes" / last).unlink()
    finding = found("scenes", scenes)
    assert finding["level"] == "problem"
    assert finding["facts"]["missing"] == [last]
    again = f"hwdkit prepare-data scenes --data-root {scenes} --train 3 --val 2 --seed 0 --overwrite"
    assert finding["fix"] == again
    assert hwdkit(*again.split()[1:], "--quiet").code == 0
    assert found("scenes", scenes)["facts"]["missing"] == []


def test_an_index_that_cannot_be_read_is_a_problem(scenes: Path) -> None:
    (scenes / "scenes" / "dataset.json").write_text("{}")
    finding = found("scenes", scenes)
    assert finding["facts"] == {"readable": False}
    assert finding["fix"] == f"hwdkit prepare-data scenes --data-root {scenes} --overwrite"


def test_a_cache_of_other_data_is_noted(scenes: Path) -> None:
    prepare_data.run("scenes", root=scenes, scenes=SMALL, cache=True)
    assert found("scenes", scenes)["facts"]["cache"] == {"train": "current", "val": "current"}
    header = scenes / "scenes" / "cache" / "val.json"
    header.write_text(json.dumps({**json.loads(header.read_text()), "key": "0" * 64}))
    finding = found("scenes", scenes)
    assert finding["level"] == "note"
    assert finding["facts"]["cache"]["val"].startswith("is of other data")
    assert finding["fix"] == f"hwdkit prepare-data scenes --data-root {scenes} --cache"


def test_a_broken_recipe_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "mine.yaml").write_text("base: scenes-r10-hwd\nseeed: 1\n")
    monkeypatch.setenv("HWDKIT_RECIPES", str(tmp_path / "more"))
    finding = found("mine")
    assert "unknown key 'seeed'" in finding["value"]
    assert finding["fix"] == "hwdkit recipes validate more/mine.yaml"


def test_a_recipe_folder_that_is_not_there_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWDKIT_RECIPES", "absent")
    assert found("absent")["level"] == "note"


def test_a_misspelt_variable_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWDKIT_DATE", "x")
    assert found("HWDKIT_DATE")["value"].endswith("did you mean HWDKIT_DATA?")


@pytest.mark.parametrize(
    ("variables", "level", "says"),
    [
        ({"RANK": "0"}, "problem", "WORLD_SIZE is not"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "problem", "not within"),
        ({"RANK": "0", "WORLD_SIZE": "1", "SLURM_NTASKS": "4"}, "problem", "contradict"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_NNODES": "2"}, "problem", "no MASTER_ADDR"),
        ({"RANK": "0", "WORLD_SIZE": "8", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, "note", "rank 0 of 8"),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, "note", "rank 1 of 4"),
        ({"RANK": "0", "WORLD_SIZE": "4", "SLURM_NTASKS": "4"}, "note", "rank 0 of 4"),
        ({"SLURM_NTASKS": "4"}, "ok", "one process"),
    ],
)
def test_ranks_that_contradict_each_other_are_a_problem(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], level: str, says: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    finding = asked(surroundings.ranks)["ranks"]
    assert finding.level == level
    assert says in finding.value


def test_weights_lie_where_huggingface_puts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "huggingface" / "hub" / "models--timm--resnet18").mkdir(parents=True)
    facts = found("pretrained weights")["facts"]
    assert facts == {"path": str(tmp_path / "huggingface" / "hub"), "models": 1, "offline": []}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert found("pretrained weights")["level"] == "note"
    monkeypatch.delenv("HF_HUB_OFFLINE")
    (tmp_path / "file").touch()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "file"))
    assert found("pretrained weights")["level"] == "problem"


def test_names_cannot_command_a_terminal() -> None:
    row = {
        "section": "datasets",
        "level": "note",
        "name": "[red]a\x1b[2J",
        "value": "b\x1b[3J\udcff",
        "fix": "\x07",
    }
    page = Console(record=True, width=80, file=io.StringIO())
    page.print(doctor.render({"counts": {"note": 1}, "findings": [row]}))
    text = page.export_text()
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]a\ufffd[2J" in text


def test_a_package_that_is_installed_and_does_not_load_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hwdkit.models.backbone", None)  # importing it fails now
    finding = asked(checkup.imports)["timm loads"]
    assert finding.level == "problem"
    assert finding.fix == "pip install --force-reinstall timm"
    assert asked(checkup.imports)["pillow loads"].level == "ok"


def test_extras_and_their_versions_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {
        name: {of.name: str(of.specifier).removeprefix(">=") for of in map(Requirement, listed)}
        for name, listed in project["optional-dependencies"].items()
        if name not in ("test", "dev")
    }
    assert {name: extra.packages for name, extra in extras.EXTRAS.items()} == wanted


def test_an_extra_that_is_not_installed_is_no_fault_and_says_what_it_is_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extras, "_version", lambda _: None)
    finding = found("video")
    assert finding["level"] == "ok"
    assert "not installed; for films in hwdkit predict" in finding["value"]
    assert finding["fix"] == "pip install --upgrade 'hwdkit[video]'"
    assert finding["facts"]["versions"] == {"av": None}


def test_an_extra_that_is_half_there_or_too_old_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"onnx": "1.17", "onnxruntime": "1.2", "av": "14.0"}
    monkeypatch.setattr(extras, "_version", there.get)
    notes = asked(extras.extras)
    assert notes["onnx"].level == "note"
    assert notes["onnx"].value.startswith("no onnxscript, onnxruntime 1.2 is too old")
    assert (notes["video"].level, notes["video"].fix) == ("ok", "")


def test_a_data_root_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert found("prepared", tmp_path / "file")["value"] == f"{tmp_path / 'file'} is a file, not a folder"
    for root, complaint in ((tmp_path / "file" / "x", "is a file"), (tmp_path / ("a" * 300), "too long")):
        outcome = hwdkit("doctor", "--data-root", root)
        assert outcome.code == 2
        assert complaint in outcome.err


def test_a_command_to_type_survives_blanks_in_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(limits.shutil, "disk_usage", room(shm=4, disk=0.5))
    (tmp_path / "my data").mkdir()
    assert limits.disk("disk", tmp_path / "my data").fix.startswith(f"du -sh '{tmp_path}/my data'/*")
