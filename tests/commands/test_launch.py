"""Who launches processes, and how many; that they work together is tests/test_distributed.py."""

from __future__ import annotations

import pytest
import torch

from hwdkit.errors import EnvironmentFailure
from hwdkit.terminal.launch import Launch, is_worker

VARIABLES = ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"RANK": "0", "WORLD_SIZE": "1"}, True),
        ({"RANK": "1", "WORLD_SIZE": "2"}, True),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, False),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, True),
        ({"SLURM_NTASKS": "2"}, False),  # the shell of an allocation
    ],
)
def test_a_process_that_was_launched_knows_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: bool
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_worker() is expected


def test_the_cpu_runs_one_process_unless_more_are_asked_for() -> None:
    assert Launch(gpus="0").processes() == 1
    assert Launch(gpus="0", ranks=3).processes() == 3
    assert Launch(gpus="0").cpu
    assert not Launch().cpu


def test_more_gpus_than_there_are_is_a_failure_of_the_environment() -> None:
    with pytest.raises(EnvironmentFailure, match="visible") as caught:
        Launch(gpus=str(torch.cuda.device_count() + 1)).processes()
    assert "--gpus 0" in caught.value.hint
