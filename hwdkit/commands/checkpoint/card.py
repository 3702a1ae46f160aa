"""What a checkpoint, its run and an evaluation of it say, gathered for a model card.

Which files count is in `card_sources.py`, how a card looks in `report/card.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from hwdkit.checkpoints.files import file_digest, replacing
from hwdkit.commands.checkpoint import Card
from hwdkit.commands.checkpoint.card_sources import Scores, evaluated, is_number, run_of, while_training
from hwdkit.commands.checkpoint.contents import mapping, origin, parameters, title
from hwdkit.commands.checkpoint.strip import without_paths
from hwdkit.datasets.table import DATASETS
from hwdkit.engine.networks import Loaded, load_network
from hwdkit.recipe.schema import Recipe
from hwdkit.report import card
from hwdkit.report.papers import papers_of

MEANS = {"miou": "mIoU %", "macc": "mAcc %", "pixel_accuracy": "pixel accuracy %"}
HUB_METRICS = {"miou": ("mean_iou", "mIoU"), "pixel_accuracy": ("accuracy", "pixel accuracy")}
"""Ours -> the Hub's type and name. Its types have no mean class accuracy."""


def run(options: Card) -> dict[str, Any]:
    """Describe a checkpoint in Markdown, and write it where that is asked for.

    Returns:
        JSON-able: the card, its front matter, and where it was written (None: nowhere).

    Raises:
        CheckpointError: the checkpoint is damaged.
        DataError: the evaluation is none, or of another file; the named run trained another checkpoint.
    """
    loaded = load_network(options.file)
    metadata, _ = without_paths(loaded.metadata)
    digest, network, dataset = file_digest(loaded.path), loaded.model.spec.to_dict(), str(metadata["dataset"])
    recipe, info = run_of(options.trained_by, loaded.path.parent, metadata.get("recipe_sha256"))
    name = options.repo_id or str(metadata.get("recipe") or loaded.path.stem)
    losses = [one.loss for one in recipe.losses.values() if one.weight] if recipe else []
    sources = (
        evaluated(options.evaluation, digest) if options.evaluation else None,
        while_training(metadata, recipe),
    )
    scores = [source for source in sources if source]
    means = {key: head for key, head in MEANS.items() if any(key in one.means for one in scores)}
    papers = papers_of(losses)
    front_matter = _front_matter(name, dataset, scores, distilled=bool(papers), licence=options.licence)
    text = card.render(
        front_matter.to_yaml(),
        file_name=loaded.path.name,
        repo_id=options.repo_id,
        title=name,
        architecture=f"{title(network)}, output stride {network['output_stride']}",
        dataset=dataset,
        classes=len(loaded.classes),
        facts=_facts(loaded, metadata, digest),
        score_heads=("measured", *means.values()),
        scores=[(one.measured, *(_percent(one.means.get(key)) for key in means)) for one in scores],
        classes_scored=[[(n, _percent(iou)) for n, iou in one.per_class] for one in scores if one.per_class],
        training=_training(recipe, info, metadata) if recipe else {},
        contract={key: str(value) for key, value in loaded.model.contract.to_dict().items()},
        limits=_limits(loaded, metadata, info),
        papers=papers,
    )
    if options.out is not None:
        with replacing(options.out, new=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return {
        "checkpoint": str(loaded.path),
        "written": None if options.out is None else str(options.out),
        "front_matter": front_matter.to_dict(),  # type: ignore[no-untyped-call]
        "card": text,
    }


def render(result: dict[str, Any]) -> str:
    """The card itself, or where it is."""
    return f"{result['written']}: written" if result["written"] else str(result["card"])


def _front_matter(
    name: str, dataset: str, scores: Sequence[Scores], *, distilled: bool, licence: str | None
) -> ModelCardData:
    """The metadata that the Hub reads; the first measurement is the one that counts."""
    first = scores[0] if scores else Scores("", {})
    results = [
        EvalResult(
            task_type="image-segmentation",
            task_name="Semantic segmentation",
            dataset_type=card.one_line(dataset),
            dataset_name=card.one_line(dataset),
            dataset_split=card.one_line(first.split) or None,
            metric_type=HUB_METRICS[key][0],
            metric_name=HUB_METRICS[key][1],
            metric_value=value,
        )
        for key, value in first.means.items()
        if key in HUB_METRICS
    ]
    return ModelCardData(
        library_name="hwdkit",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", *(["knowledge-distillation"] if distilled else [])],
        license=licence,
        datasets=[card.one_line(dataset)] if dataset else None,
        metrics=[result.metric_type for result in results] or None,
        model_name=card.one_line(name) if results else None,
        eval_results=results or None,
    )


def _percent(value: float | None) -> str:
    return "absent" if value is None else f"{100 * value:.2f}"


def _facts(loaded: Loaded, metadata: Mapping[str, Any], digest: str) -> dict[str, str]:
    auxiliary = ", those of an auxiliary head included" if loaded.model.spec.aux else ""
    facts = {
        "file": f"{loaded.path.name}, {loaded.path.stat().st_size / 2**20:.2f} MiB",
        "sha256": digest,
        "parameters": f"{parameters(loaded.model):,}{auxiliary}",
        "weights": mapping(metadata.get("stripped")).get("weights"),
        "role": metadata.get("role"),
        "recipe": metadata.get("recipe"),
        "steps": metadata.get("step"),
        "imported": origin(metadata),
        "classes": ", ".join(loaded.classes),
        "written by": f"hwdkit {metadata['hwdkit']}" if "hwdkit" in metadata else "",
    }
    return {key: str(value) for key, value in facts.items() if value not in (None, "")}


def _training(recipe: Recipe, info: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, str]:
    """How it was trained, from the recipe, and on what, from run.json."""
    train, optimizer = recipe.train, recipe.optimizer
    is_student = metadata.get("role") == "student"
    section = recipe.student if is_student else recipe.teacher
    processes, seconds = info.get("world_size"), mapping(info.get("result")).get("seconds")
    argv, sha256 = info.get("argv"), info.get("teacher_sha256")
    # A run that was resumed knows the time of its last part only.
    whole = isinstance(argv, list) and not any("resume" in str(word) for word in argv)
    # Of the teacher its recipe and its file's checksum; where it lay is private.
    named = Path((recipe.teacher and recipe.teacher.recipe) or "").name
    teacher = [named, f"sha256 {sha256}" if isinstance(sha256, str) else ""] if recipe.teacher else []
    rows = {
        "dataset": f"{recipe.data.dataset}, split {recipe.data.train_split}",
        "losses": " + ".join(f"{one.weight:g} {name}" for name, one in recipe.losses.items() if one.weight),
        "teacher": ", ".join(filter(None, teacher)) if is_student else "",
        "steps": f"{metadata.get('step', train.iterations)} of {train.iterations}, "
        f"{train.batch_size} crops of {recipe.data.crop[0]}x{recipe.data.crop[1]} each",
        "optimizer": f"{optimizer.name}, learning rate {optimizer.lr:g}, poly decay {optimizer.power:g}, "
        f"weight decay {optimizer.weight_decay:g}",
        "backbone begins": "with pretrained weights" if section and section.pretrained else "at random",
        "mixed precision": "" if train.amp == "off" else train.amp,
        "average of the weights": f"EMA, decay {train.ema:g}" if train.ema else "",
        "seed": str(recipe.seed),
        "processes": f"{processes}, the first on {info.get('device')}" if isinstance(processes, int) else "",
        "time": f"{seconds:.0f} s" if whole and is_number(seconds) else "",
        "versions": ", ".join(f"{name} {version}" for name, version in mapping(info.get("versions")).items()),
    }
    return {key: value for key, value in rows.items() if value}


def _limits(loaded: Loaded, metadata: Mapping[str, Any], info: Mapping[str, Any]) -> list[str]:
    layout = DATASETS.get(str(metadata["dataset"]))
    licence = layout.licence if layout and layout.classes == loaded.classes else ""
    rounded = mapping(metadata.get("stripped")).get("weights", "fp32") != "fp32"
    sentences = {
        "Every pixel gets one of the classes above, also one that shows none of them.": True,
        f"The images it was trained on have terms of their own. {licence}": licence,
        "It was trained on a part of the dataset: its numbers do not compare with published ones.": (
            info.get("dataset_partial") is True
        ),
        "It was not trained by hwdkit: its weights were published by others and imported.": (
            metadata.get("imported")
        ),
        "The numbers measured while training are those of the float32 weights before they were rounded.": (
            rounded and "metrics" in metadata
        ),
    }
    return [sentence for sentence, holds in sentences.items() if holds]
