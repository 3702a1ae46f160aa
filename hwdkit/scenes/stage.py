"""The stage that a synthetic scene is built on: random numbers, camera, and the canvas of surface numbers.

Objects are in `actors.py` and `backdrop.py`, light and texture in `light.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageDraw

(ROAD, SIDEWALK, BUILDING, FENCE, POLE, SIGN, VEGETATION, TERRAIN, SKY, PERSON, CAR, BICYCLE) = range(12)
IGNORE = 255

OVERSAMPLING = 3
"""Canvas pixels per image pixel and axis. Odd, so that one canvas pixel is the centre of the image pixel."""

NEAR = 0.9
"""Metres. Anything closer is pulled to this distance, which is off-screen for all but the ground."""

Colour = tuple[float, float, float]
Point = tuple[float, float]
T = TypeVar("T")


class Texture(NamedTuple):
    """How strongly each noise field modulates a surface (relative brightness per unit of noise)."""

    fine: float = 0.02
    clump: float = 0.0
    blotch: float = 0.03
    streak: float = 0.0


SMOOTH = Texture()


class Dice:
    """Uniform numbers for one scene; every decision is a threshold on them, so no platform can disagree.

    numpy promises the bit stream of PCG64, not that of every distribution: only `random` is used here.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._pool: list[float] = []

    def unit(self) -> float:
        if not self._pool:
            self._pool = self._rng.random(1024).tolist()
        return self._pool.pop()

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def whole(self, low: int, high: int) -> int:
        """An integer in low..high, both included."""
        return low + int(self.unit() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.unit() * len(options))]

    def weighted(self, options: Mapping[T, float]) -> T:
        """One of the options, as often as its weight says."""
        ball = self.unit() * sum(options.values())
        for option, weight in options.items():
            ball -= weight
            if ball < 0:
                return option
        return option

    def near(self, colour: Colour, spread: float = 14) -> Colour:
        """A colour like this one: brightness and, half as much, hue wander by up to `spread` levels."""
        light = self.between(-spread, spread)
        r, g, b = (c + light + self.between(-spread, spread) / 2 for c in colour)
        return r, g, b


def scaled(colour: Colour, gain: float) -> Colour:
    """The same paint under more or less light."""
    r, g, b = colour
    return r * gain, g * gain, b * gain


@dataclass(frozen=True)
class Camera:
    """A pinhole above a flat street; X is metres to the right of the road's centre, Y up, Z ahead.

    Args:
        focal, vanish_x, horizon: in canvas pixels.
        height, x: of the eye, metres.
        unit: canvas pixels per pixel of an image with 128 rows.
        curve: 1/metres; the whole street bends by curve * Z**2.
    """

    focal: float
    vanish_x: float
    horizon: float
    height: float
    x: float
    unit: float
    curve: float

    def at(self, x: float, y: float, z: float) -> Point:
        """Canvas position of a point of the street."""
        z = max(z, NEAR)
        scale = self.focal / z
        return (
            float(round(self.vanish_x + ((x - self.x) + self.curve * z * z) * scale)),
            float(round(self.horizon + (self.height - y) * scale)),
        )

    def pixels(self, metres: float, z: float) -> float:
        """Length of so many metres at distance z, in pixels of an image with 128 rows.

        For deciding which details to draw: the same at every size, so every size shows the same street.
        """
        return metres * self.focal / max(z, NEAR) / self.unit


@dataclass
class Surfaces:
    """What each surface number on the canvas stands for; four parallel columns."""

    colour: list[Colour] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    texture: list[Texture] = field(default_factory=list)
    depth: list[float] = field(default_factory=list)


