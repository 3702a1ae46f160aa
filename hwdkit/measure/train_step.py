"""What one training step costs: time and peak memory of the whole step and of its parts."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hwdkit.distributed import Ranks
from hwdkit.engine.loop import Hooks, Plan, Training, fit
from hwdkit.engine.objectives import Teach
from hwdkit.measure.latency import percentile, synchronise, timed
from hwdkit.measure.memory import MIB, bytes_of, peak_bytes
from hwdkit.types import Batch, SegOutput

Kind = Literal["teacher", "student", "loss", "optimizer", "critic"]
NEVER = 10**12


@dataclass(frozen=True)
class Part:
    """One part of a step; a loss is its forward and backward, down to the maps of the student.

    Attributes:
        kind, name: what it is, e.g. "loss", "hwd".
        median_ms, p95_ms: of all micro-batches of a step together.
        share: median over the whole step's median; the shares need not add up to 1.
        peak_mib: how much more than at its own beginning was allocated at its worst moment.
    """

    kind: Kind
    name: str
    median_ms: float
    p95_ms: float
    share: float
    peak_mib: float


@dataclass(frozen=True)
class TrainStep:
    """What one optimizer step costs, without loading data.

    Attributes:
        batch: images of a step, all micro-batches together.
        peak_mib: most that tensors held at once, `held_mib` included.
        held_mib: what lives between steps: networks, losses, optimizers' states, averaged weights, the batch.
        repeats: how many steps were timed.
    """

    batch: int
    micro_batches: int
    median_ms: float
    p95_ms: float
    images_per_s: float
    peak_mib: float
    held_mib: float
    repeats: int
    parts: tuple[Part, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the measurement as JSON-ready values."""
        return dataclasses.asdict(self)


def measure_train_step(
    run: Training,
    batches: Sequence[Batch],
    *,
    plan: Plan,
    teach: Teach | None,
    teacher: nn.Module | None,
    warmup: int,
    repeats: int,
) -> TrainStep:
    """Take steps on the same micro-batches; the learning rate is 0, so that random data changes no weight.

    Args:
        run: what is trained, on its device.
        batches: the micro-batches of a step, on that device.
        plan: of the recipe; its autocast type and gradient clipping are used.
        teach, teacher: the frozen teacher as a function and as a module, or None twice.
        warmup, repeats: steps before the clock starts, and timed ones; as many rounds of the parts.
    """
    device = batches[0].image.device
    milliseconds = _steps(run, batches, teach, plan, count=warmup + repeats)[warmup:]
    peak = peak_bytes(lambda: _steps(run, batches, teach, plan, count=1), device)
    kept = [*_tensors(run.state_dict()), *_state(run.objective), *itertools.chain(*batches)]
    held = bytes_of(kept + (_state(teacher) if teacher is not None else []))
    median = statistics.median(milliseconds)
    images = sum(len(batch.image) for batch in batches)
    return TrainStep(
        batch=images,
        micro_batches=len(batches),
        median_ms=median,
        p95_ms=percentile(milliseconds, 0.95),
        images_per_s=1e3 * images / median,
        peak_mib=(peak + held) / MIB,
        held_mib=held / MIB,
        repeats=repeats,
        parts=_parts(_Rehearsal(run, batches, teach, plan), repeats, whole_ms=median),
    )


def _steps(
    run: Training, batches: Sequence[Batch], teach: Teach | None, plan: Plan, *, count: int
) -> list[float]:
    """Let the training loop take so many steps; return the milliseconds of each, logging included."""
    device = batches[0].image.device
    ends: list[float] = []

    def stop_the_clock(_: object) -> None:
        synchronise(device)
        ends.append(time.perf_counter())

    quiet = dataclasses.replace(
        plan,
        iterations=run.step + count,
        schedule=lambda step: 0.0,
        log_every=1,
        evaluate_every=NEVER,
        save_every=NEVER,
    )
    hooks = Hooks(log=stop_the_clock, evaluate=lambda step: None, save=lambda: None)
    synchronise(device)
    began = time.perf_counter()
    fit(run, itertools.repeat(batches), teach, plan=quiet, hooks=hooks, ranks=Ranks(0, 1, device))
    return [1e3 * (end - start) for start, end in itertools.pairwise([began, *ends])]


