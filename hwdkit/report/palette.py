"""Which colour stands for which model, in plots and on the page.

References are neutral (teacher dark, baseline grey) so that colour belongs to the students alone.
The hues follow Okabe and Ito's palette for colour-blind readers, darkened or lightened to keep a
contrast of 3:1 with a light or a dark page.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple

from hwdkit.measure.types import ModelSummary


class Tone(NamedTuple):
    """One colour in two lights, as #rrggbb."""

    light: str
    dark: str


TEACHER = Tone("#33383f", "#d9dbdc")
BASELINE = Tone("#8d939c", "#787f89")
STUDENT = Tone("#0072b2", "#56b4e9")
OTHERS = (
    Tone("#d55e00", "#f0863a"),
    Tone("#008f68", "#35c79c"),
    Tone("#b8578c", "#e394c1"),
    Tone("#9a7400", "#e8c547"),
    Tone("#6a55b0", "#a797ea"),
)


def model_tones(models: Sequence[ModelSummary], student: str) -> dict[str, Tone]:
    """Give every model its colour.

    Args:
        models: the report's models, in display order.
        student: the compared student, which gets the leading hue.

    Returns:
        Model name -> tone. The first teacher and the first baseline are neutral; hues repeat after six.
    """
    hues = cycle(OTHERS)
    reserved = {"teacher": TEACHER, "baseline": BASELINE}
    tones: dict[str, Tone] = {}
    for model in models:
        if model.name == student:
            tones[model.name] = STUDENT
        elif model.role in reserved:
            tones[model.name] = reserved.pop(model.role)
        else:
            tones[model.name] = next(hues)
    return tones


def hex_colour(colour: tuple[int, int, int]) -> str:
    """Write an RGB triple of 0..255 as #rrggbb."""
    red, green, blue = (max(0, min(255, int(value))) for value in colour)
    return f"#{red:02x}{green:02x}{blue:02x}"
