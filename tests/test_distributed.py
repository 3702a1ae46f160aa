"""Two gloo processes equal one, and what the environment says about ranks."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hwdkit.distributed import (
    GlooSyncBatchNorm,
    Ranks,
    any_rank,
    environment,
    mean_over_ranks,
    started,
    sum_over_ranks,
    sync_batchnorm_on_cpu,
)
from hwdkit.errors import EnvironmentFailure

SCRIPT = Path(__file__).with_name("gloo_jobs.py")
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SLURM = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_NNODES")


@pytest.fixture(scope="module")
def jobs() -> ModuleType:
    specification = importlib.util.spec_from_file_location("gloo_jobs", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def one(jobs: ModuleType) -> dict[str, Any]:
    """What one process gets."""
    result: dict[str, Any] = jobs.run_all(Ranks(0, 1, torch.device("cpu")))
    return result


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes gets."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SLURM_")},
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(SCRIPT.parent.parent), os.environ.get("PYTHONPATH", "")]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder)],
            env={**shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def assert_near(ours: dict[str, Tensor], theirs: dict[str, Tensor], *, rtol: float, atol: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(
            value, theirs[name], rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.distributed
@pytest.mark.parametrize("job", ["distilled", "accumulated", "without_auxiliary_loss"])
def test_two_processes_train_the_network_that_one_trains(job: str, one: Any, two: Any) -> None:
    """Float sums in another order: after a few steps the weights differ by 2e-7 (measured), none by 2e-6."""
    for key in ("weights", "average"):
        assert_near(two[0][job][key], one[job][key], rtol=1e-5, atol=2e-6)
        assert_near(two[1][job][key], two[0][job][key], rtol=0, atol=0)


@pytest.mark.distributed
@pytest.mark.parametrize("job", ["related", "contested"])
def test_projectors_queues_and_critics_are_the_same_for_two_processes_as_for_one(
    job: str, one: Any, two: Any
) -> None:
    ours, theirs = two[0][job]["weights"], one[job]["weights"]
    assert any(name.startswith("losses.") for name in ours)
    assert_near(two[1][job]["weights"], ours, rtol=0, atol=0)
    assert_near(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.distributed
def test_a_gradient_penalty_is_that_of_the_whole_batch(one: Any, two: Any) -> None:
    assert_near(two[0]["penalised"], one["penalised"], rtol=1e-6, atol=1e-10)
    assert_near(two[1]["penalised"], two[0]["penalised"], rtol=0, atol=0)


@pytest.mark.distributed
@pytest.mark.parametrize("job", ["distilled", "accumulated"])
def test_two_processes_log_the_losses_that_one_logs(job: str, one: Any, two: Any) -> None:
    for rank in (0, 1):
        assert len(two[rank][job]["rows"]) == len(one[job]["rows"])
        for ours, theirs in zip(two[rank][job]["rows"], one[job]["rows"], strict=True):
            for key in ("step", "lr", "loss", "loss_ce", "loss_hwd", "loss_cwd"):
                assert ours[key] == pytest.approx(theirs[key], rel=5e-5), key


@pytest.mark.distributed
def test_two_processes_fit_the_module_that_one_fits(one: Any, two: Any) -> None:
    ours, theirs = two[0]["fitted"], one["fitted"]
    assert_near(ours["weights"], theirs["weights"], rtol=1e-5, atol=2e-6)
    assert_near(two[1]["fitted"]["weights"], ours["weights"], rtol=0, atol=0)
    assert all(result["fitted"]["given_back"] for result in (one, *two))
    assert ours["frozen"] == theirs["frozen"] == ["1.weight", "1.bias"]
    assert two[1]["fitted"]["evaluated"] == ours["evaluated"]
    assert ours["evaluated"].images == 5
    assert ours["evaluated"].miou == ours["last"]["miou"] == pytest.approx(theirs["last"]["miou"], abs=1e-3)


@pytest.mark.distributed
def test_a_mistake_that_the_main_rank_finds_is_everyones(one: Any, two: Any) -> None:
    told = ["already used", "run", "choose another"]
    assert [one["failed_on_main"], two[0]["failed_on_main"], two[1]["failed_on_main"]] == [told] * 3


@pytest.mark.distributed
def test_every_reduction_of_kd_means_the_same_over_ranks(one: Any, two: Any) -> None:
    for rank in (0, 1):
        assert two[rank]["every_reduction"] == pytest.approx(one["every_reduction"], rel=1e-5)


@pytest.mark.distributed
def test_all_ranks_leave_at_the_same_step_when_one_is_told_to_stop(one: Any, two: Any) -> None:
    assert one["stopped_elsewhere"] == 1
    assert two[0]["stopped_elsewhere"] == two[1]["stopped_elsewhere"] == 10


@pytest.mark.distributed
def test_all_ranks_name_the_term_that_diverged_on_one(two: Any) -> None:
    assert [two[rank]["diverged_elsewhere"] for rank in (0, 1)] == [
        "loss ce became non-finite at or before step 1"
    ] * 2


def _together(two: list[dict[str, Any]], job: str) -> dict[str, Tensor]:
    """Both ranks' results as one: images side by side, parameter gradients summed."""
    parts = [two[rank][job] for rank in (0, 1)]
    joined = {name: torch.cat([part[name] for part in parts]) for name in ("output", "input_gradient")}
    summed = {name: parts[0][name] + parts[1][name] for name in ("weight_gradient", "bias_gradient")}
    states = {name: value for name, value in parts[0].items() if name.startswith("state.")}
    for name, value in states.items():
        assert torch.equal(value, parts[1][name]), name
    return {**joined, **summed, **states}


