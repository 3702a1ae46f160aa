"""HWD's channel weights: bars by class, lines over training; and the smoothing behind them (Fig. 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib

from hwdkit.measure.channel_weights import ChannelWeights
from hwdkit.measure.overlay import Colour
from hwdkit.report.palette import Tone, hex_colour
from hwdkit.report.plots.images import shortened
from hwdkit.report.plots.style import (
    HUES,
    INK,
    MARKS,
    QUIET,
    STYLE,
    Form,
    encoded,
    legend,
    logarithmic,
    new_panels,
    shown_name,
)

LEAST_DRAWN = 1e-3
"""A channel that weighs a thousandth weighs nothing; the curves fall by fifty more decades."""


def weight_bars(
    students: Mapping[str, ChannelWeights],
    shown: Sequence[int],
    classes: Sequence[str],
    *,
    tones: Mapping[str, Tone],
    form: Form,
) -> bytes:
    """Draw a group of bars a class in the order of `shown`; the line at 1 is what CWD weighs."""
    bar = 0.8 / len(students)
    height = max(0.24, 0.11 * len(students) + 0.05)
    with matplotlib.rc_context(STYLE):
        figure, (panel,) = new_panels(1, height=0.7 + height * len(shown))
        for number, (name, weights) in enumerate(students.items()):
            offset = (number - (len(students) - 1) / 2) * bar
            panel.barh(
                [place + offset for place in range(len(shown))],
                [weights.mean[c] for c in shown],
                height=bar * 0.88,
                color=tones[name].light,
                label=shown_name(name),
            )
        panel.axvline(1, color=INK, linewidth=1)
        panel.set_yticks(range(len(shown)), [shortened(classes[c], 28) for c in shown], color=INK)
        panel.set_ylim(len(shown) - 0.4, -0.6)
        panel.grid(axis="x")
        panel.set_xlabel("mean weight of the class's channel; 1 = plain CWD")
        if len(students) > 1:
            legend(figure, panel)
        return encoded(figure, form)


def weight_lines(
    steps: Sequence[int],
    weights: Sequence[ChannelWeights],
    shown: Sequence[int],
    *,
    classes: Sequence[str],
    palette: Sequence[Colour],
    form: Form,
) -> bytes:
    """Draw each shown class's mean weight over the steps, in the dataset's colours."""
    with matplotlib.rc_context(STYLE):
        figure, (panel,) = new_panels(1, height=3.6)
        panel.axhline(1, color=INK, linewidth=1)
        for number, c in enumerate(shown):
            panel.plot(
                steps,
                [one.mean[c] for one in weights],
                color=hex_colour(palette[c]),
                marker=MARKS[number % len(MARKS)],
                markersize=5,
                markeredgecolor=INK,
                markeredgewidth=0.4,
                linewidth=1.8,
                label=shortened(classes[c], 18),
            )
        panel.grid(axis="y")
        panel.set_xlabel("step")
        panel.set_ylabel("mean weight; 1 = plain CWD")
        legend(figure, panel)
        return encoded(figure, form)


def smoothing_lines(weights: Sequence[float], curves: Mapping[str, Sequence[float]], form: Form) -> bytes:
    """Draw how much more a channel weighs than one at 0, on a logarithmic axis.

    Args:
        weights: (P,) normalised divergences.
        curves: what it is called -> (P,) factors; what is below `LEAST_DRAWN` leaves the panel.
        form: `png`, `svg` or `pdf`.
    """
    with matplotlib.rc_context(STYLE):
        figure, (panel,) = new_panels(1, height=3.4)
        for number, (name, values) in enumerate(curves.items()):
            panel.plot(
                weights,
                [max(value, LEAST_DRAWN / 10) for value in values],  # a logarithm needs one
                color=HUES[number % len(HUES)],
                linewidth=1.8,
                label=name,
            )
        known = [value for values in curves.values() for value in values if value > 0]
        panel.set_yscale("log")
        panel.set_ylim(max(LEAST_DRAWN, 0.7 * min(known)), 1.5 * max(known))
        logarithmic(panel, panel.yaxis)
        panel.axhline(1, color=QUIET, linewidth=0.8)
        panel.axvline(0, color=QUIET, linewidth=0.8)
        panel.grid(axis="y")
        panel.set_xlabel("normalised divergence of the channel")
        panel.set_ylabel("weight, relative to a channel at 0")
        legend(figure, panel)
        return encoded(figure, form)
