"""The plan of one street: where the road, pavements and plots lie, and what stands on them.

Decides what is where; how each thing looks is in ground, backdrop, actors and cars.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from hwdkit.scenes import actors, backdrop, cars
from hwdkit.scenes.ground import Side, lay_ground, mark_road
from hwdkit.scenes.light import Weather
from hwdkit.scenes.stage import IGNORE, OVERSAMPLING, Camera, Colour, Dice, Stage, scaled


def draw_side(dice: Dice, sign: int, kerb: float, district: Mapping[str, float]) -> Side:
    """A side of the street in a district that prefers some kinds of plots."""
    plots = dice.weighted(district)
    verge = dice.between(0.8, 3.2) if dice.chance(0.3 if plots == "blocks" else 0.45) else 0.0
    wide = dice.between(2.0, 4.5) if plots == "blocks" else dice.between(1.5, 3.0)
    walk = (kerb + verge, kerb + verge + wide)
    setback = 0.0 if plots == "blocks" else dice.between(2.5, 6)
    return Side(sign, kerb, walk, plots, walk[1] + setback)


def draw_camera(dice: Dice, size: tuple[int, int], half_road: float) -> Camera:
    """From a car in either lane, a bus, or a pedestrian on the pavement's edge."""
    height, width = size[0] * OVERSAMPLING, size[1] * OVERSAMPLING
    x = (
        dice.between(-0.55, 0.85) * half_road
        if dice.chance(0.68)
        else dice.pick((-1, 1)) * (half_road + dice.between(-0.4, 1.8))
    )
    # Look towards the road's middle from the side, so that it stays in view.
    yaw = dice.between(-0.12, 0.12) - 0.16 * max(-1.0, min(1.0, x / half_road)) * (abs(x) > half_road - 0.5)
    return Camera(
        focal=height * dice.between(0.78, 1.12),
        vanish_x=width * 0.5 + round(height * yaw),
        horizon=height * dice.between(0.35, 0.5),
        height=dice.between(1.35, 1.9) if dice.chance(0.8) else dice.between(2.2, 3.2),
        x=x,
        unit=height / 128,
        curve=dice.pick((0.0, 1.0)) * dice.between(-0.004, 0.004),
    )


def build_street(stage: Stage, dice: Dice, weather: Weather, half_road: float) -> None:
    """Paint a whole street, far to near."""
    district = dice.pick(
        (
            {"blocks": 6, "park": 1},
            {"blocks": 4, "houses": 2, "park": 1},
            {"houses": 5, "blocks": 1, "park": 1},
            {"blocks": 2, "houses": 1, "park": 3},
        )
    )
    sides = [draw_side(dice, sign, half_road, district) for sign in (-1, 1)]
    backdrop.skyline(stage, dice, green=dice.between(0.2, 0.9))
    lay_ground(stage, dice, sides)
    mark_road(stage, dice, half_road)
    for side in sides:
        _plots(stage, dice, weather, side)
    for _, paint in sorted(_street_life(stage, dice, weather, sides), key=lambda item: -item[0]):
        paint()
    if abs(stage.camera.x) < half_road - 0.8 and dice.chance(0.4):
        _bonnet(stage, dice)


def _plots(stage: Stage, dice: Dice, weather: Weather, side: Side) -> None:
    """Buildings, then gardens, then the boundary: the order in which they hide each other."""
    sunny = side.sign * weather.sun < 0
    lit = 1 + (0.18 if sunny else -0.18) * (weather.shadow > 0.3)
    if side.plots != "park":
        _row_of_buildings(stage, dice, weather, side, lit=lit)
    else:
        for _ in range(dice.whole(2, 7)):
            backdrop.tree(
                stage, dice, side.x(side.front + dice.between(4, 22)), dice.between(26, 70), scale=1.2
            )
    if not sunny and weather.shadow > 0.3 and side.plots == "blocks":
        reach = side.front - min(abs(weather.sun) * 5, side.kerb + side.front) * 0.9
        stage.shadow(
            [(side.x(side.front), 0.9), (side.x(reach), 0.9), (side.x(reach), 70), (side.x(side.front), 70)],
            weather.shadow,
        )
    if side.plots == "blocks":
        if dice.chance(0.3):
            _hoarding(stage, dice, side)
        return
    for z in sorted((dice.between(5, 40) for _ in range(dice.whole(1, 5))), reverse=True):
        x = side.x(dice.between(side.walk[1] + 1.2, side.front + (0.5 if side.plots == "houses" else 6)))
        (backdrop.tree if dice.chance(0.55) else backdrop.bush)(stage, dice, x, z)
    _boundary(stage, dice, side)


