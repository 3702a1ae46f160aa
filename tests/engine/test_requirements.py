"""What a machine cannot do is refused; what is compiled is the same run under the same names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hwdkit.distributed import Ranks
from hwdkit.engine import build
from hwdkit.engine.loop import Hooks, Training, fit
from hwdkit.engine.requirements import require_compiler
from hwdkit.errors import EnvironmentFailure
from hwdkit.kernels import choice
from hwdkit.models.segmenter import Segmenter
from hwdkit.recipe.load import loads_resolved
from hwdkit.recipe.schema import Recipe
from hwdkit.types import Batch

ONE = Ranks(0, 1, torch.device("cpu"))


def recipe(compiles: bool) -> Recipe:
    return loads_resolved(
        "name: tiny\ndata: {dataset: scenes}\nteacher: {checkpoint: none.safetensors}\n"
        "student: {backbone: resnet18}\nlosses: {hwd: {}, cwd: {tap: stage4, teacher_tap: stage4}}\n"
        f"train: {{iterations: 2, log_every: 1, ema: 0.9, compile: {str(compiles).lower()}}}\n"
    )


def started(compiles: bool, student: Segmenter, teacher: Segmenter) -> tuple[Training, Any]:
    for module in student.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # compiled code draws other random numbers
    run = build.training(recipe(compiles), student, ONE, teacher)
    return run, build.teach(recipe(compiles).train, teacher, run.objective, ONE)


def test_without_a_compiler_a_run_is_refused_before_it_begins(
    monkeypatch: pytest.MonkeyPatch, network: Callable[..., Segmenter]
) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++")
    with pytest.raises(EnvironmentFailure, match="there is no /nowhere/g"):
        started(True, network(), network())
    started(False, network(), network())


def test_a_gpu_needs_triton_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "true")  # a program that is everywhere
    monkeypatch.setattr("hwdkit.engine.requirements.find_spec", lambda name: None)
    require_compiler(torch.device("cpu"))
    with pytest.raises(EnvironmentFailure, match="triton"):
        require_compiler(torch.device("cuda"))


def test_tritons_kernels_need_a_gpu_and_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    section = recipe(False).train.model_copy(update={"kernels": "triton"})
    with pytest.raises(EnvironmentFailure, match="kernels: triton needs a GPU"):
        build.require_possible(section, torch.device("cpu"))
    monkeypatch.setattr("hwdkit.engine.requirements.find_spec", lambda name: object())
    monkeypatch.setenv("CC", "true")  # a program that is everywhere
    build.require_possible(section, torch.device("cuda"))
    monkeypatch.setenv("CC", "/nowhere/gcc")
    with pytest.raises(EnvironmentFailure, match="there is no /nowhere/gcc"):
        build.require_possible(section, torch.device("cuda"))
    monkeypatch.setattr("hwdkit.engine.requirements.find_spec", lambda name: None)
    with pytest.raises(EnvironmentFailure, match="needs the package triton"):
        build.require_possible(section, torch.device("cuda"))


def test_the_next_run_of_a_process_chooses_its_own_kernels(network: Callable[..., Segmenter]) -> None:
    choice.choose("triton")
    started(False, network(), network())
    assert choice._Chosen.kernels == "torch"


def test_a_compiled_network_is_saved_under_its_own_names(
    monkeypatch: pytest.MonkeyPatch, network: Callable[..., Segmenter]
) -> None:
    monkeypatch.setenv("CXX", "true")  # nothing is compiled before the first step
    plain, compiled = (started(compiles, network(), network())[0] for compiles in (False, True))
    assert list(compiled.objective.state_dict()) == list(plain.objective.state_dict())
    assert compiled.ema is not None
    assert list(compiled.ema.average) == list(compiled.objective.student.state_dict())
    compiled.load_state_dict(plain.state_dict())
    with compiled.ema.applied_to(compiled.objective.student):
        pass


@pytest.mark.slow
def test_a_compiled_run_takes_the_steps_of_a_plain_one(
    network: Callable[..., Segmenter], batch: Callable[..., Batch]
) -> None:
    rows: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for compiles in rows:
        pair = (network(seed, head="fcn", aux=False, output_stride=32) for seed in (1, 2))
        run, teach = started(compiles, *pair)
        hooks = Hooks(log=rows[compiles].append, evaluate=lambda step: None, save=lambda: None)
        fit(run, iter([[batch(3)]] * 2), teach, plan=build.plan(recipe(compiles)), hooks=hooks, ranks=ONE)
    for plain, compiled in zip(rows[False], rows[True], strict=True):
        for name in (key for key in plain if key.startswith("loss")):
            assert compiled[name] == pytest.approx(plain[name], rel=1e-4)