@pytest.mark.distributed
def test_shared_batch_norm_is_batch_norm_of_the_whole_batch(one: Any, two: Any) -> None:
    """Outputs, gradients and running statistics, with means a thousand times the deviation."""
    assert_near(_together(two, "batch_norm"), one["batch_norm"], rtol=1e-4, atol=2e-4)


@pytest.mark.distributed
def test_shared_batch_norm_takes_bf16_statistics_in_float32(one: Any, two: Any) -> None:
    ours, theirs = _together(two, "batch_norm_bf16"), one["batch_norm_bf16"]
    assert ours["output"].dtype == torch.bfloat16
    assert_near(ours, theirs, rtol=2e-2, atol=5e-2)
    for name in ("state.running_mean", "state.running_var"):
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-4)


@pytest.mark.distributed
def test_shared_batch_norm_keeps_the_activation_of_mobilenet(one: Any, two: Any) -> None:
    logits = torch.cat([two[rank]["mobilenet"] for rank in (0, 1)])
    torch.testing.assert_close(logits, one["mobilenet"], rtol=1e-3, atol=1e-4)


@pytest.mark.distributed
def test_each_image_is_counted_once_by_two_processes(one: Any, two: Any) -> None:
    assert one["evaluated"]["images"] == 5
    assert two[0]["evaluated"] == one["evaluated"]
    assert two[1]["evaluated"] == one["evaluated"]


@pytest.mark.distributed
def test_any_rank_speaks_for_all(two: Any) -> None:
    assert two[0]["agreed"] == two[1]["agreed"] == [True, False, True]


def test_one_process_needs_no_group() -> None:
    cpu = torch.device("cpu")
    assert any_rank(True, cpu)
    assert not any_rank(False, cpu)
    value = torch.tensor([1.0, 2.0])
    assert sum_over_ranks(value) is value
    assert mean_over_ranks(value) is value


def test_replacing_batch_norm_keeps_names_values_and_eval_outputs(jobs: ModuleType) -> None:
    model = jobs.network(3, backbone="mobilenetv2_035", backbone_options={}, aux=False)
    image = jobs.global_batch(0).image
    model(image)
    frozen = model.backbone.bn1.requires_grad_(False).weight
    with torch.no_grad():
        before, state = model.eval()(image).logits, model.state_dict()
        shared = sync_batchnorm_on_cpu(model)
        assert torch.equal(shared(image).logits, before)
        assert shared.train()(image).logits.isfinite().all(), "one process needs no group"
    assert shared.eval().backbone.bn1.weight is frozen
    assert not frozen.requires_grad
    assert list(shared.state_dict()) == list(state)
    norms = [module for module in shared.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(isinstance(module, GlooSyncBatchNorm) and not module.training for module in norms)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*VARIABLES, *SLURM):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 0, 1)),
        ({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}, (3, 1, 4)),
        ({"RANK": "3", "WORLD_SIZE": "4"}, (3, 0, 4)),
        ({"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8"}, (5, 1, 8)),
        ({"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (1, 0, 2)),
        ({"SLURM_NTASKS": "8"}, (0, 0, 1)),
    ],
)
def test_torchrun_and_slurm_say_which_process_this_is(
    clean: pytest.MonkeyPatch, variables: dict[str, str], expected: tuple[int, int, int]
) -> None:
    for name, value in variables.items():
        clean.setenv(name, value)
    assert environment() == expected


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"RANK": "4", "WORLD_SIZE": "4"}, "RANK=4"),
        ({"RANK": "-1", "WORLD_SIZE": "4"}, "RANK=-1"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE=0"),
        ({"RANK": "0"}, "WORLD_SIZE is not"),
        ({"WORLD_SIZE": "2"}, "RANK is not"),
        ({"RANK": "first", "WORLD_SIZE": "2"}, "'first' is not a number"),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "2"}, "SLURM_PROCID=2"),
    ],
)
def test_contradictions_are_failures_of_the_environment(
    clean: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    for name, value in variables.items():
        clean.setenv(name, value)
    with pytest.raises(EnvironmentFailure, match=named) as caught:
        environment()
    assert caught.value.exit_code == 6


def test_several_slurm_nodes_must_say_where_they_meet(clean: pytest.MonkeyPatch) -> None:
    """Each would wait for the others on its own 127.0.0.1 until the time-out."""
    for name, value in {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_NNODES": "2"}.items():
        clean.setenv(name, value)
    with pytest.raises(EnvironmentFailure, match="MASTER_ADDR"), started(cpu=True):
        pass


def test_a_single_process_starts_without_a_group(clean: pytest.MonkeyPatch) -> None:
    with started(cpu=True) as ranks:
        assert ranks == Ranks(0, 1, torch.device("cpu"))
        assert ranks.is_main
        assert not torch.distributed.is_initialized()
