"""From a canvas of surface numbers to a photograph: texture, sky, shadows, haze, colour cast, blur, noise.

Geometry and classes are settled before; nothing here may change a label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from hwdkit.scenes.stage import OVERSAMPLING, SKY, Colour, Dice, Stage

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Weather:
    """The light of one scene.

    Args:
        gain: per-channel factor of direct light.
        zenith, skyline: sky colours at the top of the image and at the horizon.
        cloud: colour of clouds; cover: how much of the sky they take, 0..1.
        haze: metres at which two thirds of an object's own colour are lost.
        shadow: how dark cast shadows are, 0..1; sun: their horizontal metres per metre of height.
        lamps: dark enough for lit windows.
    """

    gain: Colour
    zenith: Colour
    skyline: Colour
    cloud: Colour
    cover: float
    haze: float
    shadow: float
    sun: float
    lamps: bool


def draw_weather(dice: Dice) -> Weather:
    """Day, overcast, dusk or fog, each with its own spread."""
    kind = dice.weighted({"day": 0.42, "overcast": 0.28, "dusk": 0.2, "fog": 0.1})
    sun = dice.between(0.4, 1.6) * dice.pick((-1.0, 1.0))
    if kind == "day":
        light = dice.between(0.88, 1.2)
        blue = dice.near((96, 146, 212), 22)
        pale = dice.near((190, 212, 232), 18)
        warm = (light * 1.04, light, light * dice.between(0.88, 0.98))
        return Weather(warm, blue, pale, (240, 240, 242), dice.between(0, 0.7), 220, 0.48, sun, False)
    if kind == "dusk":
        light = dice.between(0.5, 0.75)
        cast = dice.pick(((1.2, 0.92, 0.76), (0.82, 0.92, 1.2), (1.1, 0.88, 1.0)))
        low = dice.pick(((236, 160, 104), (216, 150, 150), (170, 170, 190)))
        gain = (light * cast[0], light * cast[1], light * cast[2])
        high = dice.near((84, 92, 140), 20)
        return Weather(
            gain, high, dice.near(low), (150, 120, 130), dice.between(0, 0.8), 140, 0.2, sun * 1.5, True
        )
    grey = dice.between(150, 222)
    light = dice.between(0.66, 0.98)
    cool = (light * 0.97, light, light * dice.between(1.0, 1.07))
    sky = dice.near((grey, grey, grey + 4), 8)
    dark = (grey * 0.82, grey * 0.83, grey * 0.86)
    haze = dice.between(28, 60) if kind == "fog" else 130
    return Weather(cool, sky, dice.near(sky, 10), dark, dice.between(0.2, 1.0), haze, 0.1, sun, False)


def develop(
    stage: Stage, weather: Weather, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image (H, W, 3) uint8 and label (H, W) uint8 of a finished stage."""
    numbers = np.asarray(stage.canvas)
    centre = OVERSAMPLING // 2
    at_pixel = numbers[centre::OVERSAMPLING, centre::OVERSAMPLING]
    label = np.array(stage.surfaces.label, dtype=np.uint8)[at_pixel]

    albedo, sky_share = _antialias(stage, numbers)
    noise = _noise_fields(stage.size, rng)
    strength = np.array(stage.surfaces.texture, dtype=np.float32)[at_pixel]
    light = 1 + np.einsum("ijk,ijk->ij", strength, noise, dtype=np.float32)

    depth = np.array(stage.surfaces.depth, dtype=np.float32)[at_pixel]
    ground = np.isnan(depth)
    shade = np.asarray(stage.shade.reduce(OVERSAMPLING), dtype=np.float32) / 255
    light *= 1 - np.where(ground, shade, 0)
    depth = np.where(ground, _ground_depth(stage), depth)

    image = albedo * light[..., None] * np.array(weather.gain, dtype=np.float32)
    kept = np.exp(-depth / weather.haze)
    # A sky pixel may hold a sliver of an object: the sky's own, endless depth must not fog it away.
    kept = np.where(label == SKY, 1, kept)[..., None].astype(np.float32)
    mist = np.array(weather.skyline, dtype=np.float32) * (1 - sky_share[..., None])
    image = image * kept + mist * (1 - kept)
    image += sky_share[..., None] * _sky(stage, weather, noise)
    return _expose(image, rng), label


def _antialias(stage: Stage, numbers: NDArray[np.int32]) -> tuple[Field, Field]:
    """Mean colour of each pixel's surfaces, sky left out, and the share of the pixel that is sky."""
    paint = np.zeros((len(stage.surfaces.colour), 4), dtype=np.uint8)
    paint[:, :3] = np.clip(np.array(stage.surfaces.colour), 0, 255).astype(np.uint8)
    paint[0, 3] = 255  # the unused fourth byte carries the sky's coverage through the same averaging
    packed = paint.view(np.uint32)[:, 0][numbers]
    height, width = numbers.shape
    full = Image.frombuffer("RGBX", (width, height), packed, "raw", "RGBX", 0, 1)
    mean = np.asarray(full.reduce(OVERSAMPLING), dtype=np.float32)
    return mean[..., :3], mean[..., 3] / np.float32(255)


def _noise_fields(size: tuple[int, int], rng: np.random.Generator) -> Field:
    """(H, W, 4) zero-mean noise in the order of Texture: fine, clump, blotch, streak."""
    height, width = size
    unit = height / 128  # so that a bigger image is the same scene with more detail
    grain = rng.standard_normal((height, width), dtype=np.float32)
    fields = [grain]
    for step_y, step_x in ((2.6, 2.6), (18, 18), (1.3, 7)):
        rows, columns = max(2, round(height / step_y / unit)), max(2, round(width / step_x / unit))
        coarse = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
        fields.append(np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)))
    return np.stack(fields, axis=-1)


def _ground_depth(stage: Stage) -> Field:
    """(H, 1) distance of the ground that each row would see."""
    camera = stage.camera
    rows = (np.arange(stage.size[0], dtype=np.float32) + 0.5) * OVERSAMPLING - camera.horizon
    return np.asarray(camera.focal * camera.height / np.maximum(rows, 1.0), dtype=np.float32)[:, None]


def _sky(stage: Stage, weather: Weather, noise: Field) -> Field:
    """(H, W, 3) vertical gradient with soft clouds that flatten towards the horizon."""
    height = stage.size[0]
    horizon = stage.camera.horizon / OVERSAMPLING
    rise = np.clip(1 - np.arange(height, dtype=np.float32) / max(horizon, 1), 0, 1)[:, None, None]
    zenith, skyline = np.array(weather.zenith), np.array(weather.skyline)
    gradient = skyline + (zenith - skyline) * np.sqrt(rise)
    puffs = noise[..., 2] + 0.1 * noise[..., 1] + 2.4 * (weather.cover - 0.6)
    cloud = np.clip(0.6 * puffs, 0, 0.85)[..., None]
    return np.asarray(gradient * (1 - cloud) + np.array(weather.cloud) * cloud, dtype=np.float32)


def _expose(image: Field, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Slight defocus, then sensor noise: the order in which a camera adds them."""
    blur, gain = 0.25 + 0.45 * rng.random(), 1.5 + 4.5 * rng.random()
    sharp = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    soft = np.asarray(sharp.filter(ImageFilter.GaussianBlur(blur)), dtype=np.float32)
    soft += gain * rng.standard_normal(soft.shape, dtype=np.float32)
    developed: NDArray[np.uint8] = np.clip(soft + 0.5, 0, 255).astype(np.uint8)
    return developed
