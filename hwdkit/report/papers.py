"""The papers of the methods, for those who publish a network and owe a citation."""

from __future__ import annotations

from collections.abc import Iterable

from hwdkit.losses import LOSSES

PAPERS: dict[str, str] = {name: loss.paper for name, loss in LOSSES.items() if loss.paper}


def papers_of(losses: Iterable[str]) -> list[str]:
    """The papers of some losses, each once, in their order."""
    return list(dict.fromkeys(PAPERS[loss] for loss in losses if loss in PAPERS))
