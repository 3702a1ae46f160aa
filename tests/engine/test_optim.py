"""Optimizers, the schedule and the averaged weights, against sums done by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hwdkit.engine.optim import EMA, optimizer, poly_schedule, set_lr


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def test_the_poly_schedule_starts_at_the_base_rate_and_never_reaches_zero() -> None:
    at = poly_schedule(lr=0.02, power=0.9, iterations=10)
    rates = [at(step) for step in range(10)]
    assert rates[0] == 0.02
    assert rates[5] == pytest.approx(0.02 * 0.5**0.9)
    assert rates[9] == pytest.approx(0.02 * 0.1**0.9)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > 0


def test_power_zero_is_a_constant_rate() -> None:
    at = poly_schedule(lr=0.02, power=0, iterations=3)
    assert [at(step) for step in range(3)] == [0.02] * 3


def test_warm_up_climbs_linearly_and_meets_the_poly_curve() -> None:
    warm = poly_schedule(lr=1.0, power=0.9, iterations=100, warmup=4)
    plain = poly_schedule(lr=1.0, power=0.9, iterations=100)
    shares = [warm(step) / plain(step) for step in range(6)]
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_set_lr_reaches_every_group() -> None:
    first, second = small().parameters(), small().parameters()
    sgd = torch.optim.SGD([{"params": list(first)}, {"params": list(second), "lr": 3.0}], lr=1.0)
    set_lr(sgd, 0.25)
    assert [group["lr"] for group in sgd.param_groups] == [0.25, 0.25]


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_fused_optimizer_steps_like_the_plain_one(name: str, kind: type[torch.optim.Optimizer]) -> None:
    ours, theirs = small().double(), small().double()
    options = {"momentum": 0.8} if name == "sgd" else {"betas": (0.8, 0.99)}
    fused = optimizer(ours.named_parameters(), name=name, lr=0.1, weight_decay=0.01, **options)  # type: ignore[arg-type]
    plain = kind(theirs.parameters(), lr=0.1, weight_decay=0.01, foreach=False, **options)  # type: ignore[call-arg]
    for step in range(3):
        image = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(step)).double()
        for network, steps in ((ours, fused), (theirs, plain)):
            steps.zero_grad()
            network(image).square().mean().backward()
            steps.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


class Goal(nn.Module):
    """The names that an `Objective` gives."""

    def __init__(self) -> None:
        super().__init__()
        self.student = nn.ModuleDict({"backbone": small(), "head": small()})
        self.student["backbone"].register_parameter("pos_embed", nn.Parameter(torch.ones(1, 2, 3)))
        self.projector = nn.Linear(2, 3)


def test_by_default_all_parameters_are_one_group() -> None:
    (group,) = optimizer(Goal().named_parameters(), name="adamw", lr=0.1, weight_decay=0.2).param_groups
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.1, 0.2, 11)


def test_a_head_learns_at_its_own_rate_and_norms_are_spared_from_decay() -> None:
    goal = Goal()
    made = optimizer(
        goal.named_parameters(), name="sgd", lr=0.1, weight_decay=0.2, head_lr=10, decay_norms=False
    )
    set_lr(made, 0.01)
    found = {
        key: (group["lr"], group["weight_decay"])
        for group in made.param_groups
        for key, parameter in goal.named_parameters()
        if any(parameter is member for member in group["params"])
    }
    assert found == {
        "student.backbone.pos_embed": (0.01, 0.0),
        "student.backbone.0.weight": (0.01, 0.2),
        "student.backbone.0.bias": (0.01, 0.0),
        "student.backbone.1.weight": (0.01, 0.0),
        "student.backbone.1.bias": (0.01, 0.0),
        "student.head.0.weight": (0.1, 0.2),
        "student.head.0.bias": (0.1, 0.0),
        "student.head.1.weight": (0.1, 0.0),
        "student.head.1.bias": (0.1, 0.0),
        "projector.weight": (0.1, 0.2),
        "projector.bias": (0.1, 0.0),
    }


def test_frozen_parameters_are_not_optimised() -> None:
    network = small()
    network[0].requires_grad_(False)
    sgd = optimizer(network.named_parameters(), name="sgd", lr=0.1, weight_decay=0.1)
    assert len(sgd.param_groups[0]["params"]) == 2


def test_the_average_moves_by_one_minus_decay_and_buffers_are_copied() -> None:
    network = small()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    ema = EMA(network, 0.9)
    network(torch.rand(2, 3, 4, 4))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    ema.update(network)
    after = network.state_dict()
    for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
        torch.testing.assert_close(ema.average[name], before[name] + 0.1)
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(ema.average[name], after[name])
        assert not torch.equal(ema.average[name], before[name])


def test_the_average_is_independent_of_the_network_that_it_began_with() -> None:
    network = small()
    ema = EMA(network, 0.9)
    kept = ema.average["0.weight"].clone()
    nn.init.zeros_(network[0].weight)
    assert torch.equal(ema.average["0.weight"], kept)


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_gets_its_own_weights_back_even_after_an_error(fails: bool) -> None:
    network = small()
    ema = EMA(network, 0.5)
    network(torch.rand(2, 3, 4, 4))
    nn.init.zeros_(network[0].weight)
    own = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    average = {name: tensor.clone() for name, tensor in ema.average.items()}

    def visit() -> None:
        with ema.applied_to(network):
            assert torch.equal(network[0].weight, average["0.weight"])
            if fails:
                raise ZeroDivisionError

    if fails:
        with pytest.raises(ZeroDivisionError):
            visit()
    else:
        visit()
    assert all(torch.equal(tensor, own[name]) for name, tensor in network.state_dict().items())
    assert all(torch.equal(tensor, average[name]) for name, tensor in ema.average.items())


def test_the_average_comes_back_from_its_state() -> None:
    first, second = EMA(small(), 0.9), EMA(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), 0.9)
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(second.average[name], first.average[name]) for name in first.average)
    second.average["0.weight"].zero_()
    assert first.average["0.weight"].any()
