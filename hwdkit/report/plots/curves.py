"""A run over its steps: loss terms, learning rate, mIoU."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

from hwdkit.report.palette import BASELINE, TEACHER
from hwdkit.report.plots.style import HUES, QUIET, STYLE, Form, encoded, new_panels, shown_name

NOT_A_TERM = {"step", "epoch", "lr", "miou", "macc", "pixel_accuracy", "total", "loss"}
UNITS = ("_ms", "_s", "_mib", "_per_s", "_norm", "_seconds")


def curves(
    rows: Sequence[Mapping[str, Any]], form: Form = "png", *, terms: Sequence[str] | None = None
) -> bytes:
    """Draw a run's loss terms, learning rate and mIoU over its steps, in panels that share the step axis.

    Args:
        rows: lines of a metrics.jsonl; those without `step` are skipped. A value may be missing in any line.
        form: `png` or `svg`.
        terms: keys that hold loss terms; None takes every number that is neither a score, the learning rate,
            nor a key ending in a unit.

    Returns:
        The encoded figure; panels without a value are left out.
    """
    lines = [row for row in rows if _is_number(row.get("step"))]
    losses = list(terms) if terms is not None else _term_keys(lines)
    keys_of = {"loss": losses, "learning rate": ["lr"], "mIoU, %": ["miou"]}
    series = {title: [(key, *_series(lines, key)) for key in keys] for title, keys in keys_of.items()}
    series = {title: [line for line in drawn if line[1]] for title, drawn in series.items()}
    series = {title: drawn for title, drawn in series.items() if drawn}
    colours = [*HUES, TEACHER.light, BASELINE.light]
    with matplotlib.rc_context(STYLE):
        figure, panels = new_panels(max(1, len(series)), height=1.7)
        for panel, (title, drawn) in zip(panels, series.items(), strict=False):
            for index, (key, steps, values) in enumerate(drawn):
                shown = [100 * value for value in values] if key == "miou" else values
                dot = "o" if key == "miou" or len(steps) == 1 else ""
                colour = colours[index % len(colours)]
                panel.plot(
                    steps, shown, color=colour, linewidth=1.6, marker=dot, markersize=4, label=shown_name(key)
                )
            panel.set_title(title, loc="left", fontsize=10, color=QUIET)
            panel.grid(axis="y")
            panel.sharex(panels[0])
            if len(drawn) > 1:
                panel.legend(frameon=False, fontsize=9, loc="upper right")
        panels[-1].set_xlabel("step")
        return encoded(figure, form)


def _term_keys(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for line in lines for key, value in line.items() if _is_number(value))
    return [key for key in keys if key not in NOT_A_TERM and not key.endswith(UNITS)]


def _series(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    known = [(float(line["step"]), float(line[key])) for line in lines if _is_number(line.get(key))]
    return [step for step, _ in known], [value for _, value in known]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
