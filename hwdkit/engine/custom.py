"""Networks and losses that come from Python instead of a recipe: what a run requires and records of them."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from hwdkit.engine.networks import self_description
from hwdkit.errors import RecipeError
from hwdkit.losses import Loss
from hwdkit.models.network import Network


def require_compatible(student: Network, teacher: Network | None, losses: Mapping[str, Loss]) -> None:
    """Refuse networks and losses that cannot go together, before anything is trained."""
    require_network("student", student)
    if teacher is not None:
        require_network("teacher", teacher)
        if teacher.classes != student.classes:
            raise RecipeError(f"student has {student.classes} classes, teacher {teacher.classes}")
    if not losses:
        raise RecipeError("losses: empty: there is nothing to train")
    for name, loss in losses.items():
        if not isinstance(loss, Loss):
            raise RecipeError(
                f"losses: {name!r} is a {type(loss).__name__}, not a Loss",
                hint="derive it from hwdkit.losses.Loss: see docs/python.md",
            )
        if loss.reads_teacher and teacher is None:
            raise RecipeError(f"losses: {name!r} needs a teacher")
        try:
            student.check_taps(loss.taps)
            if teacher is not None:
                teacher.check_taps(loss.teacher_taps)
        except ValueError as error:
            raise RecipeError(
                f"losses: {name!r}: {error}", hint="name it in adapt(..., taps={...})"
            ) from error
        if loss.reads_teacher_aux and not (student.has_aux and teacher is not None and teacher.has_aux):
            raise RecipeError(
                f"losses: {name!r} compares auxiliary logits, but student or teacher has no auxiliary head"
            )


def require_network(name: str, network: object) -> None:
    if not isinstance(network, Network):
        kind = "a module" if isinstance(network, nn.Module) else f"a {type(network).__name__}"
        raise RecipeError(
            f"{name} is {kind}, not a network of hwdkit", hint="use hwdkit.adapt(module, classes=N)"
        )


def normalises(*networks: Network | None) -> bool:
    """Whether the networks want uint8 RGB; all must want the same.

    Raises:
        RecipeError: one normalises its images itself, another does not.
    """
    answers = {network.contract is not None for network in networks if network is not None}
    if len(answers) > 1:
        raise RecipeError(
            "student and teacher are shown the same images: give contract=None to both or to none"
        )
    return answers.pop()


def describer(student: Network, classes: Sequence[str] | None, *, name: str) -> Callable[..., dict[str, Any]]:
    """The description that a checkpoint carries."""
    names = tuple(classes) if classes is not None else tuple(f"class {i}" for i in range(student.classes))
    if len(names) != student.classes:
        raise RecipeError(f"classes names {len(names)}, but the student has {student.classes}")

    labels = {
        "classes": list(names),
        "palette": [[(37 * i) % 256, (91 * i) % 256, (151 * i) % 256] for i in range(student.classes)],
        "dataset": name or "none",
    }
    if classes is None:  # the network keeps speaking of the classes that it was loaded with
        labels |= {key: student.about[key] for key in labels if key in student.about}

    def describe(step: int, metrics: Mapping[str, Any]) -> dict[str, Any]:
        facts = {"role": "student", "recipe": name, "step": step, "metrics": dict(metrics)}
        return {**self_description(student), **labels, **facts}

    return describe


def options_of(loss: Loss) -> dict[str, Any]:
    """What decides a loss, for recipe.yaml: its class, its factor and its plain options."""
    names = inspect.signature(type(loss).__init__).parameters.keys() - {"self", "align_corners"}
    options = {name: getattr(loss, name) for name in sorted(names) if hasattr(loss, name)}
    plain = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
        if isinstance(value, bool | int | float | str | tuple)
    }
    return {"loss": type(loss).__name__, "weight": float(loss.factor), **plain}


def digest_of(network: nn.Module | None) -> str | None:
    """SHA-256 of a network's weights: a resumed run must have the same teacher."""
    if network is None:
        return None
    sha = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


@contextmanager
def trainable(student: Network) -> Iterator[None]:
    """Let parameters that a run freezes, because its losses do not reach them, be trainable again afterwards.

    Raises:
        RecipeError: there is no parameter to train.
    """
    parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
    if not parameters:
        raise RecipeError("student has no parameter with requires_grad: there is nothing to train")
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
