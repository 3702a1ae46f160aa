"""Whether a checkpoint is whole: all tensors fit and are finite, and so are the logits of an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hwdkit.checkpoints.files import file_digest
from hwdkit.commands.checkpoint.contents import parameters, title
from hwdkit.engine.networks import load_network
from hwdkit.errors import CheckpointError
from hwdkit.models.segmenter import Segmenter
from hwdkit.report.render import printable


def verify(path: Path) -> dict[str, Any]:
    """Load a checkpoint strictly, look at every number, and segment one image on the CPU.

    Raises:
        CheckpointError: any of it fails.
    """
    loaded = load_network(path)
    state = loaded.model.state_dict()
    require_finite(state, where=str(loaded.path))
    logits = noisy_logits(loaded.model, where=str(loaded.path))
    return {
        "checkpoint": str(loaded.path),
        "sha256": file_digest(loaded.path),
        "network": title(loaded.model.spec.to_dict()),
        "tensors": len(state),
        "parameters": parameters(loaded.model),
        "finite": True,
        "logits": list(logits.shape),
    }


def render(result: dict[str, Any]) -> str:
    """One line: what was checked."""
    return printable(
        f"{result['checkpoint']}: {result['network']}, {result['tensors']} tensors fit and are finite, "
        f"one image gives finite logits {'x'.join(map(str, result['logits']))}"
    )


def require_finite(state: Mapping[str, Tensor], *, where: str) -> None:
    """Refuse weights of a run that has diverged.

    Raises:
        CheckpointError: names the tensors that are not finite.
    """
    broken = [
        name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if broken:
        more = f" and {len(broken) - 6} more" if len(broken) > 6 else ""
        raise CheckpointError(f"NaN or infinity in {', '.join(broken[:6])}{more}", where=where)


def noisy_logits(model: Segmenter, *, where: str) -> Tensor:
    """The logits (1, C, h, w) of one noisy image, always the same.

    Raises:
        CheckpointError: they are not finite.
    """
    image = torch.randint(256, (1, 3, 65, 97), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.inference_mode():
        logits: Tensor = model.eval()(image).logits
    if logits.shape[:2] != (1, model.spec.classes) or not logits.isfinite().all():
        raise CheckpointError(
            "its weights are finite, but the logits of an image are not", where=where, hint="it has diverged"
        )
    return logits
