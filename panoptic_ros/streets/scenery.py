"""Sky, light, distance and lens: what a frame begins and ends with."""

from __future__ import annotations

import math
import random

import cv2
import numpy as np

from panoptic_ros.streets import facades, textures
from panoptic_ros.streets.camera import Light
from panoptic_ros.streets.canvas import Canvas
from panoptic_ros.streets.layout import Plan
from panoptic_ros.streets.surroundings import (
    BUILDING,
    draw_tree,
    upright,
)

SKY = 1
SKIES = (  # zenith, horizon, of a clear sky by day, haze, overcast, evening, white glare
    ((86, 138, 206), (196, 216, 232)),
    ((140, 176, 214), (226, 230, 232)),
    ((150, 156, 164), (208, 212, 214)),
    ((104, 110, 142), (226, 186, 150)),
    ((236, 240, 244), (252, 252, 252)),
    ((88, 96, 108), (150, 156, 160)),
)
FAR = 130.0
GRAIN_SHIFTS = 257, 263  # how far the grain moves down and right from frame to frame


class Weather:
    """Sky and light of a scene, drawn by ``rng``."""

    def __init__(self, rng: random.Random) -> None:
        kind = rng.choices(range(len(SKIES)), (3, 3, 3, 1, 3, 2))[0]
        self.zenith, self.horizon = SKIES[kind]
        self.dusk = rng.uniform(0.2, 0.9) if kind in (3, 5) else 0.0
        sunny = kind in (0, 1, 3, 4) and rng.random() < 0.7
        azimuth, height = rng.uniform(-math.pi, math.pi), rng.uniform(0.35, 1.0)
        self.light = Light(
            sun=(
                math.cos(height) * math.sin(azimuth),
                math.sin(height),
                math.cos(height) * math.cos(azimuth),
            ),
            direct=rng.uniform(0.35, 0.75) if sunny else 0.0,
            ambient=rng.uniform(0.38, 0.55) if sunny else rng.uniform(0.6, 0.95) - 0.3 * self.dusk,
            haze=self.horizon,
            haze_distance=rng.choice((150, 300, 600, 1000)),
        )
        self.clouds = rng.randrange(textures.CLOUDS)
        self.cloudiness = max(0.0, rng.uniform(-0.2, 0.9))
        self.cloud_shift = rng.randrange(96)
        self.ground_variant = rng.randrange(textures.GROUNDS)
        tone = rng.uniform(0.75, 1.3)
        warm = rng.uniform(-5, 5)
        self.asphalt = [tone * c for c in (96 + warm, 96, 98 - warm)]
        pale = rng.uniform(0.85, 1.2)
        self.paving = [
            pale * c for c in rng.choice(((150, 146, 140), (128, 126, 126), (164, 150, 132)))
        ]
        self.verge_is_grass = rng.random() < 0.6
        self.grass = [rng.uniform(0.8, 1.15) * c for c in (86, 104, 54)]
        self.paint_wear = rng.uniform(0.55, 1.0)
        self.seed = rng.randrange(1 << 30)


def draw_sky(canvas: Canvas, weather: Weather) -> None:
    """Paint the sky over the whole image."""
    columns = canvas.camera.size[1]
    fade = np.linspace(0, 1, 64)[:, None, None] ** 0.8
    sky = np.asarray(weather.zenith) * (1 - fade) + np.asarray(weather.horizon) * fade
    cover = textures.clouds(weather.clouds)[::2, weather.cloud_shift : weather.cloud_shift + 160]
    sky = sky + (weather.cloudiness / 255) * cover[..., None] * (np.asarray(weather.horizon) - sky)
    sky = np.dstack((sky.astype(np.uint8), np.full(cover.shape, canvas.stuff(SKY), np.uint8)))
    height = canvas.camera.horizon
    canvas.pixels[:height] = cv2.resize(sky, (columns, height), interpolation=cv2.INTER_LINEAR)


def draw_distance(canvas: Canvas, weather: Weather, plan: Plan, end: tuple[float, float]) -> None:
    """Paint the houses and trees where the street ends in the distance, at ``end``."""
    rng = random.Random(weather.seed)
    x = -160.0
    while x < 160:
        width, height = rng.uniform(10, 26), rng.uniform(7, 15)
        variant, is_building = rng.randrange(facades.FACADES), rng.random() < 0.55
        left, right = x + end[0], x + width + end[0]
        x += width * 0.8
        if not canvas.in_view((left + right) / 2, FAR, width):
            continue
        if is_building:
            wall = upright((left, FAR), (right, FAR), 0, height)
            front = facades.facade(variant).front
            canvas.wall(wall, front, canvas.stuff(BUILDING), weather.light.on((0, 0, -1)))
        else:
            place = ((left + right) / 2, FAR - 4)
            draw_tree(canvas, place, height, plan.trees, variant % textures.TREES_OF_A_KIND)


class Lens:
    """The camera of a scene: exposure, colour, sharpness, noise, and perhaps a bonnet in view."""

    def __init__(self, rng: random.Random) -> None:
        gain = math.exp(rng.gauss(0.2, 0.22))
        gamma = math.exp(rng.gauss(0, 0.15))
        balance = [1 + rng.gauss(0, 0.03) for _ in range(3)]
        black = rng.uniform(-6, 14)
        level = np.arange(256)[:, None] / 255
        curve = black + (255 - black) * gain * np.asarray(balance) * level**gamma
        self.table = np.clip(curve, 0, 255).astype(np.uint8)[None]
        self.blur = rng.uniform(0.35, 0.95)
        self.noise = rng.uniform(0.0, 0.55)
        self.hood = rng.uniform(0.03, 0.09) if rng.random() < 0.2 else 0.0
        self.seed = rng.randrange(1 << 20)

    def draw_hood(self, canvas: Canvas) -> None:
        """Paint the bonnet of our own car along the lower edge; it belongs to no class."""
        if self.hood:
            rows, columns = canvas.camera.size
            center = (columns // 2, round(rows * 1.3))
            axes = (round(columns * 0.75), round(rows * (0.3 + self.hood)))
            cv2.ellipse(canvas.pixels, center, axes, 0, 0, 360, (30, 32, 36, 0), -1)

    def develop(self, pixels: np.ndarray, t: int) -> np.ndarray:
        """Turn canvas pixels into the picture of the camera: uint8 (H, W, 3) RGB."""
        image = np.ascontiguousarray(pixels[..., :3])
        image = cv2.GaussianBlur(image, (5, 5), self.blur)
        image = cv2.LUT(image, self.table)
        if self.noise < 0.05:
            return image
        rows, columns = image.shape[:2]
        down, right = GRAIN_SHIFTS
        size = 1 << (max(rows + down, columns + right, 512) - 1).bit_length()
        grain = textures.grain(round(self.noise * 16), size)
        y, x = (self.seed + 311 * t) % down, (self.seed + 173 * t) % right
        return cv2.addWeighted(image, 1, grain[y : y + rows, x : x + columns], 1, -128)
