"""hwdkit visualize smoothing: HWD's Eq. 7 as a curve, by the loss's own code."""

from __future__ import annotations

from typing import Any

import torch

from hwdkit.commands.visualize import Smoothing
from hwdkit.losses.hwd import smooth
from hwdkit.report.render import number
from hwdkit.report.table import Table


def run(options: Smoothing) -> tuple[dict[str, Any], bytes]:
    """The figure, the paper's Fig. 3, and its points: exp((1 - beta^w) / (1 - beta)) over w."""
    weights = torch.linspace(options.low, options.high, options.points, dtype=torch.float64)
    curves = {f"beta {beta:g}": factors(weights, beta) for beta in options.betas}
    from hwdkit.report.plots.weights import smoothing_lines

    content = smoothing_lines(weights.tolist(), curves, options.suffix)
    return {
        "normalised_divergence": weights.tolist(),
        "curves": [
            {"beta": beta, "factor": curve}
            for beta, curve in zip(options.betas, curves.values(), strict=True)
        ],
    }, content


def factors(weights: torch.Tensor, beta: float) -> list[float]:
    """How much more a channel weighs than one whose normalised divergence is 0: (P,) float64 -> P numbers.

    The softmax of Eq. 7 divides all channels of an image by the same number, which falls out here; that of a
    channel at 0 is exp(0) = 1.
    """
    weighed = smooth(
        torch.cat([weights.new_zeros(1), weights])[None], smoothing="effective_number", beta=beta
    )[0]
    return list((weighed[1:] / weighed[0]).tolist())


def render(result: dict[str, Any]) -> tuple[Table, str]:
    """A few points of each curve."""
    last = len(result["normalised_divergence"]) - 1
    table = Table(
        ["normalised divergence", *(f"beta {curve['beta']:g}" for curve in result["curves"])],
        (
            (
                f"{result['normalised_divergence'][i]:.2f}",
                *(number(curve["factor"][i]) for curve in result["curves"]),
            )
            for i in dict.fromkeys(round(last * tenth / 10) for tenth in range(11))
        ),
    )
    return table, ""
