"""The training loop. READ FIRST: everything else in hwdkit exists to be called from `fit`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hwdkit.distributed import Ranks, any_rank
from hwdkit.engine.meter import AFTER_DIVERGING, Meter
from hwdkit.engine.objectives import Objective, Teach
from hwdkit.engine.optim import EMA, set_lr
from hwdkit.errors import DivergedError
from hwdkit.types import Batch

SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")  # new torch deprecates the latter
    if name in inspect.signature(DistributedDataParallel).parameters
)
"""DDP's option to send the buffers of the main rank to all before every forward."""


@dataclass
class Training:
    """Everything that changes from step to step: what a checkpoint must hold to continue exactly.

    There is no random state in it: the randomness of a step is a function of seed, step and rank.
    """

    objective: Objective
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: EMA | None = None
    step: int = 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        self.step = state["step"]


@dataclass(frozen=True)
class Plan:
    """The numbers that steer `fit`; see recipe sections `train` and `optimizer`."""

    iterations: int
    schedule: Callable[[int], float]
    seed: int
    log_every: int
    evaluate_every: int
    save_every: int
    amp: torch.dtype | None = None
    clip_grad_norm: float | None = None


@dataclass(frozen=True)
class Hooks:
    """What happens beside training. `stop` says whether to leave after this step (signal, time limit)."""

    log: Callable[[dict[str, float]], None]
    evaluate: Callable[[int], None]
    save: Callable[[], None]
    stop: Callable[[], bool] = field(default=lambda: False)


def fit(
    run: Training,
    stream: Iterator[Sequence[Batch]],
    teach: Teach | None,
    *,
    plan: Plan,
    hooks: Hooks,
    ranks: Ranks,
) -> bool:
    """Train from `run.step` to `plan.iterations`.

    Args:
        run: the state; advanced in place, one step at a time.
        stream: this rank's share of every step's batch, cut into micro-batches; begins at `run.step`.
        teach: the frozen teacher, or None for supervised training.
        plan: how long, how fast, how often.
        hooks: logging, evaluation, saving, stopping.
        ranks: which process this is.

    Returns:
        True when all iterations are done, False when `hooks.stop` ended it early (the state is saved).

    Raises:
        DivergedError: a loss term or a weight is not finite; nothing is saved after that.
    """
    objective: nn.Module = run.objective
    if ranks.world > 1:
        # Buffers are equal everywhere already, and a queue of features has hundreds of MiB.
        unsynced: dict[str, Any] = {SYNC_BUFFERS: False}
        objective = DistributedDataParallel(
            run.objective,
            device_ids=[ranks.device] if ranks.device.type == "cuda" else None,
            **unsynced,
        )
    objective.train()
    meter = Meter()

    while run.step < plan.iterations:
        torch.manual_seed(_step_seed(plan.seed, run.step, ranks.rank))
        lr, progress = plan.schedule(run.step), run.step / plan.iterations
        set_lr(run.optimizer, lr)

        # (a) gradients of this step's batch, micro-batch by micro-batch
        batches = next(stream)
        for position, batch in enumerate(batches):
            batch = _on_device(batch, ranks.device)
            last = position == len(batches) - 1
            with _synchronising(objective, last):
                hints = teach(batch.image) if teach else None
                with torch.autocast(ranks.device.type, dtype=plan.amp, enabled=plan.amp is not None):
                    terms = objective(batch, hints, progress)
                loss = torch.stack(list(terms.values())).sum() / len(batches)
                run.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            meter.add(terms, images=len(batch.image), micro_batches=len(batches))

        # (b) update the student and what is trained along, then any critics on what they have just seen
        run.scaler.unscale_(run.optimizer)
        if plan.clip_grad_norm:
            nn.utils.clip_grad_norm_(run.objective.parameters(), plan.clip_grad_norm)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.optimizer.zero_grad(set_to_none=True)
        if run.ema:
            run.ema.update(run.objective.student)
        meter.add_critics(run.objective.update_critics(progress))
        run.step += 1

        # (c) log, evaluate, save: reading the meter is the only host synchronisation, and finds a NaN by name
        done = run.step == plan.iterations
        stopped = not done and _stop_now(hooks, run.step, ranks)
        saves = done or stopped or run.step % plan.save_every == 0
        evaluates = done or run.step % plan.evaluate_every == 0
        if saves or evaluates or run.step % plan.log_every == 0:
            hooks.log({"step": run.step, "lr": lr, **meter.read(run.step, ranks.world)})
        if saves or evaluates:
            _require_finite(run)
        if evaluates:
            hooks.evaluate(run.step)
            objective.train()
        if saves:
            hooks.save()
        if saves or evaluates:
            meter.reset()  # their time is not training time
        if stopped:
            return False
    return True


def _on_device(batch: Batch, device: torch.device) -> Batch:
    """Labels travel as uint8, an eighth of the bytes, and become class indices where they are used."""
    image, label = (tensor.to(device, non_blocking=True) for tensor in batch)
    return Batch(image, label.long())


def _require_finite(run: Training) -> None:
    """Finite losses can hide a last update that was not: such weights must not replace a good checkpoint.

    Raises:
        DivergedError: naming the first weight or batch-norm statistic that is not finite.
    """
    state = {
        name: value
        for name, value in run.objective.state_dict().items()
        if isinstance(value, Tensor) and value.is_floating_point()  # a critic's optimizer is no tensor
    }
    finite = torch.stack([value.isfinite().all() for value in state.values()]).tolist()
    broken = [name for name, good in zip(state, finite, strict=True) if not good]
    if broken:
        raise DivergedError(
            f"{len(broken)} of {len(finite)} weights became non-finite at step {run.step}, first {broken[0]}",
            hint=AFTER_DIVERGING,
        )


def _step_seed(seed: int, step: int, rank: int) -> int:
    """Dropout and friends depend on the step alone, so a resumed run needs no saved random state."""
    return ((seed * 1_000_003 + step) * 65_537 + rank) % 2**63  # manual_seed takes no more bits


def _synchronising(objective: nn.Module, last: bool) -> AbstractContextManager[None]:
    """DDP sums gradients over ranks in the last micro-batch only."""
    if isinstance(objective, DistributedDataParallel) and not last:
        waiting: AbstractContextManager[None] = objective.no_sync()
        return waiting
    return nullcontext()


def _stop_now(hooks: Hooks, step: int, ranks: Ranks) -> bool:
    """With several ranks all must leave at the same step, and asking costs a sync: every tenth step."""
    if ranks.world == 1:
        return hooks.stop()
    return step % 10 == 0 and any_rank(hooks.stop(), ranks.device)
