"""Adversarial distillation ("HO"): the student's score maps shall pass for the teacher's. The critic's layers
are in discriminator; what is here is the losses of both players, and the critic's own training.

Read `Holistic.forward` for the student's step and `Holistic.update_critic` for the critic's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hwdkit.distributed import mean_over_ranks, world_size
from hwdkit.losses.base import Loss
from hwdkit.losses.discriminator import Discriminator, Preprocess
from hwdkit.losses.options import require_below_one, require_choice, require_not_negative, require_positive
from hwdkit.types import SegOutput

Adversary = Literal["hinge", "wgan_gp"]
CriticOptimizer = Literal["adam", "sgd"]


def hinge_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """What the critic minimises in HWD's and CIRKD's code: mean max(0, 1 - D(T)) + mean max(0, 1 + D(S)).

    The scores D(S) and D(T) are (N, 1, h, w).
    """
    return (1 - teacher).relu().mean() + (1 + student).relu().mean()


def wasserstein_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """What the critic minimises in SKD's, IFVD's and CWD's code, less the penalty: mean D(S) - mean D(T)."""
    return student.mean() - teacher.mean()


def gradient_penalty(critic: nn.Module, student: Tensor, teacher: Tensor, a: Tensor) -> Tensor:
    """How far the critic is from slope 1 between the two (Gulrajani et al., NeurIPS 2017, Eq. 3).

    x_n = a_n T_n + (1 - a_n) S_n; the result is mean_n (||d sum D(x) / d x_n||_2 - 1)^2. The sum runs over
    the images of all ranks, because batch norm lets each of them see the others.

    Args:
        critic: D, differentiable twice.
        student: (N, C, h, w) logits, detached.
        teacher: (N, C, h, w) logits, detached.
        a: (N,) in [0, 1].

    Returns:
        A scalar, differentiable with respect to the critic's parameters. A vanishing slope has gradient 0.
    """
    a = a[:, None, None, None]
    between = (a * teacher + (1 - a) * student).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norm: Tensor = torch.linalg.vector_norm(slope.flatten(1), dim=1)
    return (norm - 1).square().mean()