class Stage:
    """Canvas on which shapes are painted far to near, each as the number of its surface.

    One raster carries colour, label, texture and depth at once, so image and label cannot drift apart.

    Args:
        camera: where the eye is.
        size: (height, width) of the final image in pixels.
    """

    def __init__(self, camera: Camera, size: tuple[int, int]) -> None:
        height, width = size
        self.camera = camera
        self.size = size
        self.surfaces = Surfaces()
        self.canvas = Image.new("I", (width * OVERSAMPLING, height * OVERSAMPLING))
        self.shade = Image.new("L", self.canvas.size)
        self._draw = ImageDraw.Draw(self.canvas)
        self._shade = ImageDraw.Draw(self.shade)
        self.surface(SKY, (0, 0, 0), depth=1e4)  # number 0: what nothing else covers

    def surface(
        self, label: int, colour: Colour, *, depth: float = math.nan, texture: Texture = SMOOTH
    ) -> int:
        """Register a paint. A depth of NaN means: lies on the ground, so depth follows from the row."""
        self.surfaces.colour.append(colour)
        self.surfaces.label.append(label)
        self.surfaces.texture.append(texture)
        self.surfaces.depth.append(depth)
        return len(self.surfaces.colour) - 1

    def polygon(self, surface: int, points: Sequence[tuple[float, float, float]]) -> None:
        """A face given by its corners in metres."""
        self._draw.polygon([self.camera.at(*p) for p in points], fill=surface)

    def wall(self, surface: int, x: float, z: Point, y: Point) -> None:
        """A vertical rectangle parallel to the road."""
        (near, far), (low, high) = z, y
        self.polygon(surface, [(x, low, near), (x, high, near), (x, high, far), (x, low, far)])

    def front(self, surface: int, z: float, x: Point, y: Point) -> None:
        """A vertical rectangle that faces the camera."""
        left, bottom = self.camera.at(min(x), min(y), z)
        right, top = self.camera.at(max(x), max(y), z)
        self._draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), fill=surface)

    def flat(self, surface: int, x: Point, z: Point, y: float = 0.0) -> None:
        """A horizontal rectangle, short enough to ignore the road's bend within it."""
        (left, right), (near, far) = x, z
        self.polygon(surface, [(left, y, near), (right, y, near), (right, y, far), (left, y, far)])

    def strip(self, surface: int, x: Point, far: float = 120.0) -> None:
        """A band of ground along the whole street, following its bend."""
        stops = [z for z in (NEAR, 1.5, 2.5, 4, 6, 9, 13, 18, 25, 34, 46, 62, 85, 120) if z < far] + [far]
        points = [(x[0], 0.0, z) for z in stops] + [(x[1], 0.0, z) for z in reversed(stops)]
        self.polygon(surface, points)

    def disc(self, surface: int, centre: tuple[float, float, float], radius: Point) -> None:
        """A filled ellipse that faces the camera; radius is (horizontal, vertical) in metres."""
        self._draw.ellipse(self._box(centre, radius), fill=surface)

    def ring(self, surface: int, centre: tuple[float, float, float], radius: Point, width: float) -> None:
        """The outline of an ellipse that faces the camera."""
        pixels = self._thickness(width, centre[2])
        self._draw.ellipse(self._box(centre, radius), outline=surface, width=pixels)

    def stroke(self, surface: int, z: float, points: Sequence[Point], width: float) -> None:
        """A bar through (x, y) points that faces the camera."""
        line = [self.camera.at(x, y, z) for x, y in points]
        self._draw.line(line, fill=surface, width=self._thickness(width, z), joint="curve")

    def shadow(self, points: Sequence[Point], strength: float) -> None:
        """Darken the ground under (x, z) points; only surfaces that lie on the ground take it."""
        self._shade.polygon([self.camera.at(x, 0, z) for x, z in points], fill=int(255 * strength))

    def overlay(self, surface: int, points: Sequence[Point]) -> None:
        """A polygon in fractions of the image (x, y), for what is fixed to the camera."""
        width, height = self.canvas.size
        self._draw.polygon([(round(x * width), round(y * height)) for x, y in points], fill=surface)

    def _box(self, centre: tuple[float, float, float], radius: Point) -> tuple[float, float, float, float]:
        x, y = self.camera.at(*centre)
        scale = self.camera.focal / max(centre[2], NEAR)
        rx, ry = round(radius[0] * scale), round(radius[1] * scale)
        return x - rx, y - ry, x + rx, y + ry

    def _thickness(self, metres: float, z: float) -> int:
        # Two canvas pixels at least: a thinner bar would fall between the label's sampling points.
        return max(2, round(metres * self.camera.focal / max(z, NEAR)))
