"""What the training loop measures between two log lines: loss terms, critics and speed."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from hwdkit.distributed import mean_over_ranks
from hwdkit.errors import DivergedError

AFTER_DIVERGING = (
    "lower optimizer.lr, set train.clip_grad_norm, or train.amp: off; "
    "--resume continues from the last checkpoint, if there is one"
)


class Meter:
    """Means of the loss terms and the speed since the last reading; sums on the device, no sync to add."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.critics: dict[str, Tensor] = {}
        self.steps = 0.0
        self.images = 0
        self.since = time.perf_counter()

    def add(self, terms: dict[str, Tensor], *, images: int, micro_batches: int) -> None:
        for name, term in terms.items():
            share = term.detach() / micro_batches
            self.sums[name] = self.sums[name] + share if name in self.sums else share
        self.steps += 1 / micro_batches
        self.images += images

    def add_critics(self, losses: dict[str, Tensor]) -> None:
        for name, loss in losses.items():
            self.critics[name] = self.critics[name] + loss if name in self.critics else loss

    def read(self, step: int, world: int) -> dict[str, float]:
        """Means per step over all ranks, step_ms, images_per_s and on a GPU memory_mib; then starts anew.

        Raises:
            DivergedError: naming every term that is not finite.
        """
        names = [f"loss_{name}" for name in self.sums] + [f"critic_{name}" for name in self.critics]
        sums = torch.stack([*self.sums.values(), *self.critics.values()])
        means = dict(zip(names, mean_over_ranks(sums / self.steps).tolist(), strict=True))
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if broken:
            critics = [name.removeprefix("critic_") for name in broken if name.startswith("critic_")]
            advice = "".join(f"lower losses.{name}.critic_lr, or else " for name in critics)
            raise DivergedError(
                f"{', '.join(name.replace('_', ' ', 1) for name in broken)} became non-finite "
                f"at or before step {step}",
                hint=advice + AFTER_DIVERGING,
            )
        seconds = time.perf_counter() - self.since
        speed = {
            "step_ms": 1000 * seconds / self.steps,
            "images_per_s": world * self.images / seconds,
        }
        if sums.device.type == "cuda":  # torch counts none elsewhere
            speed["memory_mib"] = torch.cuda.max_memory_allocated(sums.device) / 2**20
        self.reset()
        total = sum(value for name, value in means.items() if name.startswith("loss_"))
        return {"loss": total, **means, **speed}
