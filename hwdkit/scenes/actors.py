"""What stands or moves in the street: people, bicycles, lamp posts, traffic signs, bins.

Each function paints one object at ground position (x, z), in metres; the caller orders them far to near.
Cars are in `cars.py`.
"""

from __future__ import annotations

from hwdkit.scenes.stage import (
    BICYCLE,
    IGNORE,
    PERSON,
    POLE,
    SIGN,
    Colour,
    Dice,
    Point,
    Stage,
    Texture,
    scaled,
)

PAINTS: tuple[Colour, ...] = (
    (168, 32, 34), (34, 62, 130), (226, 226, 224), (28, 29, 33), (122, 126, 132), (60, 96, 66),
    (196, 160, 40), (92, 60, 44), (176, 182, 190), (70, 110, 150), (150, 88, 52), (88, 40, 56),
)  # fmt: skip
"""Shared by cars, clothes, signs, posters, awnings and bins, so that paint names no class."""

SKIN: tuple[Colour, ...] = ((224, 182, 154), (196, 148, 116), (142, 98, 70), (92, 62, 46))
HAIR: tuple[Colour, ...] = ((40, 30, 26), (92, 64, 42), (170, 136, 88), (120, 118, 116), (28, 26, 28))
CLOTH = Texture(fine=0.05, clump=0.05)


def person(stage: Stage, dice: Dice, x: float, z: float) -> None:
    """Somebody who walks or stands, seen from any side; now and then a child, a coat, a bag."""
    height = dice.between(1.05, 1.4) if dice.chance(0.15) else dice.between(1.55, 1.9)
    u = height / 1.75
    gait = dice.between(0.02, 0.32) * u
    lean = dice.between(-0.05, 0.05)
    wear, trousers = dice.near(dice.pick(PAINTS), 20), dice.near(dice.pick(PAINTS[1:8]), 16)
    far_leg = stage.surface(PERSON, scaled(trousers, 0.72), depth=z, texture=CLOTH)
    near_leg = stage.surface(PERSON, trousers, depth=z, texture=CLOTH)
    hip = 0.86 * u
    stage.stroke(far_leg, z, [(x, hip), (x - gait * 0.4, 0.45 * u), (x - gait, 0.03)], 0.15 * u)
    stage.stroke(near_leg, z, [(x, hip), (x + gait * 0.6, 0.45 * u), (x + gait * 0.8, 0.03)], 0.16 * u)
    hem = 0.5 * u if dice.chance(0.25) else 0.8 * u
    torso(stage, dice, (x, z), y=(hem, 1.47 * u), lean=lean, wear=wear)
    if dice.chance(0.3):
        bag = stage.surface(PERSON, dice.near(dice.pick(PAINTS)), depth=z, texture=CLOTH)
        side = dice.pick((-1, 1)) * 0.24 * u
        stage.front(bag, z, (x + side - 0.12, x + side + 0.12), (0.7 * u, dice.between(1.0, 1.35) * u))
    head(stage, dice, (x + lean * 2, 1.6 * u, z), u)
    stage.shadow(((x - 0.3, z - 0.2), (x + 0.3, z - 0.2), (x + 0.3, z + 0.2), (x - 0.3, z + 0.2)), 0.35)


def torso(stage: Stage, dice: Dice, at: Point, *, y: Point, lean: float, wear: Colour) -> None:
    """Trunk and arms; `at` is (x, z), `y` from hem to shoulder."""
    (x, z), (low, high) = at, y
    body = stage.surface(PERSON, wear, depth=z, texture=CLOTH)
    sleeve = stage.surface(PERSON, scaled(wear, 0.8), depth=z, texture=CLOTH)
    wide = dice.between(0.19, 0.25) * high / 1.47
    shoulder = high - 0.1
    top = x + lean
    outline = [
        (x - wide * 0.8, low),
        (top - wide, shoulder),
        (top - wide * 0.6, high),
        (top + wide * 0.6, high),
    ]
    outline += [(top + wide, shoulder), (x + wide * 0.8, low)]
    stage.polygon(body, [(px, py, z) for px, py in outline])
    for side in (-1, 1):
        hand = top + side * (wide + dice.between(-0.05, 0.14))
        stage.stroke(
            sleeve, z, [(top + side * wide * 0.95, shoulder), (hand, high - 0.62 * high / 1.47)], 0.1
        )


