"""Channel activation maps over their image: a row a class, a column a network (CWD paper, Fig. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes

from hwdkit.measure.activation_maps import ActivationMap
from hwdkit.measure.overlay import Pixels
from hwdkit.report.plots.images import image_grid, shortened
from hwdkit.report.plots.style import QUIET, STYLE, Form, encoded

HEAT = "magma"
OUTLINE = "#00e5ff"


@dataclass(frozen=True)
class ActivationRow:
    """One class of one image.

    `image` (H, W, 3) uint8 and `label` (H, W) uint8, shrunk alike; `maps`: network -> its map.
    """

    class_name: str
    class_index: int
    image: Pixels
    label: Pixels
    maps: dict[str, ActivationMap]

    @property
    def scale(self) -> float:
        """The density that is drawn brightest, the same for all networks of the row."""
        return max(one.peak for one in self.maps.values())


def activations(rows: Sequence[ActivationRow], *, temperature: float, form: Form) -> bytes:
    """Draw every map over its image in gray, the class's ground truth outlined.

    Bright is the row's highest density, the same for all networks, black is 0. Below a panel is the share
    of the activation that lies on the class's own pixels.
    """
    networks = list(rows[0].maps)
    ratio = max(row.image.shape[0] / row.image.shape[1] for row in rows)
    side = max(max(row.image.shape[:2]) for row in rows)
    with matplotlib.rc_context(STYLE):
        figure, grid = image_grid(["image", *networks], len(rows), side=side, ratio=ratio, extra=0.2)
        width = figure.get_size_inches()[0]
        figure.set_size_inches(width + 0.7, figure.get_size_inches()[1])
        for row, line in zip(rows, grid, strict=True):
            line[0].imshow(row.image, interpolation="nearest")
            _outline(line[0], row)
            line[0].set_xlabel(shortened(row.class_name, 22), fontsize=9, labelpad=2)
            for panel, name in zip(line[1:], networks, strict=True):
                heat = row.maps[name].at_size((row.image.shape[0], row.image.shape[1])).numpy()
                panel.imshow(row.image.mean(2), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                drawn = panel.imshow(
                    heat, cmap=HEAT, vmin=0, vmax=row.scale, alpha=0.68, interpolation="nearest"
                )
                _outline(panel, row)
                share = row.maps[name].on_class
                label = "class absent" if share is None else f"{100 * share:.1f} % on the class"
                panel.set_xlabel(label, fontsize=8, labelpad=2, color=QUIET)
            bar = figure.colorbar(drawn, ax=line, fraction=0.03, pad=0.01, aspect=15)
            bar.outline.set_visible(False)
            bar.ax.tick_params(labelsize=7, length=0)
            bar.set_label("× mean", fontsize=7, color=QUIET)
        figure.supxlabel(f"softmax over the positions, tau {temperature:g}", fontsize=8, color=QUIET)
        return encoded(figure, form)


def _outline(panel: Axes, row: ActivationRow) -> None:
    inside = row.label == row.class_index
    if inside.any() and not inside.all():
        panel.contour(inside.astype(float), levels=[0.5], colors=OUTLINE, linewidths=0.8)
