"""A model card in Markdown: what a checkpoint is, for the people it is given to.

Facts in, text out; where they come from is `commands/checkpoint/`. Every word that a file supplied is
made harmless here: for YAML by its own writer, for Markdown by escaping, in code by a quote of its language.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from hwdkit.report.papers import papers_of
from hwdkit.report.render import printable

MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&!])")


@dataclass(frozen=True)
class Scores:
    """One measurement.

    Attributes:
        measured: on what and how, in words.
        means: name -> value in 0..1.
        per_class: (class, IoU in 0..1 or None where it never occurs); empty where it was not kept.
        split: the dataset's, where known.
    """

    measured: str
    means: dict[str, float]
    per_class: tuple[tuple[str, float | None], ...] = ()
    split: str = ""


@dataclass(frozen=True)
class Card:
    """What is known; what is not is empty and has no line.

    Attributes:
        title: what to call the network.
        file_name: of the checkpoint, as it will lie beside the card.
        architecture: in words.
        facts, training, contract: name -> value, rows of the sections' tables.
        dataset, classes: what it was trained for.
        losses: keys of `hwdkit.losses.LOSSES`, without ce.
        scores: measurements; the first is the one for the front matter.
        limits: sentences.
        licence, repo_id: as given on the command line.
    """

    title: str
    file_name: str
    architecture: str
    dataset: str
    classes: tuple[str, ...]
    facts: dict[str, str] = field(default_factory=dict)
    training: dict[str, str] = field(default_factory=dict)
    contract: dict[str, str] = field(default_factory=dict)
    losses: tuple[str, ...] = ()
    scores: tuple[Scores, ...] = ()
    limits: tuple[str, ...] = ()
    licence: str = ""
    repo_id: str = ""


METRICS = {"miou": ("mean_iou", "mIoU"), "pixel_accuracy": ("accuracy", "pixel accuracy")}
"""Ours -> the Hub's type and name. Its types have no mean class accuracy."""


def front_matter(card: Card) -> dict[str, Any]:
    """The metadata that the Hub reads, as YAML values."""
    tags = ["semantic-segmentation", *(["knowledge-distillation"] if card.losses else [])]
    values: dict[str, Any] = {"library_name": "hwdkit", "pipeline_tag": "image-segmentation", "tags": tags}
    if card.licence:
        values["license"] = card.licence
    if card.dataset:
        values["datasets"] = [one_line(card.dataset)]
    means = card.scores[0].means if card.scores else {}
    found = [(*METRICS[key], value) for key, value in means.items() if key in METRICS]
    if found:
        values["metrics"] = [kind for kind, _, _ in found]
        split = {"split": one_line(card.scores[0].split)} if card.scores[0].split else {}
        name = one_line(card.dataset)
        result = {
            "task": {"type": "image-segmentation", "name": "Semantic segmentation"},
            "dataset": {"name": name, "type": name, **split},
            "metrics": [{"type": kind, "name": label, "value": value} for kind, label, value in found],
        }
        values["model-index"] = [{"name": one_line(card.title), "results": [result]}]
    return values


def render(card: Card) -> str:
    """The whole card, Markdown under YAML front matter."""
    header = yaml.safe_dump(front_matter(card), sort_keys=False, allow_unicode=True, width=10_000)
    parts = [
        f"---\n{header}---\n\n# {escaped(card.title)}\n",
        _introduction(card),
        _section("Results", _results(card)),
        _section("How it was trained", _table(("", ""), card.training.items()) if card.training else ""),
        _section("How to use it", _usage(card)),
        _section("Input", _input(card)),
        _section("Limits", "".join(f"- {escaped(sentence)}\n" for sentence in card.limits)),
        _section("Citation", _citation(card)),
    ]
    return "\n".join(part for part in parts if part)


def one_line(text: str) -> str:
    """A text from a file without control characters and line breaks."""
    return " ".join(printable(re.sub(r"\s+", " ", text)).split())


def escaped(text: str) -> str:
    """The same as Markdown that shows it, letter by letter."""
    return MARKUP.sub(r"\\\1", one_line(text))


def _introduction(card: Card) -> str:
    how = "Distilled" if card.losses else "Made"
    text = (
        f"A semantic-segmentation network: {escaped(card.architecture)}, {len(card.classes)} classes"
        f"{f' of {escaped(card.dataset)}' if card.dataset else ''}. {how} with hwdkit.\n"
    )
    return f"{text}\n{_table(('', ''), card.facts.items())}"


def _results(card: Card) -> str:
    if not card.scores:
        return ""
    names = {"miou": "mIoU %", "macc": "mAcc %", "pixel_accuracy": "pixel accuracy %"}
    heads = [key for key in names if any(key in one.means for one in card.scores)]
    rows = [(one.measured, *(_percent(one.means.get(key)) for key in heads)) for one in card.scores]
    text = _table(("measured", *(names[key] for key in heads)), rows)
    for one in card.scores:
        if one.per_class:
            text += "\n" + _table(("class", "IoU %"), [(name, _percent(iou)) for name, iou in one.per_class])
    return text


def _percent(value: float | None) -> str:
    return "absent" if value is None else f"{100 * value:.2f}"


def _usage(card: Card) -> str:
    name = one_line(card.file_name)
    quoted = shlex.quote(name)
    shell = [
        f"hwdkit predict photos -c {quoted} -o predictions --overlay",
        *([f"hwdkit evaluate -c {quoted} --data-root data"] if card.dataset else []),
    ]
    path, extra = f"Path({name!r})", ""
    if card.repo_id:
        shell.insert(0, f"hf download {card.repo_id} {quoted} --local-dir .")
        path = f"Path(hf_hub_download({card.repo_id!r}, {name!r}))"
        extra = "from huggingface_hub import hf_hub_download\n"
    code = (
        "from pathlib import Path\n\nimport torch\n"
        f"{extra}"
        "from hwdkit.commands.predict.images import read_upright\n"
        "from hwdkit.engine.evaluate import Protocol, predict\n"
        "from hwdkit.engine.networks import load_network\n\n"
        f"network = load_network({path})\n"
        'image = torch.from_numpy(read_upright(Path("photo.jpg"))).permute(2, 0, 1)\n'
        "with torch.no_grad():\n"
        "    mask = predict(network.model.eval(), image, Protocol())  # (H, W), class indices\n"
        "print([network.classes[i] for i in mask.unique()])\n"
    )
    return f"{_fenced('bash', chr(10).join(shell))}\n{_fenced('python', code)}"


def _input(card: Card) -> str:
    text = (
        "Images are uint8 RGB of any size, (3, H, W); the network normalises them itself. "
        "In another framework do what the table says.\n"
    )
    return f"{text}\n{_table(('', ''), card.contract.items())}" if card.contract else ""


def _citation(card: Card) -> str:
    return "".join(f"- {escaped(paper)}\n" for paper in papers_of(list(card.losses)))


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads)]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return text + "".join(f"| {' | '.join(escaped(str(cell)) for cell in row)} |\n" for row in rows)


def _fenced(language: str, code: str) -> str:
    """A block of code that no run of backticks in it can end."""
    longest = max((len(run) for run in re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code.rstrip()}\n{fence}\n"