class _Rehearsal:
    """A step cut into parts: each works on what the part before it left, for one micro-batch.

    Losses are cut from the student at its maps, so that the backward of each is timed alone.
    """

    def __init__(self, run: Training, batches: Sequence[Batch], teach: Teach | None, plan: Plan) -> None:
        self.run, self.objective, self.teach, self.plan = run, run.objective, teach, plan
        self.batch = Batch(batches[0].image, batches[0].label.long())
        self.device = self.batch.image.device
        self.micro_batches = len(batches)
        self.views = self._views(batches)
        self.output = self.leaves = SegOutput(torch.empty(0), None, {})

    def parts(self) -> Iterator[tuple[Kind, str, int, Callable[[], None]]]:
        """(kind, name, times a step, work) in the order of a step."""
        if self.teach is not None:
            yield "teacher", "forward", self.micro_batches, self._teach
        yield "student", "forward", self.micro_batches, self._forward
        for name in self.objective.losses:
            yield "loss", name, self.micro_batches, partial(self._loss, name)
        yield "student", "backward", self.micro_batches, self._backward
        yield "optimizer", "step", 1, self._update
        for name, loss in self.objective.losses.items():
            if loss.critic is not None:
                yield "critic", name, self.micro_batches, partial(self._critic, name)

    def _views(self, batches: Sequence[Batch]) -> dict[str, SegOutput | None]:
        """What each loss is shown of the teacher: aligned maps, the same in every step."""
        views: dict[str, SegOutput | None] = {}

        def remember(name: str, _: nn.Module, inputs: tuple[Any, ...]) -> None:
            views.setdefault(name, inputs[1])

        hooks = [
            loss.register_forward_pre_hook(partial(remember, name))
            for name, loss in self.objective.losses.items()
        ]
        try:
            _steps(self.run, batches, self.teach, self.plan, count=1)
        finally:
            for hook in hooks:
                hook.remove()
        return views

    def _autocast(self) -> torch.autocast:
        kind = self.plan.amp
        return torch.autocast(self.device.type, dtype=kind, enabled=kind is not None)

    def _teach(self) -> None:
        assert self.teach is not None
        self.teach(self.batch.image)

    def _forward(self) -> None:
        with self._autocast():
            self.output = self.objective.student(self.batch.image, self.objective.taps)
        logits, aux, taps = self.output
        self.leaves = SegOutput(
            _leaf(logits), None if aux is None else _leaf(aux), {name: _leaf(t) for name, t in taps.items()}
        )

    def _loss(self, name: str) -> None:
        with self._autocast():
            term = self.objective.losses[name](self.leaves, self.views[name], self.batch.label)
            term = self.objective.weight(name, 0.0) * term
        self.run.scaler.scale(term).backward()  # type: ignore[no-untyped-call]

    def _backward(self) -> None:
        pairs = zip(_maps(self.output), _maps(self.leaves), strict=True)
        read = [(map_, leaf.grad) for map_, leaf in pairs if leaf.grad is not None]
        torch.autograd.backward([map_ for map_, _ in read], [gradient for _, gradient in read])
        del read
        self.output = self.leaves = SegOutput(torch.empty(0), None, {})

    def _critic(self, name: str) -> None:
        self.objective.losses[name].update_critic(0.0)

    def _update(self) -> None:
        run = self.run
        run.scaler.unscale_(run.optimizer)
        if self.plan.clip_grad_norm:
            nn.utils.clip_grad_norm_(self.objective.parameters(), self.plan.clip_grad_norm)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.optimizer.zero_grad(set_to_none=True)
        if run.ema:
            run.ema.update(self.objective.student)


def _parts(rehearsal: _Rehearsal, repeats: int, *, whole_ms: float) -> tuple[Part, ...]:
    rows = list(rehearsal.parts())
    peaks = [peak_bytes(work, rehearsal.device) for *_, work in rows]
    rounds = [[times * timed(work, rehearsal.device) for _, _, times, work in rows] for _ in range(repeats)]
    return tuple(
        Part(
            kind=kind,
            name=name,
            median_ms=statistics.median(runs),
            p95_ms=percentile(list(runs), 0.95),
            share=statistics.median(runs) / whole_ms,
            peak_mib=peak / MIB,
        )
        for (kind, name, _, _), peak, runs in zip(rows, peaks, zip(*rounds, strict=True), strict=True)
    )


def _leaf(map_: Tensor) -> Tensor:
    return map_.detach().requires_grad_()


def _maps(output: SegOutput) -> list[Tensor]:
    return [output.logits, *([] if output.aux is None else [output.aux]), *output.taps.values()]


def _state(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _tensors(tree: Any) -> Iterator[Tensor]:
    """Every tensor in nested dicts and sequences."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict | list | tuple):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from _tensors(branch)
