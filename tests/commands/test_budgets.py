"""Budgets: numbers as people write them, and verdicts that say how far off a network is."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_runs import hwdkit

from hwdkit.commands.profile.budgets import gate, parse, verdicts
from hwdkit.errors import UsageError


@pytest.mark.parametrize(
    ("text", "params"),
    [("14M", 14e6), ("1.5g", 1.5e9), ("900K", 9e5), ("13459155", 13_459_155), (".5M", 5e5)],
)
def test_parameters_take_suffixes(text: str, params: float) -> None:
    assert parse(text, None, None)["max_params"] == pytest.approx(params)


@pytest.mark.parametrize(("text", "macs"), [("70", 70e9), ("70G", 70e9), ("500M", 5e8), ("0.5", 5e8)])
def test_a_bare_number_of_macs_means_giga(text: str, macs: float) -> None:
    assert parse(None, text, None)["max_macs"] == pytest.approx(macs)


@pytest.mark.parametrize("text", ["", "0", "-1M", "14T", "M", "1e6", "nan", "fourteen"])
def test_what_is_no_positive_number_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="--max-params"):
        parse(text, None, None)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_latency_must_be_positive_and_finite(value: float) -> None:
    with pytest.raises(UsageError, match="--max-latency-ms"):
        parse(None, None, value)


def row(params: int, macs: int, latency: float | None = None) -> dict[str, Any]:
    timed = None if latency is None else {"median_ms": latency}
    where = {"network": "student", "height": 512, "width": 512}
    return {**where, "params_deployed": params, "macs_deployed": {"true": macs}, "latency": timed}


def test_a_bound_that_is_just_reached_is_met() -> None:
    found = verdicts({"max_params": 100, "max_macs": 200, "max_latency_ms": 3}, [row(100, 200, 3.0)])
    assert [verdict["met"] for verdict in found] == [True, True, True]
    assert gate(found) is None


def test_the_gate_names_every_missed_bound_and_by_how_much() -> None:
    found = verdicts(
        {"max_params": 10e6, "max_macs": 70e9}, [row(13_500_000, 64 * 10**9), row(9, 77 * 10**9)]
    )
    assert [verdict["met"] for verdict in found] == [False, True, True, False]
    error = gate(found)
    assert error is not None
    assert error.exit_code == 9
    assert "13.500 M deployed parameters, 3.5 (35.0%) over --max-params 10M" in error.message
    assert "77.000 GMACs deployed, 7 (10.0%) over --max-gmacs 70" in error.message
    assert "under" not in error.message


LINE = ["profile", "-r", "scenes-r10-hwd", "--input", "32x32", "--counter", "torch", "--gpus", 0]


def test_a_missed_budget_exits_9_and_the_table_is_printed_all_the_same() -> None:
    done = hwdkit(*LINE, "--max-params", "100K", "--max-gmacs", 1)
    assert done.code == 9
    assert "error[gate]: student deeplabv3 resnet18 at 32x32" in done.err
    assert "GMACs torch" in done.out
    assert "budget missed: student" in done.out
    assert "budget met: student" in done.out
    assert done.out.count("budget") == 2  # the teacher, far above 100K parameters, is not bound


@pytest.mark.parametrize(
    ("role", "bound"), [("both", ["student", "teacher"]), ("teacher", ["teacher"]), ("student", ["student"])]
)
def test_a_role_that_is_named_is_the_one_that_is_bound(role: str, bound: list[str]) -> None:
    done = hwdkit(*LINE, "--role", role, "--max-params", "1M", "--json")
    found = done.document["budgets"]
    assert [verdict["network"].split()[0] for verdict in found] == bound
    assert done.code == (0 if bound == ["student"] else 9)
    assert done.document["status"] == ("ok" if done.code == 0 else "error")
    assert len(done.document["profiles"]) == len(bound)


def test_a_latency_budget_measures_the_latency() -> None:
    done = hwdkit(*LINE, "--role", "student", "--max-latency-ms", 1e-3, "--iters", 1, "--warmup", 0)
    assert done.code == 9
    assert "median ms" in done.out
    assert "over --max-latency-ms 0.001" in done.err


def test_a_recipe_without_a_student_is_bound_by_its_teacher() -> None:
    line = ["profile", "-r", "scenes-r18-teacher", "--input", "32x32", "--counter", "torch", "--gpus", 0]
    assert hwdkit(*line, "--max-params", "1M").code == 9
