"""What a run logs while it works, as lines of text."""

from __future__ import annotations

from typing import Any


def step(row: dict[str, Any], total: int) -> str:
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
