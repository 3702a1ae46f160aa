"""--dry-run: the networks and losses of a recipe as they would meet, and what a run still lacks.

Everything is built on torch's meta device: shapes without numbers, so an ADE20K recipe takes a second and
no memory. Nothing is written, downloaded or prepared.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Group
from rich.text import Text
from torch import Tensor

from hwdkit.data.index import DatasetIndex, load_index
from hwdkit.data.stream import require_divisible
from hwdkit.datasets.table import DATASETS
from hwdkit.engine import build, describe
from hwdkit.engine.networks import load_network, require_classes
from hwdkit.engine.objectives import Objective
from hwdkit.engine.opened import one_device
from hwdkit.engine.rundir import RunDir
from hwdkit.errors import HwdkitError
from hwdkit.losses import Loss
from hwdkit.losses.features import LOGITS
from hwdkit.models.segmenter import Segmenter
from hwdkit.recipe.losses import LossOptions
from hwdkit.recipe.schema import Recipe
from hwdkit.report.table import Column, Table
from hwdkit.types import SegOutput

T = TypeVar("T")


def run(
    recipe: Recipe,
    *,
    data_root: Path,
    out: Path | None = None,
    init_from: Path | None = None,
    cpu: bool = False,
    ranks: int = 1,
) -> tuple[dict[str, Any], HwdkitError | None]:
    """Build everything without numbers.

    Args:
        recipe: what would be trained.
        data_root, out, init_from, cpu: as in `commands.train.run`.
        ranks: how many processes would share a batch.

    Returns:
        A JSON-able description, and the first thing that keeps the run from starting, if any.

    Raises:
        RecipeError: the networks and losses do not fit each other.
    """
    missing: list[HwdkitError] = []
    index = _checked(missing, lambda: load_index(data_root / recipe.data.dataset))
    if index is None and recipe.data.dataset not in DATASETS:
        raise missing[-1]  # its index alone has the number of classes
    classes = len(index.classes) if index else describe.classes_of(recipe, data_root)
    data, train = recipe.data, recipe.train
    _checked(missing, lambda: require_divisible(train.batch_size, world=ranks, accumulate=train.accumulate))
    if out is not None:
        _checked(missing, lambda: RunDir(out).require_unused())
    _checked(missing, lambda: build.require_possible(train, one_device(cpu=cpu)))
    _checked(missing, lambda: build.pretrained_weights(recipe.network))
    if init_from is not None:
        _checked(missing, lambda: load_network(init_from))
    with torch.device("meta"):
        student = describe.bare(recipe.network, classes)
    if ranks == 1:
        _checked(missing, lambda: student.train().check_batch(train.batch_size // train.accumulate))
    networks = {recipe.trains: _network(student, "")}
    teacher = None
    if build.needs_teacher(recipe):
        teacher, origin = _teacher(recipe, classes, index, missing)
        networks["teacher"] = _network(teacher, origin)
    with torch.device("meta"):
        objective = build.objective(recipe, student, teacher)
    outputs = _outputs(objective, teacher, data.crop)
    result = {
        "dry_run": True,
        "recipe": recipe.name,
        "dataset": data.dataset,
        "classes": classes,
        "crop": list(data.crop),
        "batch_size": train.batch_size,
        "iterations": train.iterations,
        "networks": networks,
        "losses": [
            _plan(name, recipe.losses[name], loss, outputs) for name, loss in objective.losses.items()
        ],
        "missing": [{"message": str(error), "exit_code": error.exit_code} for error in missing],
    }
    return result, missing[0] if missing else None


def _checked(missing: list[HwdkitError], check: Callable[[], T]) -> T | None:
    try:
        return check()
    except HwdkitError as error:
        missing.append(error)
        return None


def _teacher(
    recipe: Recipe, classes: int, index: DatasetIndex | None, missing: list[HwdkitError]
) -> tuple[Segmenter, str]:
    """The teacher as its checkpoint describes it, else as a recipe does; and where that checkpoint lies."""
    loaded = _checked(missing, lambda: load_network(build.teacher_checkpoint(recipe)))
    if loaded is not None:
        if index is not None:
            _checked(missing, lambda: require_classes(loaded, index))
            classes = loaded.model.spec.classes
        with torch.device("meta"):
            return describe.as_trained(loaded, recipe, classes), str(loaded.path)
    section, teacher = describe.teacher_section(recipe), recipe.teacher
    if section is None or teacher is None:
        raise missing[-1]  # without a teacher's shape there is nothing to show
    with torch.device("meta"):
        return describe.bare(section, classes), f"not trained yet: {teacher.recipe or recipe.name}"


def _outputs(
    objective: Objective, teacher: Segmenter | None, crop: tuple[int, int]
) -> tuple[SegOutput, SegOutput | None]:
    """What both networks hand out for one image, in evaluation mode and without numbers."""
    image = torch.empty(1, 3, *crop, device="meta")
    with torch.no_grad():
        student = objective.student.eval()(image, objective.taps, aux=True)
        if teacher is None:
            return student, None
        return student, teacher.eval()(image, objective.teacher_taps, aux=True)


def _plan(
    name: str, entry: LossOptions, loss: Loss, outputs: tuple[SegOutput, SegOutput | None]
) -> dict[str, Any]:
    """One loss: its factor, the maps that it compares, and what it adds to the training state."""
    student, teacher = outputs
    critic = tuple(loss.critic.parameters()) if loss.critic is not None else ()
    in_critic = {id(parameter) for parameter in critic}
    return {
        "name": name,
        "loss": entry.loss,
        "weight": entry.weight,
        "schedule": entry.schedule.model_dump(),
        "maps": _maps(loss, student, teacher) if loss.reads_teacher and teacher is not None else [],
        "parameters": sum(p.numel() for p in loss.parameters() if id(p) not in in_critic),
        "critic_parameters": sum(parameter.numel() for parameter in critic),
        "state": [
            {"name": key, "shape": list(buffer.shape), "mib": round(_mib(buffer), 2)}
            for key, buffer in loss.named_buffers()
            if _mib(buffer) >= 0.005 and not key.startswith("critic.")
        ],
    }


def _maps(loss: Loss, student: SegOutput, teacher: SegOutput) -> list[dict[str, Any]]:
    """The maps of both networks that a loss compares, per image: (channels, height, width)."""
    maps = [(tap, other, student.taps[tap], teacher.taps[other]) for tap, other in loss.tap_pairs]
    if loss.reads_logits:
        maps.append((LOGITS, LOGITS, student.logits, teacher.logits))
    return [
        {
            "tap": tap,
            "teacher_tap": other,
            "student": list(a.shape[1:]),
            "teacher": list(b.shape[1:]),
            "resized": a.shape[2:] != b.shape[2:],
        }
        for tap, other, a, b in maps
    ]


def _mib(tensor: Tensor) -> float:
    return tensor.numel() * tensor.element_size() / 2**20


def _network(model: Segmenter, origin: str) -> dict[str, Any]:
    return {
        "head": model.spec.head,
        "backbone": model.spec.backbone,
        "output_stride": model.spec.output_stride,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "checkpoint": origin or None,
    }


def render(result: dict[str, Any]) -> Group:
    """Networks, then one row a loss and map: how the teacher's map comes to the student's."""
    lines = [
        f"{role:8} {about['head']}-{about['backbone']}, output stride {about['output_stride']}, "
        f"{about['parameters'] / 1e6:.2f} M parameters"
        + (f"  ({about['checkpoint']})" if about["checkpoint"] else "")
        for role, about in result["networks"].items()
    ]
    height, width = result["crop"]
    lines.append(
        f"data     {result['dataset']}, {result['classes']} classes, crops of {height}x{width}, "
        f"{result['iterations']} iterations of {result['batch_size']} images"
    )
    headings = ("loss", "weight", "map", "student", "teacher", "align", "trained along")
    table = Table(
        [Column(heading, left=True, whole=heading == "loss") for heading in headings],
        (row for loss in result["losses"] for row in _rows(loss)),
    )
    blocks: list[Any] = [*map(Text, lines), table]
    states = [(loss["name"], state) for loss in result["losses"] for state in loss["state"]]
    for name, state in states:
        shape = " x ".join(f"{side}" for side in state["shape"])
        blocks.append(Text(f"{name} keeps {state['name']}: {shape}, {state['mib']:.2f} MiB in each process"))
    blocks += [Text(f"missing: {lack['message']}", style="yellow") for lack in result["missing"]]
    return Group(*blocks)


def _rows(loss: dict[str, Any]) -> list[tuple[str, ...]]:
    title = loss["name"] if loss["name"] == loss["loss"] else f"{loss['name']} ({loss['loss']})"
    weight = f"{loss['weight']:g}"
    for share, word in ((loss["schedule"]["warmup"], "rising"), (loss["schedule"]["decay"], "falling")):
        weight += f", {word} over {100 * share:g} %" if share else ""
    along = f"{loss['parameters']:,} parameters" if loss["parameters"] else ""
    if loss["critic_parameters"]:
        along = f"a critic of {loss['critic_parameters']:,}"
    if not loss["maps"]:
        return [(title, weight, "", "", "", "", along)]
    rows = []
    for number, pair in enumerate(loss["maps"]):
        same = pair["tap"] == pair["teacher_tap"]
        names = pair["tap"] if same else f"{pair['tap']} / {pair['teacher_tap']}"
        steps = ["teacher resized"] if pair["resized"] else []
        if pair["student"][0] != pair["teacher"][0]:
            projected = loss["parameters"] > 0
            steps.append("student projected" if projected else "channels may differ")
        first = (title, weight) if number == 0 else ("", "")
        shapes = ("x".join(map(str, pair[role])) for role in ("student", "teacher"))
        rows.append((*first, names, *shapes, ", ".join(steps), along if number == 0 else ""))
    return rows