def _row_of_buildings(stage: Stage, dice: Dice, weather: Weather, side: Side, *, lit: float) -> None:
    """Houses with gaps, or blocks wall to wall, to the end of the street; painted far to near."""
    houses = side.plots == "houses"
    row = []
    z = dice.between(0.9, 8)
    while z < 95:
        length = dice.between(7, 13) if houses else dice.between(8, 22)
        height = dice.between(5, 8) if houses else dice.between(9, 26)
        front = side.front + (dice.between(0, 2) if houses else dice.pick((0.0, 0.0, 0.6, 2.0)))
        row.append(backdrop.Plot(side.sign, side.x(front), (z, z + length), dice.between(7, 14), height))
        open_plot = dice.chance(0.85) if houses else dice.chance(0.16)
        z += length + (dice.between(3, 10) if open_plot else 0.0)
    for plot in reversed(row):
        pitched = houses or dice.chance(0.2)
        backdrop.building(stage, dice, plot, pitched=pitched, lamps=weather.lamps, lit=lit)


def _hoarding(stage: Stage, dice: Dice, side: Side) -> None:
    """Boards around a building site, in front of a facade and often in its colour."""
    paint = dice.near(dice.pick(backdrop.FACADES + actors.PAINTS[4:9]), 16)
    x, start, height = (
        side.x(side.front - dice.between(0.4, 1.2)),
        dice.between(2, 14),
        dice.between(1.7, 2.3),
    )
    style = dice.pick(("boards", "boards", "bars"))
    dark = scaled(paint, 0.7)
    for k in range(dice.whole(3, 5)):
        run = (start + 4 * (4 - k), start + 4 * (5 - k))
        backdrop.fence(stage, dice, x, run, style=style, paint=paint, behind=dark, height=height)


def _boundary(stage: Stage, dice: Dice, side: Side) -> None:
    """Fence or hedge between pavement and garden, with a gate's gap here and there."""
    x = side.x(side.walk[1] + 0.15)
    style = dice.weighted({"hedge": 2.2, "boards": 2.6, "pickets": 2.2, "bars": 1.6, "none": 0.8})
    height = dice.between(0.9, 1.9) if style != "pickets" else dice.between(0.8, 1.2)
    wood: tuple[Colour, ...] = (
        (132, 100, 72),
        (206, 204, 196),
        (104, 108, 106),
        (90, 66, 50),
        (92, 104, 76),
        (160, 120, 96),
    )
    paint, green = dice.near(dice.pick(wood), 18), dice.near(dice.pick(backdrop.FOLIAGE), 16)
    runs, z = [], dice.between(0.9, 3)
    while z < 70:
        length = dice.between(6, 16)
        runs.append((z, z + length))
        z += length + (dice.between(1.2, 3.5) if dice.chance(0.5) else 0.0)
    for run in reversed(runs):
        if style == "hedge" or (style != "none" and dice.chance(0.12)):
            backdrop.hedge(stage, dice, (side.sign, x), run, green=green, height=height)
        elif style != "none":
            backdrop.fence(
                stage, dice, x, run, style=style, paint=paint, behind=scaled(green, 0.7), height=height
            )


Paint = tuple[float, Callable[[], None]]


def _street_life(stage: Stage, dice: Dice, weather: Weather, sides: list[Side]) -> list[Paint]:
    """(distance, painter) of everything between the two boundaries, in no order."""
    things: list[Paint] = []

    def add(z: float, painter: Callable[..., None], /, *args: Any, **options: Any) -> None:
        things.append((z, partial(painter, stage, dice, *args, **options)))

    for side in sides:
        _furniture(dice, side, add)
        start, end = side.walk
        for _ in range(dice.weighted({0: 2, 1: 2, 2: 3, 5: 3})):
            z = dice.between(4.5, 8) if dice.chance(0.3) else dice.between(6, 26)
            add(z, actors.person, side.x(dice.between(start + 0.2, end)), z)
        if dice.chance(0.42):
            z, x = dice.between(4.2, 10), side.x(start + 0.5)
            for k in range(dice.whole(1, 5)):
                add(z + 0.7 * k, actors.bicycle, x, z + 0.7 * k, rider=False)
    _traffic(dice, weather, sides[1].kerb, add)
    return things