class Holistic(Loss):
    """Adversarial distillation of whole score maps (SKD: Liu et al., CVPR 2019, Sec. 3.3).

    `forward` is the student's loss, -mean D(S). The critic D is trained beside, by `update_critic` once a
    step, with an optimizer of its own whose state travels in this module's `state_dict`. Its parameters want
    gradients only in there, so the student's optimizer and DistributedDataParallel never meet them.

    The weight of the recipe is the student's: 0.1 in SKD's code, 0.001 in IFVD's, CWD's, HWD's and CIRKD's.

    Args:
        classes: C, channels of the logits.
        adversary: hinge (HWD's and CIRKD's code) or wgan_gp (SKD's, IFVD's and CWD's).
        critic_weight: factor of the critic's own loss, penalty included.
        gradient_penalty: factor of the penalty; wgan_gp only.
        preprocess: see `Discriminator`.
        critic_optimizer: adam, or sgd (SKD's code).
        critic_lr: learning rate at the beginning.
        critic_betas: adam only.
        critic_momentum: sgd only.
        critic_weight_decay: of all the critic's parameters.
        critic_power: the learning rate is critic_lr * (1 - progress)**critic_power; CIRKD's code: 0.
    """

    critic: Discriminator
    paper = "Liu et al. Structured Knowledge Distillation for Semantic Segmentation. CVPR 2019."

    def __init__(
        self,
        *,
        classes: int,
        adversary: Adversary = "hinge",
        critic_weight: float = 0.1,
        gradient_penalty: float = 10.0,
        preprocess: Preprocess = "batch_norm",
        critic_optimizer: CriticOptimizer = "adam",
        critic_lr: float = 4e-4,
        critic_betas: tuple[float, float] = (0.9, 0.99),
        critic_momentum: float = 0.9,
        critic_weight_decay: float = 0.0,
        critic_power: float = 0.9,
    ) -> None:
        super().__init__()
        require_choice(Adversary, adversary=adversary)
        require_choice(CriticOptimizer, critic_optimizer=critic_optimizer)
        require_positive(critic_weight=critic_weight, critic_lr=critic_lr)
        require_not_negative(
            gradient_penalty=gradient_penalty,
            critic_weight_decay=critic_weight_decay,
            critic_power=critic_power,
        )
        for beta in critic_betas:
            require_below_one(critic_betas=beta)
        require_below_one(critic_momentum=critic_momentum)
        self.adversary: Adversary = adversary
        self.critic_weight = critic_weight
        self.gradient_penalty = gradient_penalty
        self.critic_optimizer: CriticOptimizer = critic_optimizer
        self.critic_lr, self.critic_power = critic_lr, critic_power
        self.critic_betas, self.critic_momentum = critic_betas, critic_momentum
        self.critic_weight_decay = critic_weight_decay
        self.critic = Discriminator(classes, preprocess=preprocess).requires_grad_(False)
        self.remembered: list[tuple[Tensor, Tensor]] = []
        self._optimizer: torch.optim.Optimizer | None = None
        self._loaded: dict[int, Any] = {}

    def forward(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
        """The student's loss; while training, the critic also keeps both outputs for its own step."""
        if self.training and torch.is_grad_enabled():
            self.remembered.append((student.logits.detach(), teacher.logits.detach()))
        with torch.autocast(student.logits.device.type, enabled=False):
            scores: Tensor = self.critic(student.logits)
            return -scores.mean()

    def check(self, student: SegOutput, teacher: SegOutput) -> None:
        super().check(student, teacher)
        if student.logits.shape[1] != self.critic.conv1.in_channels:
            raise ValueError(
                f"the critic was made for {self.critic.conv1.in_channels} classes, not for the logits' "
                f"{student.logits.shape[1]}"
            )

    def update_critic(self, progress: float) -> Tensor:
        """Train the critic one step on what `forward` has seen since the last one, and forget it.

        As in every released code, these are the student's outputs from before its own step. Micro-batches
        are averaged, and so are ranks, all of which must call this.

        Args:
            progress: share of the training that is done, in [0, 1).

        Returns:
            The critic's loss on this rank, `critic_weight` included, detached.

        Raises:
            RuntimeError: there has been no training step since the last update.
        """
        if not self.remembered:
            raise RuntimeError("the critic has nothing to learn from: update_critic without a training step")
        require_below_one(progress=progress)
        pairs, self.remembered = self.remembered, []
        optimizer = self._ready_optimizer()
        optimizer.param_groups[0]["lr"] = self.critic_lr * (1 - progress) ** self.critic_power
        losses = []
        with _wanting_gradients(self.critic) as parameters:
            for student, teacher in pairs:
                loss = self.critic_weight * self.critic_loss(student, teacher) / len(pairs)
                loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
                losses.append(loss.detach())
            _average_gradients(parameters)
            optimizer.step()
        return torch.stack(losses).sum()

    def critic_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """What the critic minimises, before `critic_weight`; of detached logits, (N, C, h, w).

        Each of the two or three passes advances the spectral norms: student, teacher, between.
        """
        with torch.enable_grad(), torch.autocast(student.device.type, enabled=False):
            dtype = self.critic.last.weight.dtype
            student, teacher = student.to(dtype), teacher.to(dtype)
            scores = self.critic(student), self.critic(teacher)
            if self.adversary == "hinge":
                return hinge_loss(*scores)
            a = torch.rand(len(student), dtype=dtype, device=student.device)
            penalty = gradient_penalty(self.critic, student, teacher, a)
            return wasserstein_loss(*scores) + self.gradient_penalty * penalty

    def get_extra_state(self) -> dict[str, Any]:
        """The optimizer's moments by parameter number; {} before the first update. Tensors and a name."""
        moments = self._optimizer.state_dict()["state"] if self._optimizer else self._loaded
        return {"kind": self.critic_optimizer, "optimizer": moments}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        if state["kind"] != self.critic_optimizer:
            raise ValueError(f"critic's state is that of {state['kind']}, not of {self.critic_optimizer}")
        # Only kept for now: the critic's weights are loaded after this, and may yet change device. A copy,
        # because the optimizer goes on in place, and the giver may be another critic.
        self._loaded = copy.deepcopy(state["optimizer"])
        self._optimizer = None

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Whatever moves or casts the critic leaves its optimizer to be made anew, with the old moments."""
        applied = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._loaded, self._optimizer = self.get_extra_state()["optimizer"], None
        return applied

    def _ready_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer over the critic's present parameters, made when it is first needed."""
        if self._optimizer is None:
            self._optimizer = self._new_optimizer()
            groups = self._optimizer.state_dict()["param_groups"]
            self._optimizer.load_state_dict({"state": self._loaded, "param_groups": groups})
            self._loaded = {}
        return self._optimizer

    def _new_optimizer(self) -> torch.optim.Optimizer:
        parameters, decay = self.critic.parameters(), self.critic_weight_decay
        if self.critic_optimizer == "sgd":
            return torch.optim.SGD(
                parameters, self.critic_lr, momentum=self.critic_momentum, weight_decay=decay
            )
        return torch.optim.Adam(parameters, self.critic_lr, betas=self.critic_betas, weight_decay=decay)


@contextmanager
def _wanting_gradients(critic: nn.Module) -> Iterator[list[nn.Parameter]]:
    """The critic's parameters, which want gradients inside and neither want nor have any afterwards."""
    critic.requires_grad_(True)
    try:
        yield list(critic.parameters())
    finally:
        critic.requires_grad_(False)
        critic.zero_grad(set_to_none=True)


def _average_gradients(parameters: list[nn.Parameter]) -> None:
    """Give every rank the mean of all ranks' gradients, in one message."""
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    mean = mean_over_ranks(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, torch.split(mean, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