def head(stage: Stage, dice: Dice, centre: tuple[float, float, float], u: float) -> None:
    """Hair first, then as much of a face as the person shows."""
    x, y, z = centre
    hair = stage.surface(PERSON, dice.near(dice.pick(HAIR + PAINTS[:3]), 10), depth=z)
    stage.disc(hair, centre, (0.125 * u, 0.155 * u))
    if dice.chance(0.65):
        face = stage.surface(PERSON, dice.near(dice.pick(SKIN), 8), depth=z)
        stage.disc(face, (x + dice.between(-0.04, 0.04), y - 0.05 * u, z), (0.095 * u, 0.115 * u))


def bicycle(stage: Stage, dice: Dice, x: float, z: float, *, rider: bool) -> None:
    """Two wheels and a thin frame, turned by any angle; what shows through the wheels keeps its own label."""
    turn = dice.between(0.3, 1.0) if dice.chance(0.75) else 0.14
    turn *= dice.pick((-1.0, 1.0))
    dark = stage.surface(BICYCLE, dice.near((38, 38, 42), 12), depth=z)
    paint = stage.surface(BICYCLE, dice.near(dice.pick(PAINTS), 16), depth=z)
    radius = dice.between(0.32, 0.37)
    for hub in (-0.54, 0.54):
        centre = (x + hub * turn, radius, z)
        if stage.camera.pixels(radius, z) < 3.2 or abs(turn) < 0.2:
            stage.disc(dark, centre, (radius * max(abs(turn), 0.16), radius))
        else:
            stage.ring(dark, centre, (radius * abs(turn), radius), 0.085)
            stage.disc(dark, centre, (0.07 * abs(turn), 0.07))
    rear, front = x - 0.54 * turn, x + 0.54 * turn
    crank, saddle, steer = (x - 0.08 * turn, 0.3), (x - 0.2 * turn, 0.9), (x + 0.4 * turn, 0.92)
    for bar in (
        ((rear, radius), crank, (x + 0.37 * turn, 0.8)),
        ((rear, radius), (x - 0.17 * turn, 0.78), crank),
    ):
        stage.stroke(paint, z, bar, 0.065)
    stage.stroke(paint, z, ((x - 0.17 * turn, 0.78), (x + 0.37 * turn, 0.8), (front, radius)), 0.065)
    stage.stroke(dark, z, (saddle, (x - 0.32 * turn, 0.92)), 0.08)
    stage.stroke(dark, z, (steer, (x + 0.36 * turn, 1.05), (x + 0.5 * turn, 1.07)), 0.055)
    stage.shadow(((x - 0.6, z - 0.15), (x + 0.6, z - 0.15), (x + 0.6, z + 0.15), (x - 0.6, z + 0.15)), 0.3)
    if rider:
        leg = stage.surface(PERSON, dice.near(dice.pick(PAINTS[1:8])), depth=z, texture=CLOTH)
        stage.stroke(leg, z, (saddle, (x + 0.16 * turn, 0.72), (x - 0.02 * turn, 0.28)), 0.16)
        wear = dice.near(dice.pick(PAINTS), 20)
        torso(stage, dice, (x - 0.14 * turn, z), y=(0.86, 1.48), lean=0.24 * turn, wear=wear)
        head(stage, dice, (x + 0.2 * turn, 1.62, z), 1.0)


