"""hwdkit visualize weights: which channels HWD pushes, at the end or over training."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hwdkit.checkpoints.files import read_metadata
from hwdkit.commands.visualize import Weights, figure
from hwdkit.engine.opened import Opened
from hwdkit.errors import UsageError
from hwdkit.losses.hwd import HWD
from hwdkit.measure.channel_weights import ChannelWeights, channel_weights
from hwdkit.recipe import losses as recipe_losses
from hwdkit.recipe.load import load
from hwdkit.report.palette import BASELINE, OTHERS, STUDENT, Tone
from hwdkit.report.render import number, printable
from hwdkit.report.table import Table
from hwdkit.terminal import values
from hwdkit.types import NamedPath

BARS, LINES = 40, 8
"""Classes drawn unless --top says otherwise: bars one below the other, lines over training."""


def run(options: Weights) -> tuple[dict[str, Any], bytes]:
    """The figure, and every class's weights under every student, sorted by those of the last one."""
    steps = snapshots(options.at or ())
    named = options.named()
    if steps:
        named += [NamedPath(f"step {step}", "compare", path) for step, path in steps.items()]
        named[-1] = named[-1]._replace(role="student")
    run_recipe, run_loss = run_options([path for _, role, path in reversed(named) if role != "teacher"])
    settings = loss_options(options.hwd or (), run_loss)
    opened = figure.opened(options, named, limit=options.limit, workers=options.workers)
    opened.of_role("student", needed_for="weights")
    teacher = opened.of_role("teacher", needed_for="weights")
    students = [network for network in opened.networks if network is not teacher]
    classes, palette = opened.images.index.classes, opened.images.index.palette
    only = [classes.index(name) for name in values.classes(options.classes or (), classes)]
    with figure.working("weights", opened.images.total) as advance:
        measured = channel_weights(students, teacher.model, opened.pairs(), HWD(**settings), advance=advance)
    last = measured[students[-1].name].mean
    order = sorted(range(len(classes)), key=lambda c: -last[c])
    shown = [c for c in order if c in only] if only else order[: options.top or (LINES if steps else BARS)]
    from hwdkit.report.plots.weights import weight_bars, weight_lines

    form = options.suffix
    if steps:
        curve = [measured[student.name] for student in students]
        content = weight_lines(list(steps), curve, shown, classes=classes, palette=palette, form=form)
    else:
        tones = _tones(opened)
        content = weight_bars(measured, shown, classes, tones=tones, form=form)
    return {
        **opened.facts(),
        "hwd": settings,
        "hwd_from": run_recipe,
        "hwd_changed": options.hwd or [],
        "images": opened.images.total,
        "steps": list(steps),
        "classes": [_row(classes[c], c, measured, drawn=c in shown) for c in order],
    }, content


def render(result: dict[str, Any]) -> tuple[Table, str]:
    """The weights of the classes that are drawn."""
    names = list(result["classes"][0]["weights"])
    rows = [row for row in result["classes"] if row["drawn"]]
    table = Table(
        ["class", *names],
        ([row["class"], *(number(row["weights"][name]["mean"]) for name in names)] for row in rows),
    )
    drawn = f"{len(rows)} of {len(result['classes'])} classes, mean over {result['images']} images"
    recipe = result["hwd_from"]
    whose = f"options of {printable(recipe)}" if recipe else "default options (no run here has an HWD loss)"
    if result["hwd_changed"]:
        whose += f", but {printable(', '.join(result['hwd_changed']))}"
    return table, f"HWD with {whose}\n{drawn}: "


def run_options(networks: list[Path]) -> tuple[str | None, dict[str, Any]]:
    """The recipe's path and the loss's options of the first run that has an HWD loss; None, {} without one.

    Args:
        networks: run directories or checkpoints; a recipe.yaml lies beside those of hwdkit.
    """
    for path in networks:
        for folder in (path, path.parent, path.parent.parent):
            recipe = folder / "recipe.yaml"
            if not recipe.is_file():
                continue
            for loss in load(recipe).losses.values():
                if isinstance(loss, recipe_losses.HWD):
                    return str(recipe), loss.constructor_options()
            break
    return None, {}


def loss_options(texts: Iterable[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The loss's options from KEY=VALUE, checked as in a recipe; those not named as in `defaults`.

    Raises:
        UsageError: naming the option.
    """
    settings: dict[str, Any] = dict(defaults)
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in recipe_losses.HWD.model_fields or key in ("loss", "weight", "schedule"):
            known = ", ".join(recipe_losses.HWD.model_validate({}).constructor_options())
            raise UsageError(f"--hwd: {text!r} is not an option of HWD as KEY=VALUE", hint=f"keys: {known}")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"--hwd {text}: {value!r} is not YAML") from None
    try:
        options = recipe_losses.HWD.model_validate(settings).constructor_options()
        HWD(**options)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--hwd {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except ValueError as error:
        raise UsageError(f"--hwd: {error}") from None
    return options


def snapshots(texts: Iterable[str]) -> dict[int, Path]:
    """Step -> checkpoint of [STEP=]CHECKPOINT, by rising step; a checkpoint of hwdkit knows its own step.

    Raises:
        UsageError: no step, or one twice.
        CheckpointError: a checkpoint cannot be read.
    """
    steps: dict[int, Path] = {}
    for text in texts:
        named = re.fullmatch(r"(\d{1,12})=(.+)", text)
        path = Path(named[2] if named else text)
        step = int(named[1]) if named else _recorded_step(path)
        if step in steps:
            raise UsageError(f"--at: {steps[step]} and {path} are both at step {step}")
        steps[step] = path
    return dict(sorted(steps.items()))


def _recorded_step(path: Path) -> int:
    file = path / "student.safetensors" if path.is_dir() else path
    step = read_metadata(file).get("step") if file.suffix == ".safetensors" and file.is_file() else None
    if not isinstance(step, int):
        raise UsageError(f"--at: {path} does not say its step", hint=f"name it: --at 1000={path}")
    return step


def _tones(opened: Opened) -> dict[str, Tone]:
    hues = iter(OTHERS * (1 + len(opened.networks) // len(OTHERS)))
    fixed = {"student": STUDENT, "baseline": BASELINE}
    return {
        network.name: fixed.get(network.role) or next(hues)
        for network in opened.networks
        if network.role != "teacher"
    }


def _row(name: str, c: int, measured: Mapping[str, ChannelWeights], *, drawn: bool) -> dict[str, Any]:
    weights = {
        student: {"mean": one.mean[c], "std": one.std[c], "first": one.first[c]}
        for student, one in measured.items()
    }
    return {"class": name, "index": c, "drawn": drawn, "weights": weights}