Add = Callable[..., None]


def _furniture(dice: Dice, side: Side, add: Add) -> None:
    """What stands along the kerb: lamps, signs, trees, bins, rails."""
    edge = side.kerb + 0.45
    if dice.chance(0.7):
        reach, z, step = -side.sign * dice.pick((0.0, 1.4, 2.2)), dice.between(4.5, 14), dice.between(11, 20)
        for k in range(4):
            add(z + k * step, actors.lamp_post, side.x(edge), z + k * step, reach=reach)
    for _ in range(dice.weighted({0: 2, 1: 4, 2: 3, 3: 1})):
        z = dice.between(4.5, 9) if dice.chance(0.4) else dice.between(6, 20)
        add(z, actors.traffic_sign, side.x(edge + dice.between(-0.1, 0.3)), z)
    if dice.chance(0.4):
        z, step = dice.between(6, 14), dice.between(6, 10)
        for k in range(5):
            add(
                z + k * step,
                backdrop.tree,
                side.x(side.kerb + 0.9),
                z + k * step,
                scale=dice.between(0.75, 1.0),
            )
    for _ in range(dice.weighted({0: 3, 1: 3, 2: 1})):
        z = dice.between(5, 16)
        x = side.walk[0] + 0.4 if dice.chance(0.5) else side.walk[1] - 0.4
        add(z, actors.bin_or_box, side.x(x), z)
    if dice.chance(0.14):
        grey = dice.near((136, 140, 142), 24)
        start = dice.between(3, 8)
        for k in range(6):
            z = start + 2.5 * k
            add(
                z + 1.2,
                backdrop.fence,
                side.x(side.kerb + 0.25),
                (z, z + 2.5),
                style="rail",
                paint=grey,
                behind=grey,
                height=0.8,
            )


def _traffic(dice: Dice, weather: Weather, half: float, add: Add) -> None:
    """Cars in both lanes, parked or crossing; cyclists; people who cross the road."""
    sun = weather.sun if weather.shadow > 0.3 else 0.0
    for lane in (-1, 1):  # traffic keeps right: the right lane drives away
        z = dice.between(6, 18)
        for _ in range(dice.weighted({0: 2, 1: 4, 2: 3})):
            add(
                z,
                cars.car,
                lane * half * 0.48 + dice.between(-0.3, 0.3),
                z,
                heading=1.0 - lane,
                sun=weather.sun,
            )
            z += dice.between(7, 18)
        if half > 4.0 and dice.chance(0.5):
            z = dice.between(4.5, 14)
            for _ in range(dice.whole(1, 4)):
                add(z, cars.car, lane * (half - 1.1), z, heading=dice.pick((0.0, 2.0)), sun=sun)
                z += dice.between(5.4, 9)
    if dice.chance(0.1):
        z = dice.between(9, 22)
        add(z, cars.car, dice.between(-half, half), z, heading=dice.pick((1.0, 3.0)), sun=sun)
    for _ in range(dice.weighted({0: 3, 1: 4, 2: 3})):
        z = dice.between(4.2, 14)
        add(z, actors.bicycle, dice.between(-0.9, 0.9) * half, z, rider=True)
    for _ in range(dice.weighted({0: 4, 1: 3, 3: 2})):
        z = dice.between(6, 18)
        add(z, actors.person, dice.between(-0.9, 0.9) * half, z)


def _bonnet(stage: Stage, dice: Dice) -> None:
    """The camera car's own bonnet, which no one labels."""
    paint = dice.near(dice.pick(actors.PAINTS), 16)
    top = dice.between(0.93, 0.965)
    metal = stage.surface(IGNORE, paint, depth=1.5)
    gleam = stage.surface(IGNORE, scaled(paint, 1.25), depth=1.5)
    stage.overlay(metal, ((0, 1), (0.04, top + 0.03), (0.3, top), (0.7, top), (0.96, top + 0.03), (1, 1)))
    stage.overlay(gleam, ((0.3, top), (0.7, top), (0.66, top + 0.012), (0.34, top + 0.012)))
