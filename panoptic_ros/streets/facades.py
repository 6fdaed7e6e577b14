"""The fronts of buildings: masonry, windows, doors, shops.

As in textures.py, a variant number always gives the same front, made once per process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from panoptic_ros.streets.canvas import Texture
from panoptic_ros.streets.textures import colored, fractal_noise

FACADES = 64
PIXELS_PER_METRE = 22
FLOOR = 3.1  # metres

BRICKS = ((128, 74, 58), (150, 92, 66), (172, 148, 108), (104, 66, 54), (186, 168, 130))
PLASTERS = ((222, 214, 196), (236, 236, 230), (196, 186, 172), (168, 160, 150), (208, 190, 150))
STONES = ((150, 142, 128), (118, 114, 108), (176, 166, 146), (92, 90, 88))
SHOP_COLORS = (
    (150, 28, 30),
    (24, 46, 112),
    (20, 84, 58),
    (226, 222, 212),
    (34, 34, 38),
    (206, 150, 36),
    (106, 40, 96),
    (60, 120, 170),
)


@dataclass(frozen=True)
class Facade:
    """The front of a building and the plain wall of its side, and their size in metres."""

    front: Texture
    side: Texture
    width: float
    height: float
    roof: tuple[int, int, int]


@cache
def facade(variant: int) -> Facade:
    """Return one of ``FACADES`` building fronts; every third is a house of one to three floors."""
    rng = np.random.default_rng((11, variant))
    style = ("house", "shop", "office")[variant % 3]
    floors = int(rng.integers(2, 4) if style == "house" else rng.integers(3, 6))
    bays = int(rng.integers(2, 5) if style == "house" else rng.integers(3, 7))
    bay = float(rng.uniform(2.2, 3.4))
    unit = PIXELS_PER_METRE
    parapet = float(rng.uniform(0.3, 1.0))
    rows, columns = round((floors * FLOOR + parapet) * unit), round(bays * bay * unit)
    wall = _masonry(rng, (rows, columns), style)
    side = Texture(wall.copy())
    look = _WindowLook(rng, style)
    for floor in range(floors):
        bottom = rows - round(floor * FLOOR * unit)
        if floor == 0 and style == "shop":
            _draw_shops(rng, wall, bottom, bay)
            continue
        if style == "office" and floor:
            _draw_ledge(wall, bottom, rng)
        for column in range(bays):
            middle = round((column + 0.5) * bay * unit)
            if floor == 0 and column == bays // 2:
                _draw_door(rng, wall, middle, bottom)
            else:
                look.draw(rng, wall, middle, bottom)
    _draw_ledge(wall, round(parapet * unit), rng)
    roof = tuple(int(v) for v in ((92, 60, 50), (70, 70, 76), (104, 84, 70))[variant % 3])
    return Facade(Texture(wall), side, bays * bay, rows / unit, roof)


def _masonry(rng: np.random.Generator, size: tuple[int, int], style: str) -> np.ndarray:
    """Return a wall of brick, plaster or stone, weathered: uint8 (h, w, 3)."""
    rows, columns = size
    palette = (BRICKS, PLASTERS, STONES)[int(rng.choice(3, p=(0.45, 0.4, 0.15)))]
    if style == "office" and rng.random() < 0.5:
        palette = STONES
    base = np.array(palette[int(rng.integers(len(palette)))]) * rng.uniform(0.8, 1.1)
    light = 1 + 0.16 * fractal_noise(rng, size, 64, 5, 0.7)
    if palette is not PLASTERS:
        brick = (3, 8) if palette is BRICKS else (9, 16)
        tone = rng.normal(1, 0.10, (rows // brick[0] + 1, columns // brick[1] + 2))
        tone = cv2.resize(tone, None, fx=brick[1], fy=brick[0], interpolation=cv2.INTER_NEAREST)
        tone[:: brick[0]] *= 0.9
        light = light * tone[:rows, :columns]
    light *= np.linspace(1.04, 0.9, rows)[:, None]  # dirt towards the street
    return colored(base, light)


class _WindowLook:
    """How the windows of one building look."""

    def __init__(self, rng: np.random.Generator, style: str) -> None:
        self.width = rng.uniform(1.0, 1.5) if style != "office" else rng.uniform(1.6, 2.1)
        self.height = rng.uniform(1.3, 2.0)
        self.frame = (235, 235, 230) if rng.random() < 0.65 else (60, 54, 50)
        self.bars = int(rng.integers(0, 3))
        self.sill = rng.random() < 0.6

    def draw(self, rng: np.random.Generator, wall: np.ndarray, middle: int, bottom: int) -> None:
        """Draw a window above the floor line ``bottom``."""
        unit = PIXELS_PER_METRE
        y2 = bottom - round(0.85 * unit)
        y1 = y2 - round(self.height * unit)
        x1, x2 = (round(middle + side * self.width * unit / 2) for side in (-1, 1))
        cv2.rectangle(wall, (x1 - 2, y1 - 2), (x2 + 2, y2 + 1), self.frame, -1)
        glass(rng, wall, (x1, y1, x2, y2))
        for bar in range(1, self.bars + 1):
            x = x1 + (x2 - x1) * bar // (self.bars + 1)
            cv2.line(wall, (x, y1), (x, y2), self.frame, 1)
        if self.bars:
            cv2.line(wall, (x1, (y1 + y2) // 2), (x2, (y1 + y2) // 2), self.frame, 1)
        if self.sill:
            cv2.rectangle(wall, (x1 - 4, y2 + 1), (x2 + 4, y2 + 3), (206, 202, 194), -1)
            cv2.line(wall, (x1 - 4, y2 + 4), (x2 + 4, y2 + 4), (60, 56, 54), 1)


def glass(rng: np.random.Generator, wall: np.ndarray, box: tuple[int, int, int, int]) -> None:
    """Draw a pane (x1, y1, x2, y2): dark room, reflected sky, now and then a curtain."""
    x1, y1, x2, y2 = box
    pane = wall[max(0, y1) : y2, max(0, x1) : x2]
    if not pane.size:
        return
    deep = rng.uniform(22, 62)
    reflected = np.array([150, 170, 190]) * rng.uniform(0.1, 0.75)
    fade = np.linspace(1, 0, pane.shape[0])[:, None, None] ** rng.uniform(0.5, 2)
    pane[:] = np.clip(deep * (1 - fade) + reflected * fade, 0, 255)
    if rng.random() < 0.35:
        part = rng.uniform(0.15, 0.5)
        curtain = (np.array([200, 192, 178]) * rng.uniform(0.5, 0.95)).astype(np.uint8)
        if rng.random() < 0.5:
            pane[: int(part * len(pane))] = curtain
        else:
            pane[:, : int(part * pane.shape[1])] = curtain
    cv2.line(wall, (x1, y1), (x2, y1), (30, 28, 28), 1)


def _draw_door(rng: np.random.Generator, wall: np.ndarray, middle: int, bottom: int) -> None:
    unit = PIXELS_PER_METRE
    color = [int(v) for v in SHOP_COLORS[int(rng.integers(len(SHOP_COLORS)))]]
    half, height = round(0.5 * unit), round(2.1 * unit)
    cv2.rectangle(
        wall,
        (middle - half - 3, bottom - height - 4),
        (middle + half + 3, bottom),
        (214, 210, 202),
        -1,
    )
    cv2.rectangle(wall, (middle - half, bottom - height), (middle + half, bottom), color, -1)
    glass(
        rng,
        wall,
        (middle - half + 3, bottom - height + 3, middle + half - 3, bottom - height // 2),
    )


def _draw_ledge(wall: np.ndarray, row: int, rng: np.random.Generator) -> None:
    tone = int(rng.integers(150, 225))
    cv2.line(wall, (0, row - 3), (wall.shape[1], row - 3), (tone, tone, tone - 8), 3)
    cv2.line(wall, (0, row), (wall.shape[1], row), (58, 56, 54), 1)


def _draw_shops(rng: np.random.Generator, wall: np.ndarray, bottom: int, bay: float) -> None:
    """Draw shop windows and name boards along the ground floor."""
    unit = PIXELS_PER_METRE
    x = 0
    while x < wall.shape[1] - unit:
        width = min(round(bay * unit * int(rng.integers(1, 4))), wall.shape[1] - x)
        color = [int(v) for v in SHOP_COLORS[int(rng.integers(len(SHOP_COLORS)))]]
        top = bottom - round(FLOOR * unit)
        cv2.rectangle(wall, (x, top), (x + width, bottom), color, -1)
        cv2.rectangle(wall, (x, top + round(0.7 * unit)), (x + width, bottom), (40, 38, 38), -1)
        board_ink = (240, 240, 232) if sum(color) < 420 else (30, 30, 40)
        for letter in range(x + unit // 2, x + width - unit // 2, 7):
            if rng.random() < 0.75:
                y = top + round(0.2 * unit) + int(rng.integers(0, 2))
                cv2.rectangle(wall, (letter, y), (letter + 4, y + round(0.3 * unit)), board_ink, 1)
        panes = max(2, round(width / (1.4 * unit)))
        for pane in range(panes):
            x1, x2 = x + 3 + pane * (width - 4) // panes, x + (pane + 1) * (width - 4) // panes
            box = (x1, top + round(0.8 * unit), x2, bottom - round(0.45 * unit))
            glass(rng, wall, box)
            for _ in range(int(rng.integers(3, 10))):  # goods on show
                gx, gy = int(rng.integers(x1, max(x1 + 1, x2))), int(rng.integers(box[1], box[3]))
                shade = (rng.integers(40, 220) + rng.integers(-30, 30, 3)).clip(0, 255).tolist()
                cv2.rectangle(wall, (gx, gy), (min(gx + 4, x2), min(gy + 6, box[3])), shade, -1)
        x += width
