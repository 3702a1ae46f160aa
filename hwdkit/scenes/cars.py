"""Cars: a side profile swept across the width and turned to a heading.

Solid, so that perspective, the two visible faces and what they hide come out right.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from hwdkit.scenes.actors import PAINTS
from hwdkit.scenes.stage import CAR, Colour, Dice, Point, Stage, scaled

CABIN = 1.2
"""Metres above which the body narrows."""

CIRCLE = tuple((math.cos(k * math.pi / 6), math.sin(k * math.pi / 6)) for k in range(12))


@dataclass(frozen=True)
class Model:
    """A kind of car.

    Args:
        profile: (along, up) corners from tail to nose; along in lengths (-0.5..0.5), up in metres.
        length, width: metres.
        glass: which edges of the profile are windows that span the width.
        window: corners of the side window, like profile.
        pillar: the side window is split by a post.
    """

    profile: tuple[Point, ...]
    length: float
    width: float
    glass: tuple[int, int]
    window: tuple[Point, ...]
    pillar: bool = True


SEDAN = Model(
    ((-0.5, 0.34), (-0.5, 0.88), (-0.36, 0.95), (-0.24, 1.38),
     (0.1, 1.42), (0.27, 0.96), (0.5, 0.78), (0.5, 0.34)),
    4.5, 1.78, (2, 4), ((-0.31, 1.0), (-0.22, 1.32), (0.08, 1.35), (0.21, 1.0)),
)  # fmt: skip
HATCHBACK = Model(
    ((-0.5, 0.34), (-0.5, 0.92), (-0.42, 1.44), (0.1, 1.48), (0.29, 1.0), (0.5, 0.8), (0.5, 0.34)),
    3.9, 1.72, (1, 3), ((-0.4, 1.02), (-0.36, 1.36), (0.08, 1.4), (0.22, 1.04)),
)  # fmt: skip
OFF_ROADER = Model(
    ((-0.5, 0.4), (-0.5, 1.05), (-0.44, 1.7), (0.12, 1.74), (0.27, 1.14), (0.5, 1.0), (0.5, 0.4)),
    4.6, 1.9, (1, 3), ((-0.42, 1.18), (-0.38, 1.6), (0.1, 1.64), (0.21, 1.18)),
)  # fmt: skip
VAN = Model(
    ((-0.5, 0.36), (-0.5, 1.2), (-0.48, 2.1), (0.32, 2.14), (0.43, 1.25), (0.5, 1.0), (0.5, 0.36)),
    5.2, 1.98, (1, 3), ((0.12, 1.3), (0.12, 1.9), (0.33, 1.9), (0.4, 1.3)), pillar=False,
)  # fmt: skip


@dataclass(frozen=True)
class Placed:
    """A model that stands at (x, z), turned by the angle of cos and sin."""

    model: Model
    x: float
    z: float
    cos: float
    sin: float

    def at(self, across: float, along: float, up: float) -> tuple[float, float, float]:
        """Street position; across in half widths, along in lengths, up in metres."""
        a, b = across * self.model.width / 2, along * self.model.length
        return self.x + a * self.cos + b * self.sin, up, self.z - a * self.sin + b * self.cos

    def distance(self, stage: Stage, across: float, along: float) -> float:
        """Squared distance of such a point from the eye, to sort faces by."""
        x, _, z = self.at(across, along, 0)
        return (x - stage.camera.x) ** 2 + z**2


def car(stage: Stage, dice: Dice, x: float, z: float, *, heading: float, sun: float) -> None:
    """A car with its centre at (x, z).

    Args:
        heading: in quarter turns: 0 drives away, 2 comes towards the camera, 1 and 3 cross.
        sun: metres that a shadow reaches to the right per metre of height.
    """
    model = dice.weighted({SEDAN: 3, HATCHBACK: 4, OFF_ROADER: 3, VAN: 1.5})
    angle = heading * math.pi / 2 + dice.between(-0.04, 0.04)
    body = Placed(model, x, z, math.cos(angle), math.sin(angle))
    corners = [body.at(1.06 * a, 0.51 * b, 0) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    stage.shadow([(cx, cz) for cx, _, cz in corners], 0.7)
    stage.shadow([(cx + sun * 0.9 * ((cx - x) * sun > 0), cz) for cx, _, cz in corners], 0.45)

    paint = dice.near(dice.pick(PAINTS), 18)
    lit = 0.86 * (1.0 + 0.12 * math.copysign(1.0, sun) * (1 if x > stage.camera.x else -1))
    flank = stage.surface(CAR, scaled(paint, lit), depth=z)
    pane = stage.surface(CAR, dice.near((48, 58, 70), 16), depth=z)
    black = stage.surface(CAR, (22, 22, 24), depth=z)
    hub = stage.surface(CAR, dice.near((128, 130, 134), 20), depth=z)

    _tyres(stage, body, black)
    hidden, seen = sorted((-1, 1), key=lambda a: -body.distance(stage, a, 0))
    _flank(stage, body, hidden, paints=(flank, black, hub))
    _panels(stage, body, paint, pane=pane)
    _flank(stage, body, seen, paints=(flank, black, hub))
    stage.polygon(pane, [body.at(seen * (0.98 - 0.1 * (y > CABIN)), b, y) for b, y in model.window])
    if model.pillar:
        high = model.window[2][1] + 0.05
        post = ((-0.08, 0.95), (-0.08, high), (-0.05, high), (-0.05, 0.95))
        stage.polygon(flank, [body.at(seen * 0.95, b, y) for b, y in post])
    _end(stage, dice, body)


def _tyres(stage: Stage, body: Placed, black: int) -> None:
    """What is seen of the wheels under the bumpers."""
    for axle in (-0.33, 0.33):
        for side in (-1, 1):
            x, _, z = body.at(side * 0.95, axle, 0)
            stage.front(black, z, (x, x - side * 0.22 * abs(body.cos)), (0, 0.42))


def _flank(stage: Stage, body: Placed, side: int, *, paints: tuple[int, int, int]) -> None:
    """One side of the body with its two wheels; paints are of body, tyre and hub."""
    metal, black, hub = paints
    stage.polygon(metal, [body.at(side * (1 - 0.12 * (y > CABIN)), b, y) for b, y in body.model.profile])
    for axle in (-0.31, 0.31):
        for radius, paint in ((0.34, black), (0.19, hub)):
            rim = [(axle + radius * c / body.model.length, 0.34 + radius * s) for c, s in CIRCLE]
            stage.polygon(paint, [body.at(side * 1.01, b, y) for b, y in rim])


def _panels(stage: Stage, body: Placed, paint: Colour, *, pane: int) -> None:
    """All that spans the width (tail, rear window, roof, windscreen, bonnet, nose), far to near."""
    top = stage.surface(CAR, scaled(paint, 1.14), depth=body.z)
    upright = stage.surface(CAR, scaled(paint, 0.94), depth=body.z)
    panels = []
    for edge, ((b0, y0), (b1, y1)) in enumerate(itertools.pairwise(body.model.profile)):
        surface = pane if edge in body.model.glass else upright if abs(b1 - b0) < 0.03 else top
        w0, w1 = (1 - 0.12 * (y > CABIN) for y in (y0, y1))
        face = [body.at(-w0, b0, y0), body.at(w0, b0, y0), body.at(w1, b1, y1), body.at(-w1, b1, y1)]
        panels.append((body.distance(stage, 0, (b0 + b1) / 2), edge, surface, face))
    for _, _, surface, face in sorted(panels, reverse=True):
        stage.polygon(surface, face)


def _end(stage: Stage, dice: Dice, body: Placed) -> None:
    """Lamps, number plate and bumper on the end that faces the camera."""
    end = min((-1, 1), key=lambda e: body.distance(stage, 0, e / 2))
    if abs(body.cos) < 0.5:
        return  # seen from the side
    along = end * 0.505
    light: Colour = (196, 30, 30) if end < 0 else (240, 236, 210)
    lamp = stage.surface(CAR, dice.near(light, 12), depth=body.z)
    plate = stage.surface(CAR, dice.pick(((232, 232, 226), (226, 190, 60))), depth=body.z)
    bumper = stage.surface(CAR, dice.near((46, 46, 50), 14), depth=body.z)
    for surface, (left, right), (low, high) in (
        (bumper, (-1, 1), (0.3, 0.48)),
        (lamp, (-0.96, -0.66), (0.66, 0.82)),
        (lamp, (0.66, 0.96), (0.66, 0.82)),
        (plate, (-0.28, 0.28), (0.5, 0.62)),
    ):
        corners = ((left, low), (right, low), (right, high), (left, high))
        stage.polygon(surface, [body.at(a, along, y) for a, y in corners])
