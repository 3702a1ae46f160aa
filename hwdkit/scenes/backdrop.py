"""What lines the street: buildings, trees, hedges, fences, and the skyline.

Each function paints one object in metres; side is -1 left of the road, 1 right of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwdkit.scenes.actors import PAINTS, plate
from hwdkit.scenes.stage import (
    BUILDING,
    FENCE,
    VEGETATION,
    Colour,
    Dice,
    Point,
    Stage,
    Texture,
    scaled,
)

FACADES: tuple[Colour, ...] = (
    (150, 92, 72), (176, 164, 146), (196, 178, 140), (120, 118, 116), (204, 200, 192), (132, 106, 84),
    (160, 120, 96), (112, 124, 136), (186, 150, 120), (98, 104, 90), (150, 160, 172), (92, 80, 74),
)  # fmt: skip
FOLIAGE: tuple[Colour, ...] = (
    (70, 96, 48), (86, 110, 52), (58, 82, 50), (104, 116, 58), (142, 116, 58), (126, 128, 66), (142, 100, 58),
)  # fmt: skip
"""Shared with grass: season and light say nothing about which of the two it is."""

MASONRY = Texture(fine=0.045, clump=0.03, blotch=0.06)
LEAVES = Texture(fine=0.1, clump=0.24, blotch=0.06)
BOARDS = Texture(fine=0.06, clump=0.02, blotch=0.05)


@dataclass(frozen=True)
class Plot:
    """Where a building stands: its street wall at x, from z[0] to z[1], going `deep` metres outwards."""

    side: int
    x: float
    z: Point
    deep: float
    height: float

    @property
    def back(self) -> float:
        return self.x + self.side * self.deep


def building(stage: Stage, dice: Dice, plot: Plot, *, pitched: bool, lamps: bool, lit: float) -> None:
    """A house or block: wall along the street, gable towards the camera, roof, windows, shops, posters.

    Args:
        pitched: has a ridge roof parallel to the street.
        lamps: it is dark enough for windows to be lit.
        lit: brightness of the street wall relative to the gable.
    """
    near, far = plot.z
    depth = (max(near, 2) + far) / 2
    paint = dice.near(dice.pick(FACADES), 22)
    street = stage.surface(BUILDING, scaled(paint, lit), depth=depth, texture=MASONRY)
    gable = stage.surface(BUILDING, scaled(paint, 2 - lit - 0.12), depth=near, texture=MASONRY)
    if pitched:
        rise = dice.between(1.8, 3.5)
        ridge = plot.x + plot.side * plot.deep / 2
        tiles = stage.surface(
            BUILDING,
            dice.near(dice.pick(((120, 70, 54), (84, 80, 82), (104, 92, 80)))),
            depth=depth,
            texture=MASONRY,
        )
        eave, crest = plot.height, plot.height + rise
        out = plot.x - plot.side * 0.4
        stage.polygon(tiles, [(out, eave, near), (ridge, crest, near), (ridge, crest, far), (out, eave, far)])
        stage.polygon(gable, [(plot.x, eave, near), (ridge, crest, near), (plot.back, eave, near)])
    stage.front(gable, near, (plot.x, plot.back), (0, plot.height))
    stage.wall(street, plot.x, plot.z, (0, plot.height))
    trim = stage.surface(BUILDING, scaled(paint, dice.pick((0.7, 0.8, 1.2))), depth=depth)
    if dice.chance(0.6):
        stage.wall(trim, plot.x, plot.z, (plot.height - 0.35, plot.height))
        stage.front(trim, near, (plot.x, plot.back), (plot.height - 0.35, plot.height))
    if dice.chance(0.4):  # a downpipe: looks like a pole, is part of the building
        stage.wall(trim, plot.x - plot.side * 0.05, (near, near + 0.25), (0, plot.height))
    _windows(stage, dice, plot, trim=trim, lamps=lamps)
    _ground_floor(stage, dice, plot)


def _windows(stage: Stage, dice: Dice, plot: Plot, *, trim: int, lamps: bool) -> None:
    """Rows of panes on both visible walls, as far away as a pane still covers a pixel."""
    near, far = plot.z
    glass: list[Colour] = [(56, 64, 76), (92, 108, 124), (40, 42, 48), (150, 158, 164)]
    if lamps:
        glass += [(255, 214, 130), (255, 190, 100)]
    tints = [dice.near(dice.pick(glass), 10) for _ in range(4)]
    panes = [stage.surface(BUILDING, tint, depth=(near + far) / 2) for tint in tints]
    pitch, storey = dice.between(2.0, 3.6), dice.between(2.9, 3.6)
    wide, tall = pitch * dice.between(0.35, 0.7), storey * dice.between(0.4, 0.62)
    framed = dice.chance(0.5)
    rows = [0.9 + storey * k for k in range(int((plot.height - 0.6) / storey))]
    columns = range(int((far - near) / pitch))
    for column in columns:
        z = near + 0.5 + column * pitch
        if z > 3 and stage.camera.pixels(wide, z) * abs(plot.x - stage.camera.x) / z < 0.5:
            break
        for y in rows:
            if framed:
                stage.wall(trim, plot.x, (z - 0.15, z + wide + 0.15), (y - 0.18, y + tall + 0.15))
            stage.wall(dice.pick(panes), plot.x, (z, z + wide), (y, y + tall))
    if stage.camera.pixels(wide, near) < 1.0:
        return
    for column in range(int((plot.deep - 0.6) / pitch)):
        x = plot.x + plot.side * (0.6 + column * pitch)
        for y in rows:
            if framed:
                stage.front(
                    trim,
                    near,
                    (x - plot.side * 0.15, x + plot.side * (wide + 0.15)),
                    (y - 0.18, y + tall + 0.15),
                )
            stage.front(dice.pick(panes), near, (x, x + plot.side * wide), (y, y + tall))


def _ground_floor(stage: Stage, dice: Dice, plot: Plot) -> None:
    """Doors, shop fronts with awnings, and posters that a careless eye takes for traffic signs."""
    near, far = plot.z
    depth = (near + far) / 2
    dark = stage.surface(BUILDING, dice.near((50, 46, 44), 14), depth=depth)
    door = near + dice.between(0.3, 0.8) * (far - near)
    stage.wall(dark, plot.x, (door, door + 1.1), (0, 2.2))
    if plot.height > 7 and dice.chance(0.5):
        shop = stage.surface(BUILDING, dice.near((86, 92, 96), 24), depth=depth)
        fascia = stage.surface(BUILDING, dice.near(dice.pick(PAINTS), 16), depth=depth)
        stage.wall(shop, plot.x, (near + 0.6, far - 0.6), (0.4, 2.6))
        stage.wall(fascia, plot.x - plot.side * 0.3, (near + 0.4, far - 0.4), (2.7, 3.3))
    if dice.chance(0.45):
        for _ in range(dice.whole(1, 3)):
            radius = dice.between(0.3, 0.9)
            x = plot.x + plot.side * dice.between(radius, max(radius, plot.deep - radius))
            plate(stage, dice, (x, dice.between(1.6, 4.5), near), radius, label=BUILDING)
    for _ in range(dice.whole(0, 2)):  # boards on the street wall, seen at a slant
        poster = stage.surface(BUILDING, dice.near(dice.pick(PAINTS), 20), depth=depth)
        z, y = near + dice.unit() * (far - near - 1), dice.between(1.0, 4.0)
        stage.wall(
            poster,
            plot.x - plot.side * 0.02,
            (z, z + dice.between(0.6, 1.6)),
            (y, y + dice.between(0.6, 1.4)),
        )


def tree(stage: Stage, dice: Dice, x: float, z: float, *, scale: float = 1.0) -> None:
    """Trunk and crown are both vegetation; the crown is clumps, lit from above."""
    green = dice.near(dice.pick(FOLIAGE), 16)
    bark = stage.surface(VEGETATION, dice.near((84, 68, 54), 16), depth=z, texture=BOARDS)
    shades = [
        stage.surface(VEGETATION, scaled(green, g), depth=z, texture=LEAVES) for g in (0.66, 0.84, 1.0, 1.18)
    ]
    height = dice.between(4.5, 9) * scale
    trunk = height * dice.between(0.3, 0.42)
    stage.stroke(
        bark, z, ((x, 0), (x + dice.between(-0.2, 0.2), trunk * 1.3)), dice.between(0.18, 0.4) * scale
    )
    stage.shadow(((x - 1.2, z - 0.7), (x + 1.2, z - 0.7), (x + 1.6, z + 0.9), (x - 1.6, z + 0.9)), 0.3)
    if dice.chance(0.22):  # conifer
        for k in range(4):
            y, half = 0.8 * scale + (height - 1) * k / 4, (1.9 - 0.42 * k) * scale
            stage.polygon(shades[k], [(x - half, y, z), (x + half, y, z), (x, y + height * 0.42, z)])
        return
    wide, tall = dice.between(1.3, 2.4) * scale, (height - trunk) / 2
    middle = trunk + tall
    for k in range(11):
        across, up = dice.between(-1, 1), dice.between(-1, 1)
        clump = dice.between(0.34, 0.6)
        level = min(3, max(0, int((up + 1) * 1.4 + dice.between(0, 1.2))))
        at = (x + across * wide * (1 - 0.4 * abs(up)), middle + up * tall * 0.8, z)
        if k == 0:
            at, clump, level = (x, middle, z), 0.85, 1
        stage.disc(shades[level], at, (wide * clump, tall * clump))


def bush(stage: Stage, dice: Dice, x: float, z: float) -> None:
    """A knee- to man-high shrub."""
    green = dice.near(dice.pick(FOLIAGE), 16)
    for gain in (0.7, 0.9, 1.1):
        leaf = stage.surface(VEGETATION, scaled(green, gain), depth=z, texture=LEAVES)
        for _ in range(2):
            r = dice.between(0.3, 0.7)
            stage.disc(leaf, (x + dice.between(-0.7, 0.7), r * (0.3 + gain * 0.6), z), (r, r))


def hedge(stage: Stage, dice: Dice, at: tuple[int, float], z: Point, *, green: Colour, height: float) -> None:
    """A clipped hedge along the street; `at` is (side, x of its street face)."""
    side, x = at
    depth = (z[0] + z[1]) / 2
    face, end, top = (
        stage.surface(VEGETATION, scaled(green, gain), depth=depth, texture=LEAVES)
        for gain in (0.85, 0.72, 1.1)
    )
    deep = x + side * 0.9
    stage.polygon(top, [(x, height, z[0]), (deep, height, z[0]), (deep, height, z[1]), (x, height, z[1])])
    stage.front(end, z[0], (x, deep), (0, height))
    stage.wall(face, x, z, (0, height))
    for _ in range(2):  # twigs break the clipped edge
        spot = dice.between(z[0], z[1])
        stage.disc(face, (x + side * 0.3, height, spot), (0.25, dice.between(0.08, 0.25)))


def fence(
    stage: Stage, dice: Dice, x: float, z: Point, *, style: str, paint: Colour, behind: Colour, height: float
) -> None:
    """One run of fence along the street at x: boards, pickets, bars or a guard rail.

    All of the panel is fence, gaps included; the gaps of pickets and bars show `behind`, as they do in life.
    """
    depth = (z[0] + z[1]) / 2
    slat = stage.surface(FENCE, paint, depth=depth, texture=BOARDS)
    shaded = stage.surface(FENCE, scaled(paint, 0.72), depth=depth, texture=BOARDS)
    gap = stage.surface(
        FENCE, scaled(paint, 0.5) if style == "boards" else behind, depth=depth, texture=LEAVES
    )
    if style == "rail":
        for low, high, surface in ((0.45, 0.62, slat), (0.62, 0.68, shaded), (0.68, 0.85, slat)):
            stage.wall(surface, x, z, (low, high))
        step, wide, height, base = 2.5, 0.14, 0.8, 0.0
    else:
        base = 0.05
        stage.wall(gap, x, z, (base, height * 0.96))
        step, wide = {"boards": (0.3, 0.25), "pickets": (0.26, 0.13), "bars": (0.34, 0.08)}[style]
    spot = z[0]
    while spot < z[1]:
        # Slats thinner than a third of a pixel would only alias: draw fewer and wider ones further away.
        grow = max(1.0, 0.5 / max(1e-3, stage.camera.pixels(step, spot) * abs(x - stage.camera.x) / spot))
        top = height * dice.between(0.96, 1.02)
        stage.wall(
            slat if dice.chance(0.7) else shaded, x, (spot, min(z[1], spot + wide * grow)), (base, top)
        )
        spot += step * grow
    if style in ("pickets", "bars"):
        for y in (0.25 * height, 0.8 * height):
            stage.wall(slat, x, z, (y, y + 0.09))


def skyline(stage: Stage, dice: Dice, *, green: float) -> None:
    """Distant blocks and tree tops where the street ends; `green` is the share of trees."""
    z = 110.0
    x, rise = -180.0, dice.between(0.8, 2.8)
    while x < 180:
        wide = dice.between(5, 16)
        if dice.chance(green):
            leaf = stage.surface(VEGETATION, dice.near(dice.pick(FOLIAGE)), depth=z, texture=LEAVES)
            high = dice.between(4, 9)
            stage.front(leaf, z, (x, x + wide), (-1, high * 0.5))
            for k in range(4):
                stage.disc(
                    leaf,
                    (x + wide * (k + 0.5) / 4, high * 0.5, z),
                    (wide * 0.2, high * dice.between(0.3, 0.6)),
                )
        else:
            block = stage.surface(BUILDING, dice.near(dice.pick(FACADES), 20), depth=z, texture=MASONRY)
            stage.front(block, z, (x, x + wide), (-1, rise * dice.between(5, 18)))
        x += wide