def lamp_post(stage: Stage, dice: Dice, x: float, z: float, *, reach: float) -> None:
    """A street lamp whose arm reaches `reach` metres sideways (0 = a lantern on top), or a plain mast."""
    height = dice.between(4.5, 9)
    steel = stage.surface(
        POLE, dice.near(dice.pick(((96, 98, 100), (60, 66, 62), (140, 138, 130), (92, 70, 52)))), depth=z
    )
    thick = dice.between(0.13, 0.24)
    stage.stroke(steel, z, ((x, 0), (x, height)), thick)
    if reach:
        stage.stroke(
            steel, z, ((x, height), (x + reach * 0.5, height + 0.35), (x + reach, height + 0.3)), thick * 0.7
        )
        stage.stroke(
            steel, z, ((x + reach * 0.7, height + 0.3), (x + reach * 1.2, height + 0.25)), thick * 1.4
        )
    else:
        stage.disc(steel, (x, height, z), (0.28, 0.34))
    stage.shadow(((x - 0.15, z), (x + 0.15, z), (x + 0.15, z + 0.3), (x - 0.15, z + 0.3)), 0.3)


def traffic_sign(stage: Stage, dice: Dice, x: float, z: float) -> None:
    """One or two plates on a thin post."""
    post = stage.surface(POLE, dice.near((120, 122, 124), 24), depth=z)
    top = dice.between(2.2, 3.0)
    stage.stroke(post, z, ((x, 0), (x, top + 0.3)), 0.1)
    plate(stage, dice, (x, top, z), dice.between(0.3, 0.44), label=SIGN)
    if dice.chance(0.3):
        plate(stage, dice, (x, top - 0.85, z), dice.between(0.28, 0.38), label=SIGN)


def plate(stage: Stage, dice: Dice, centre: tuple[float, float, float], radius: float, *, label: int) -> None:
    """A sign's face: triangle, disc, board or lozenge. Also painted on buildings, as their posters."""
    x, y, z = centre
    rim_paint, field_paint = dice.pick(
        (((190, 34, 36), (236, 236, 232)), ((34, 74, 156), (40, 86, 176)), ((236, 236, 232), (190, 34, 36)),
         ((30, 30, 32), (232, 190, 44)), ((232, 234, 232), (38, 112, 74)), ((120, 122, 124), (146, 148, 150)))
    )  # fmt: skip
    rim = stage.surface(label, dice.near(rim_paint, 12), depth=z)
    inner = stage.surface(label, dice.near(field_paint, 12), depth=z)
    mark = stage.surface(label, dice.pick(((34, 34, 36), (236, 236, 236))), depth=z)
    shape = dice.weighted({"disc": 3, "triangle": 2, "board": 2, "lozenge": 1})
    for surface, r in ((rim, radius), (inner, radius * 0.74)):
        if shape == "disc":
            stage.disc(surface, centre, (r, r))
        elif shape == "triangle":
            stage.polygon(surface, [(x - r, y - r * 0.7, z), (x + r, y - r * 0.7, z), (x, y + r, z)])
        elif shape == "board":
            stage.front(surface, z, (x - r, x + r), (y - r * 1.2, y + r * 1.2))
        else:
            stage.polygon(surface, [(x - r, y, z), (x, y + r, z), (x + r, y, z), (x, y - r, z)])
    if stage.camera.pixels(radius, z) > 2.5:
        stage.front(mark, z, (x - radius * 0.3, x + radius * 0.3), (y - radius * 0.15, y + radius * 0.15))


def bin_or_box(stage: Stage, dice: Dice, x: float, z: float) -> None:
    """A litter bin, a cable cabinet, a crate: street furniture without a class, hence ignored."""
    wide, high = dice.between(0.25, 0.6), dice.between(0.7, 1.4)
    body = stage.surface(IGNORE, dice.near(dice.pick(PAINTS), 16), depth=z)
    lid = stage.surface(IGNORE, dice.near((70, 72, 74)), depth=z)
    stage.front(body, z, (x - wide, x + wide), (0, high))
    stage.front(lid, z, (x - wide * 1.1, x + wide * 1.1), (high, high + 0.1))
    stage.shadow(((x - wide, z - 0.2), (x + wide, z - 0.2), (x + wide, z + 0.4), (x - wide, z + 0.4)), 0.4)
