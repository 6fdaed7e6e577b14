"""What stands beside the road: buildings, front gardens, fences, trees, poles and signs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from panoptic_ros.streets import facades, textures
from panoptic_ros.streets.canvas import Bar, Canvas

BUILDING, POLE, ROAD, SIDEWALK, VEGETATION, SIGN, FENCE = 2, 3, 4, 5, 6, 7, 8
SIGN_COLORS = {
    "warning": ((226, 226, 222), (196, 24, 30)),
    "limit": ((226, 226, 222), (196, 24, 30)),
    "order": ((26, 70, 160), (220, 224, 228)),
    "direction": ((22, 104, 74), (226, 226, 222)),
    "place": ((226, 226, 222), (24, 24, 26)),
    "works": ((232, 196, 30), (24, 24, 26)),
}


def upright(start: Sequence[float], end: Sequence[float], bottom: float, top: float) -> np.ndarray:
    """Return the corners of a wall from (x, z) to (x, z), seen with ``start`` on the left."""
    return np.array(
        [
            (start[0], bottom, start[1]),
            (end[0], bottom, end[1]),
            (end[0], top, end[1]),
            (start[0], top, start[1]),
        ]
    )


def _normal(start: Sequence[float], end: Sequence[float]) -> tuple[float, float, float]:
    """Return the unit normal, towards the viewer, of a wall seen from ``start`` to ``end``."""
    dx, dz = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dz) or 1.0
    return (dz / length, 0.0, -dx / length)


def draw_building(
    canvas: Canvas,
    near: Sequence[float],
    far: Sequence[float],
    outward: Sequence[float],
    variant: int,
    tint: Sequence[float],
    gabled: bool,
) -> None:
    """Draw a building whose front runs from ``near`` to ``far``, both (x, z).

    Args:
        canvas: To draw on.
        near: The end of its front that is closer to us.
        far: The other end.
        outward: From the front to its back, (x, z) in metres.
        variant: Of its facade.
        tint: Factors of red, green, blue.
        gabled: With a sloping roof and a chimney.
    """
    slot = canvas.stuff(BUILDING)
    facade = facades.facade(variant)
    height = facade.height
    on_left = outward[0] < 0
    back = (near[0] + outward[0], near[1] + outward[1])
    side = (back, near) if on_left else (near, back)
    front = (near, far) if on_left else (far, near)
    ridge = height + 0.42 * min(8.0, math.hypot(*outward))
    middle = [(near[0] + back[0]) / 2, (near[1] + back[1]) / 2]
    distance = max(near[1], 1.0)
    side_light = canvas.light.on(_normal(*side))
    if distance < 40:
        canvas.wall(upright(*side, 0, height), facade.side, slot, side_light, tint)
    else:
        canvas.polygon(upright(*side, 0, height), facade.side.mean * tint, slot, side_light)
    if gabled:
        mean = facade.side.mean * tint
        gable = np.array(
            [
                (side[0][0], height, side[0][1]),
                (side[1][0], height, side[1][1]),
                (middle[0], ridge, middle[1]),
            ]
        )
        canvas.polygon(gable, mean, slot, side_light)
    brightness = canvas.light.on(_normal(*front))
    repeat = max(1, round(math.dist(near, far) / facade.width)) if distance < 50 else 1
    points = [
        [a + (b - a) * i / repeat for a, b in zip(*front, strict=True)] for i in range(repeat + 1)
    ]
    for start, end in itertools.pairwise(points):
        canvas.wall(upright(start, end, 0, height), facade.front, slot, brightness, tint)
    if gabled:
        far_middle = (far[0] + outward[0] / 2, far[1] + outward[1] / 2)
        slope = np.array(
            [
                (near[0], height, near[1]),
                (far[0], height, far[1]),
                (far_middle[0], ridge, far_middle[1]),
                (middle[0], ridge, middle[1]),
            ]
        )
        canvas.polygon(slope, facade.roof, slot, canvas.light.on((0, 0.8, -0.3)))
        stack = [m + (f - m) * 0.15 for m, f in zip(middle, far_middle, strict=True)]
        if distance < 80:
            canvas.bars([_post(*stack, ridge - 0.6, ridge + 1.0, 0.4, (112, 74, 60))], slot)


def draw_border(
    canvas: Canvas,
    near: Sequence[float],
    far: Sequence[float],
    on_left: bool,
    kind: str,
    variant: int,
    height: float,
) -> None:
    """Draw a fence, hedge or low wall from ``near`` to ``far``, both (x, z)."""
    start, end = (near, far) if on_left else (far, near)
    if kind == "hedge":
        texture, slot = textures.hedge(variant), canvas.stuff(VEGETATION)
    elif kind == "wall":
        texture, slot = facades.facade(variant).side, canvas.stuff(BUILDING)
    else:
        texture, slot = textures.fence(variant), canvas.stuff(FENCE)
    part = min(1.0, math.dist(near, far) / textures.BORDER_LENGTH)
    brightness = canvas.light.on(_normal(start, end))
    canvas.wall(upright(start, end, 0, height), texture, slot, brightness, part=part)


def draw_tree(
    canvas: Canvas,
    place: Sequence[float],
    height: float,
    kind: str,
    variant: int,
    tint: Sequence[float] = (1, 1, 1),
) -> None:
    """Draw a tree or bush at (x, z)."""
    texture = textures.tree(kind, variant)
    if not canvas.in_view(*place, height):
        return
    rows, columns = texture.size
    size = (height * columns / rows, height)
    light = canvas.light.ambient + 0.6 * canvas.light.direct
    foot = (place[0], 0.0, place[1])
    canvas.board(foot, size, texture, canvas.stuff(VEGETATION), light, tint)


def draw_lamp(
    canvas: Canvas, place: Sequence[float], height: float, reach: float, color: Sequence[float]
) -> None:
    """Draw a lamp post at (x, z) whose arm reaches over the road (0 for none)."""
    x, z = place
    shaded = [c * canvas.light.on((0.5, 0, -0.85)) for c in color]
    bars = [_post(x, z, 0, 1.2, 0.10, shaded), _post(x, z, 0, height, 0.065, shaded)]
    if reach:
        tip, end = x + reach, x + 1.3 * reach
        arm = [(x, height, z), (x + 0.6 * reach, height + 0.35, z), (tip, height + 0.4, z)]
        bars.append(Bar(np.array(arm), 0.045, shaded))
        head = [(tip, height + 0.38, z), (end, height + 0.4, z)]
        bars.append(Bar(np.array(head), 0.10, (190, 190, 184)))
    canvas.bars(bars, canvas.stuff(POLE))


def draw_bollard(canvas: Canvas, place: Sequence[float], color: Sequence[float]) -> None:
    """Draw a bollard at (x, z)."""
    shaded = [c * canvas.light.on((0, 0, -1)) for c in color]
    canvas.bars([_post(*place, 0.05, 0.95, 0.08, shaded)], canvas.stuff(POLE))


def draw_sign(
    canvas: Canvas, place: Sequence[float], kind: str, size: float, bottom: float, seed: int
) -> None:
    """Draw a traffic sign on its pole at (x, z), facing us."""
    x, z = place
    face, mark = SIGN_COLORS[kind]
    top = bottom + size
    light = canvas.light.on((0, 0, -1))
    gray = [c * light for c in (128, 130, 132)]
    canvas.bars([_post(x, z, 0, top - 0.1, 0.04, gray)], canvas.stuff(POLE))
    slot = canvas.stuff(SIGN)
    detailed = z < 30
    center, half, z = np.array([x, bottom + size / 2, z - 0.06]), size / 2, z - 0.06

    def disc(radius: float, corners: int, turn: float, color: Sequence[float]) -> None:
        angle = turn + np.linspace(0, 2 * np.pi, corners, endpoint=False)
        ring = np.stack((np.cos(angle), np.sin(angle), 0 * angle), axis=1)
        canvas.polygon(center + radius * ring, color, slot, light)

    if kind in ("warning", "limit", "order"):
        corners, turn = (3, np.pi / 2) if kind == "warning" else (14, 0.0)
        outer, inner = (mark, face) if kind != "order" else (face, face)
        disc(half, corners, turn, outer)
        if not detailed:
            return
        disc(0.7 * half, corners, turn, inner)
        canvas.polygon(
            _rectangle(center, 0.16 * half, 0.36 * half),
            mark if kind == "order" else (30, 30, 32),
            slot,
            light,
        )
        return
    wide = half * (2.2 if kind == "direction" else 1.4)
    canvas.polygon(_rectangle(center, wide, half), face, slot, light)
    for row in range((1 + seed % 3) * detailed):
        shift = (0.15 * wide * ((seed >> row) % 3 - 1), half * (0.5 - 0.5 * row), -0.01)
        text = center + np.array(shift)
        canvas.polygon(_rectangle(text, 0.6 * wide, 0.12 * half), mark, slot, light)


def draw_traffic_light(canvas: Canvas, place: Sequence[float], bottom: float, lit: int) -> None:
    """Draw a signal with three lamps at (x, z); ``lit`` is 0 red, 1 amber, 2 green."""
    x, z = place
    canvas.bars([_post(x, z, 0, bottom + 0.3, 0.055, (70, 70, 72))], canvas.stuff(POLE))
    slot = canvas.stuff(SIGN)
    center = np.array([x, bottom + 0.45, z - 0.1])
    canvas.polygon(_rectangle(center, 0.3, 0.6), (22, 22, 24), slot)
    lamps = []
    for lamp, color in enumerate(((255, 40, 30), (255, 170, 20), (60, 240, 120))):
        shown = color if lamp == lit else tuple(0.22 * c for c in color)
        y = bottom + 0.75 - 0.3 * lamp
        lamps.append(_post(x, z - 0.12, y, y + 0.01, 0.1, shown))
    canvas.bars(lamps, slot)


def _post(
    x: float, z: float, bottom: float, top: float, radius: float, color: Sequence[float]
) -> Bar:
    return Bar(np.array([(x, bottom, z), (x, top, z)], dtype=float), radius, color)


def _rectangle(center: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    w, h = half_width, half_height
    return center + np.array([(-w, -h, 0), (w, -h, 0), (w, h, 0), (-w, h, 0)])
