"""What a run tells while it works and when it is done, as lines of text."""

from __future__ import annotations

from typing import Any

from hwdkit.distributed import Ranks
from hwdkit.recipe.schema import Recipe


def beginning(recipe: Recipe, role: str, images: int, ranks: Ranks) -> str:
    """What is trained, on how much, by whom."""
    batch, iterations = recipe.train.batch_size, recipe.train.iterations
    work = f"training the {role}"
    if role == "student" and recipe.teacher is not None and recipe.teacher.checkpoint is not None:
        work = f"distilling from {recipe.teacher.checkpoint}"
    epochs = iterations * batch / images
    where = f"on {ranks.device}"
    if ranks.world > 1:
        where = f"{ranks.world} processes of {batch // ranks.world} {where}"
    return (
        f"{recipe.name}: {work} on {recipe.data.dataset}, {iterations} iterations of {batch} images "
        f"({epochs:.1f} epochs of {images}), {where}"
    )


def step(row: dict[str, float], total: int) -> str:
    """One row of metrics.jsonl for people."""
    terms = "  ".join(f"{key[5:]} {value:.4f}" for key, value in row.items() if key.startswith("loss_"))
    critics = "".join(
        f"  critic {key.removeprefix('critic_')} {value:.4f}"
        for key, value in row.items()
        if key.startswith("critic_")
    )
    left = (total - row["step"]) * row["step_ms"] / 1000
    return (
        f"step {row['step']:.0f}/{total}  loss {row['loss']:.4f} ({terms}){critics}  lr {row['lr']:.2e}  "
        f"{row['step_ms']:.0f} ms/step  {left:.0f} s left"
    )


def validation(metrics: dict[str, Any], improved: bool) -> str:
    """The result of an evaluation during training."""
    best = "  (best so far)" if improved else ""
    return (
        f"step {metrics['step']}  val mIoU {100 * metrics['miou']:.2f} %  "
        f"pixel accuracy {100 * metrics['pixel_accuracy']:.2f} %{best}"
    )


def render(result: dict[str, Any]) -> str:
    """The end of a run in a few lines: what came out, and what to type next."""
    last, best = result["last"], result["best"]
    return "\n".join(
        (
            f"val mIoU   {100 * last['miou']:.2f} % at step {last['step']} (last), "
            f"{100 * best['miou']:.2f} % at step {best['step']} (best on val)",
            f"time       {result['seconds']:.1f} s, {result['images_per_s']:.1f} images/s",
            f"network    {result['checkpoint']}",
            *(f"{'' if n else 'next':<11}{line}" for n, line in enumerate(result["next"])),
        )
    )
