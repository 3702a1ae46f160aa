"""The figures of a per-class report: IoU of every network (HWD paper, Fig. 2), and TD/NTD."""

from __future__ import annotations

import math

import matplotlib

from hwdkit.measure.types import PerClassReport
from hwdkit.report.palette import STUDENT, model_tones
from hwdkit.report.plots.style import INK, STYLE, Form, encoded, legend, logarithmic, new_panels, shown_name

CLASSES_IN_A_ROW = 7


def iou_bars(report: PerClassReport, form: Form = "png") -> bytes:
    """Draw grouped bars of IoU, one group a class and one bar a model (HWD paper, Fig. 2).

    Many classes are broken into several panels, one below the other, so that labels stay readable.
    """
    tones = model_tones(report.models, report.pair[0])
    chunks = [report.rows[i : i + CLASSES_IN_A_ROW] for i in range(0, len(report.rows), CLASSES_IN_A_ROW)]
    with matplotlib.rc_context(STYLE):
        figure, panels = new_panels(max(1, len(chunks)), height=1.9)
        bar = 0.82 / max(1, len(report.models))
        for panel, chunk in zip(panels, chunks, strict=False):
            for index, model in enumerate(report.models):
                offset = (index - (len(report.models) - 1) / 2) * bar
                scores = [100 * row.iou.get(model.name, math.nan) for row in chunk]
                places = [place + offset for place in range(len(chunk))]
                tone, label = tones[model.name].light, shown_name(model.name)
                panel.bar(places, scores, width=bar * 0.86, color=tone, label=label)
            panel.set_xlim(-0.6, CLASSES_IN_A_ROW - 0.4)
            panel.set_ylim(0, 100)
            panel.set_yticks([0, 50, 100])
            panel.set_xticks(range(len(chunk)), [_wrapped(row.name) for row in chunk], color=INK)
            panel.grid(axis="y")
        panels[0].set_ylabel("IoU, %")
        legend(figure, panels[0])
        return encoded(figure, form)


def td_ntd(report: PerClassReport, form: Form = "png") -> bytes:
    """Draw TD/NTD of each class on a logarithmic scale, the largest on top (HWD paper, Table I).

    Classes without a ratio (no pixel, or no divergence elsewhere) are left out.
    """
    rows = [row for row in report.ordered("td-ntd") if row.ratio is not None and 0 < row.ratio < math.inf]
    with matplotlib.rc_context(STYLE):
        figure, (panel,) = new_panels(1, height=0.9 + 0.27 * max(1, len(rows)))
        ratios = [row.ratio or 1.0 for row in rows]
        panel.set_xscale("log")
        panel.barh(range(len(rows)), [r - 1 for r in ratios], left=1, height=0.55, color=STUDENT.light)
        for place, ratio in enumerate(ratios):
            panel.annotate(
                f"{ratio:.3g}",
                (max(1, ratio), place),
                (5, 0),
                textcoords="offset points",
                va="center_baseline",
            )
        panel.axvline(1, color=INK, linewidth=1)
        panel.set_yticks(range(len(rows)), [shown_name(row.name) for row in rows], color=INK)
        panel.set_ylim(len(rows) - 0.4, -0.6)
        panel.set_xlim(min([0.8, *ratios]), 2.2 * max([10, *ratios]))
        logarithmic(panel, panel.xaxis)
        panel.grid(axis="x")
        student, teacher = report.pair
        panel.set_xlabel(
            f"target / non-target divergence, {shown_name(student)} against {shown_name(teacher)}"
        )
        return encoded(figure, form)


def _wrapped(name: str) -> str:
    """Break a label at its blanks, and shorten what is still too long for its group."""
    words = [word if len(word) <= 11 else f"{word[:10]}…" for word in shown_name(name).split()]
    return "\n".join(words[:2]) + ("…" if len(words) > 2 else "")
