"""The figure of a comparison: differences of mIoU with their intervals."""

from __future__ import annotations

import math

import matplotlib

from hwdkit.measure.comparison import Comparison
from hwdkit.report.palette import BASELINE, STUDENT
from hwdkit.report.plots.style import INK, STYLE, Form, encoded, new_panels, shown_name


def intervals(comparison: Comparison, form: Form = "png") -> bytes:
    """Draw every difference as a dot on its interval; those that leave out 0 are coloured.

    Differences without a number (no labelled pixel) are left out.
    """
    shown = [each for each in comparison.differences if not math.isnan(each.miou.delta)]
    with matplotlib.rc_context(STYLE):
        figure, (panel,) = new_panels(1, height=0.7 + 0.34 * max(1, len(shown)))
        for line, each in enumerate(shown):
            tone = STUDENT if each.miou.beyond_noise else BASELINE
            ends = [100 * each.miou.low, 100 * each.miou.high]
            panel.plot(ends, [line, line], color=tone.light, linewidth=2.5, solid_capstyle="butt")
            panel.plot([100 * each.miou.delta], [line], "o", color=tone.light, markersize=6)
        panel.axvline(0, color=INK, linewidth=1)
        names = [f"{shown_name(each.method)} − {shown_name(each.against)}" for each in shown]
        panel.set_yticks(range(len(shown)), names, color=INK)
        panel.set_ylim(max(1, len(shown)) - 0.4, -0.6)
        panel.grid(axis="x")
        setting = comparison.setting
        panel.set_xlabel(f"difference of mIoU, points, with {setting.confidence:g} % intervals")
        return encoded(figure, form)
