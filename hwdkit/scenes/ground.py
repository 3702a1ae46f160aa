"""What lies flat: grass, pavements, kerbs, the road and its markings, and the cross-section they follow."""

from __future__ import annotations

from dataclasses import dataclass

from hwdkit.scenes.backdrop import FOLIAGE
from hwdkit.scenes.stage import ROAD, SIDEWALK, TERRAIN, Colour, Dice, Stage, Texture, scaled

ASPHALT = Texture(fine=0.06, clump=0.02, blotch=0.06, streak=0.03)
PAVING = Texture(fine=0.05, clump=0.03, blotch=0.06)
GRASS = Texture(fine=0.13, clump=0.06, blotch=0.08, streak=0.12)


@dataclass(frozen=True)
class Side:
    """One side of the street, from the kerb outwards; distances are |X| in metres.

    Args:
        kerb: where the road ends. walk: (start, end) of the pavement; a verge fills the gap to the kerb.
        plots: "blocks" stand wall to wall, "houses" have gardens, "park" has neither.
        front: the building line.
    """

    sign: int
    kerb: float
    walk: tuple[float, float]
    plots: str
    front: float

    def x(self, distance: float) -> float:
        return self.sign * distance


def lay_ground(stage: Stage, dice: Dice, sides: list[Side]) -> None:
    """Grass everywhere, then pavements, kerbs and the road on top of it."""
    far = 118.0
    grass = stage.surface(TERRAIN, dice.near(dice.pick(FOLIAGE[:6]), 16), texture=GRASS)
    stage.strip(grass, (-300, 300), far)
    # Road and pavement are drawn from one range of greys: the kerb and the joints tell them apart.
    grey = dice.between(74, 142)
    tone: Colour = dice.pick(((1, 1, 1.02), (1.04, 1, 0.95), (0.98, 1, 1.03)))
    asphalt = (grey * tone[0], grey * tone[1], grey * tone[2])
    offset = dice.pick((-1, 1, 1)) * dice.between(8, 34)
    slabs = (grey + offset, grey + offset, grey + offset * dice.between(0.6, 1.0))
    if dice.chance(0.2):
        slabs = dice.near((156, 116, 100), 16)
    kerb = stage.surface(SIDEWALK, scaled(slabs, dice.pick((0.75, 1.2))), texture=PAVING)
    paving = stage.surface(SIDEWALK, slabs, texture=PAVING)
    joint = stage.surface(SIDEWALK, scaled(slabs, 0.84), texture=PAVING)
    drive = stage.surface(SIDEWALK, asphalt, texture=ASPHALT)
    for side in sides:
        yard = side.plots == "blocks" or dice.chance(0.15)
        start, end = side.walk
        stage.strip(paving, (side.x(start), side.x(max(end, 30) if yard else end)), far)
        pitch = dice.between(1.0, 2.2)
        for k in range(1, 22):
            z = k * pitch
            stage.flat(joint, (side.x(start), side.x(end)), (z, z + 0.07 + 0.004 * z))
        stage.strip(joint, (side.x((start + end) / 2), side.x((start + end) / 2 + 0.08)), 30)
        if dice.chance(0.3):  # a driveway in the road's own asphalt crosses the pavement: still pavement
            z = dice.between(5, 16)
            stage.flat(drive, (side.x(side.kerb), side.x(end)), (z, z + 3))
        stage.strip(kerb, (side.x(side.kerb - 0.02), side.x(side.kerb + 0.22)), far)
    road = stage.surface(ROAD, asphalt, texture=ASPHALT)
    stage.strip(road, (sides[0].x(sides[0].kerb), sides[1].x(sides[1].kerb)), far)
    for _ in range(dice.whole(0, 4)):  # repairs and puddles
        patch = stage.surface(ROAD, scaled(asphalt, dice.between(0.72, 1.2)), texture=ASPHALT)
        x, z = dice.between(-0.9, 0.6) * sides[1].kerb, dice.between(2.5, 14)
        stage.flat(patch, (x, x + dice.between(0.5, 2.0)), (z, z + dice.between(0.5, 5)))


def mark_road(stage: Stage, dice: Dice, half: float) -> None:
    """Centre line, edge lines and, sometimes, a zebra crossing or an arrow. All of it is road."""
    white = dice.near((214, 212, 204), 16) if dice.chance(0.85) else dice.near((206, 168, 60), 12)
    paint = stage.surface(ROAD, white, texture=ASPHALT)
    style = dice.weighted({"dashed": 5, "solid": 2, "double": 1, "none": 2})
    if style == "dashed":
        phase, step = dice.between(0, 5), dice.between(4.5, 8)
        for k in range(9):
            z = phase + step * k + 0.8
            stage.flat(paint, (-0.07, 0.07), (z, z + step * 0.45))
    elif style != "none":
        for x in (-0.16, 0.16) if style == "double" else (0.0,):
            stage.strip(paint, (x - 0.06, x + 0.06), 70)
    if dice.chance(0.45):
        for sign in (-1, 1):
            stage.strip(paint, (sign * (half - 0.5), sign * (half - 0.38)), 60)
    if dice.chance(0.28):
        z, x = dice.between(4, 16), -half + 0.4
        while x < half - 0.6:
            stage.flat(paint, (x, x + 0.5), (z, z + 2.6))
            x += 1.0
    if dice.chance(0.15):
        z, x = dice.between(4, 10), half / 2
        stage.flat(paint, (x - 0.08, x + 0.08), (z, z + 2))
        stage.polygon(paint, [(x - 0.35, 0, z + 2), (x + 0.35, 0, z + 2), (x, 0, z + 3.2)])
