"""Surfaces of the streets: masonry, windows, foliage, fences, asphalt, clouds.

Every maker takes a variant number and returns the same texture for it, made once per process.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from panoptic_ros.streets.canvas import Texture

GROUND_PIXELS_PER_METRE = 16
BORDER_LENGTH = 20.0  # metres of fence or hedge in a texture

FENCES, GROUNDS, CLOUDS, TREES_OF_A_KIND = 12, 8, 10, 8
TREES = ("leafy", "bare", "conifer", "bush")


def fractal_noise(
    rng: np.random.Generator, size: tuple[int, int], coarsest: int, octaves: int, fall: float = 0.5
) -> np.ndarray:
    """Return smooth noise, float32 (h, w), mean 0, about -1..1.

    Args:
        rng: Source of chance.
        size: (rows, columns).
        coarsest: Size of the largest blotches in pixels.
        octaves: How many times they are halved.
        fall: Strength of each octave relative to the one before.
    """
    height, width = size
    total = np.zeros(size, dtype=np.float32)
    for octave in range(octaves):
        cell = max(1, coarsest >> octave)
        grid = rng.standard_normal((height // cell + 2, width // cell + 2), dtype=np.float32)
        fine = cv2.resize(grid, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
        total += fall**octave * fine[:height, :width]
    return total / (2 * sum(fall**octave for octave in range(octaves)))


def colored(base: np.ndarray, brightness: np.ndarray) -> np.ndarray:
    """Return colour (3,) or (h, w, 3) times brightness (h, w): uint8 (h, w, 3)."""
    return np.clip(np.asarray(base, np.float32) * brightness[..., None], 0, 255).astype(np.uint8)


@cache
def tree(kind: str, variant: int) -> Texture:
    """Return one of ``TREES_OF_A_KIND`` trees (RGB and cover); ``TREES`` are the kinds."""
    rng = np.random.default_rng((12, TREES.index(kind), variant))
    size = 224
    picture = np.zeros((size, size, 4), np.uint8)
    bark = rng.uniform(0.6, 1.2) * np.array([78, 66, 54])
    if kind == "bare":
        _branch(rng, picture, np.array([size / 2, size - 1.0]), -np.pi / 2, size * 0.27, 11, bark)
        twigs = fractal_noise(rng, (size, size), 6, 3, 0.9)
        near = cv2.GaussianBlur(picture[..., 3], (0, 0), 7).astype(np.float32) / 255
        grow = (
            (twigs + 1.5 * np.minimum(near, 0.45) > 0.62) & (picture[..., 3] == 0) & (near > 0.1)
        )
        grow[round(0.75 * size) :] = False
        picture[grow] = (*(bark * 0.9), 255)
        return _trimmed(picture)
    if kind != "bush":
        width = int(rng.integers(4, 9))
        cv2.line(picture, (size // 2, size), (size // 2, size // 2), (*bark, 255), width)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    field = np.full((size, size), -1.0, np.float32)
    for _ in range(1 if kind == "conifer" else int(rng.integers(5, 12))):
        if kind == "conifer":
            blob = (
                1
                - np.abs(x - 0.5) / np.maximum(0.02, 0.36 * (y - 0.02))
                - 5 * np.maximum(0, y - 0.9)
            )
        else:
            low, high = (0.55, 0.8) if kind == "bush" else (0.22, 0.55)
            cx, cy = rng.uniform(0.3, 0.7), rng.uniform(low, high)
            radius = rng.uniform(0.12, 0.24)
            blob = 1 - np.hypot(x - cx, y - cy) / radius
        field = np.maximum(field, blob)
    leaves = fractal_noise(rng, (size, size), 24, 5, 0.85)
    field = np.minimum(field, 6 * (np.minimum(np.minimum(x, 1 - x), y)))  # stays in the picture
    covered = np.minimum(field, 0.6) + 1.0 * leaves > 0.08
    green = np.array([rng.uniform(52, 104), rng.uniform(76, 112), rng.uniform(34, 60)])
    if rng.random() < 0.12:
        green = np.array([150, 98, 40])  # autumn
    light = 0.62 + 0.75 * leaves + 0.5 * (0.55 - y) + 0.16 * (0.5 - x)
    picture[covered] = np.dstack((colored(green, light), np.full((size, size), 255, np.uint8)))[
        covered
    ]
    return _trimmed(picture)


def _trimmed(picture: np.ndarray) -> Texture:
    """Cut the empty margins off, so that the picture stands on its lower edge."""
    x, y, w, h = cv2.boundingRect(picture[..., 3])
    return Texture(np.ascontiguousarray(picture[y : y + h, x : x + w]))


def _branch(
    rng: np.random.Generator,
    picture: np.ndarray,
    start: np.ndarray,
    angle: float,
    length: float,
    width: float,
    color: np.ndarray,
) -> None:
    """Draw a branch and, by itself, those that grow out of it."""
    end = start + length * np.array([np.cos(angle), np.sin(angle)])
    ends = [tuple(int(v) for v in point) for point in (start, end)]
    cv2.line(picture, *ends, (*color, 255), max(1, round(width)))
    if length < 7:
        return
    for _ in range(int(rng.integers(2, 4))):
        turn = rng.normal(0, 0.2 if length > 50 else 0.55)
        _branch(
            rng,
            picture,
            start + (end - start) * rng.uniform(0.6, 1),
            angle + turn,
            length * rng.uniform(0.6, 0.85),
            width * 0.62,
            color,
        )


@cache
def fence(variant: int) -> Texture:
    """Return ``BORDER_LENGTH`` of one of ``FENCES`` fences: planks, or open railings or rails."""
    rng = np.random.default_rng((13, variant))
    rows, columns = 48, round(BORDER_LENGTH * 40)
    kind = ("planks", "railing", "rail")[variant % 3]
    noise = 1 + 0.2 * fractal_noise(rng, (rows, columns), 32, 5, 0.8)
    if kind == "planks":
        tone = np.repeat(rng.normal(1, 0.1, columns // 6 + 1), 6)[:columns]
        tone[::6] = 0.55
        base = np.array([128, 96, 66]) * rng.uniform(0.6, 1.25)
        return Texture(colored(base, noise * tone))
    color = ((30, 32, 34), (226, 226, 220), (146, 150, 154), (34, 70, 50))[int(rng.integers(4))]
    cover = np.zeros((rows, columns), np.uint8)
    if kind == "railing":
        cover[:, :: int(rng.integers(5, 9))] = 255
        cover[:, 1::80] = 255
        cover[2:5] = cover[-8:-5] = 255
    else:
        cover[6:20] = cover[26:34] = 255
        for post in range(6):
            cover[:, post::80] = 255
    return Texture(np.dstack((colored(color, noise), cover)))


@cache
def hedge(variant: int) -> Texture:
    """Return ``BORDER_LENGTH`` of one of ``FENCES`` hedges."""
    rng = np.random.default_rng((14, variant))
    green = np.array([rng.uniform(40, 84), rng.uniform(70, 104), rng.uniform(26, 50)])
    size = (64, round(BORDER_LENGTH * 40))
    light = 0.75 + 0.7 * fractal_noise(rng, size, 16, 4, 0.9)
    return Texture(colored(green, light * np.linspace(1.15, 0.6, size[0])[:, None]))


@cache
def ground(kind: str, variant: int) -> np.ndarray:
    """Return a tile of ground, uint8 (512, 512), 128 is plain; it repeats without a seam.

    Args:
        kind: asphalt, slabs or grass.
        variant: 0..``GROUNDS`` - 1.
    """
    rng = np.random.default_rng((15, variant, ("asphalt", "slabs", "grass").index(kind)))
    half = 256
    blotches = fractal_noise(rng, (half, half), 64, 4, 0.6)
    tile = np.block([[blotches, blotches[:, ::-1]], [blotches[::-1], blotches[::-1, ::-1]]])
    grain = rng.standard_normal((2 * half, 2 * half), dtype=np.float32)
    if kind == "grass":
        tile = 128 + 26 * tile + 13 * cv2.GaussianBlur(grain, (0, 0), 0.8) * 2
    else:
        tile = 128 + 22 * tile + 6 * grain
    if kind == "slabs":
        step = 10
        tone = rng.normal(0, 6, (2 * half // step + 1, 2 * half // step + 1))
        tile += np.kron(tone, np.ones((step, step)))[: 2 * half, : 2 * half]
        tile[::step] -= 16
        tile[:, ::step] -= 16
    elif kind == "asphalt":
        for _ in range(int(rng.integers(0, 5))):  # repaired patches and cracks
            x, y, w, h = (int(v) for v in rng.integers((0, 0, 8, 20), (500, 500, 40, 120)))
            tile[y : y + h, x : x + w] += rng.uniform(-22, 10)
            steps = rng.normal((0, 9), 3, (12, 2))
            crack = np.cumsum(steps, axis=0) + np.array((x, y))
            cv2.polylines(tile, [crack.astype(np.int32)], False, 92.0, 1)
    return np.clip(tile, 0, 255).astype(np.uint8)


@cache
def clouds(variant: int) -> np.ndarray:
    """Return one of ``CLOUDS`` cloud covers, uint8 (128, 256), 255 where thick."""
    rng = np.random.default_rng((16, variant))
    noise = fractal_noise(rng, (128, 256), 96, 6, 0.55)
    stretched = cv2.resize(noise[:64], (256, 128), interpolation=cv2.INTER_LINEAR)
    return np.clip(128 + 330 * (stretched + rng.uniform(-0.25, 0.25)), 0, 255).astype(np.uint8)


@cache
def grain(deviation: int, side: int) -> np.ndarray:
    """Return sensor noise of a standard deviation around 128: uint8, (side, side, 3)."""
    noise = np.random.default_rng(17).standard_normal((512, 512, 3), dtype=np.float32)
    noise = np.clip(128.5 + deviation * noise, 0, 255).astype(np.uint8)
    return np.tile(noise, (side // 512, side // 512, 1))
