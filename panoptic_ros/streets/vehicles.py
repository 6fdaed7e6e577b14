"""Cars, vans and buses: boxes with slopes, windows, lights and wheels, in perspective.

Local frame: x to the right, y up, z towards the front, in metres; the origin is on the ground
below the middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from panoptic_ros.streets.canvas import Canvas

PAINTS = (
    (24, 24, 28), (60, 62, 66), (128, 132, 136), (176, 180, 184), (226, 228, 228), (122, 26, 30),
    (30, 42, 84), (28, 62, 52), (84, 34, 42), (44, 80, 132), (160, 146, 116), (150, 154, 158),
)  # fmt: skip
MATERIALS = {
    "glass": (40, 47, 54),
    "sheen": (78, 88, 98),
    "trim": (36, 36, 38),
    "seam": (20, 20, 22),
    "tyre": (22, 22, 23),
    "rim": (140, 142, 144),
    "head": (226, 228, 222),
    "tail": (150, 20, 22),
    "plate": (206, 200, 150),
}
FINE = ("seam", "sheen", "plate")  # left out beyond FINE_DISTANCE metres
FINE_DISTANCE = 35.0


@dataclass(frozen=True)
class Shape:
    """Measures of a vehicle in metres.

    The cabin runs from ``rear_base`` to ``front_base`` at the belt and from ``rear_roof`` to
    ``front_roof`` at the roof, as fractions of the length from the rear. ``panes`` are the side
    windows as fractions of the cabin, ``corner`` is how far front and rear are rounded.
    """

    length: float
    width: float
    height: float
    belt: float
    hood: float
    rear_base: float
    rear_roof: float
    front_roof: float
    front_base: float
    panes: tuple[tuple[float, float], ...] = ((0.06, 0.46), (0.50, 0.93))
    roof: float = 0.78
    wheel: float = 0.31
    corner: float = 0.16


SHAPES = (
    Shape(4.0, 1.70, 1.45, 0.92, 0.72, 0.01, 0.07, 0.52, 0.72),  # hatchback
    Shape(3.6, 1.62, 1.50, 0.92, 0.76, 0.01, 0.05, 0.55, 0.78),  # small car
    Shape(4.6, 1.78, 1.43, 0.90, 0.72, 0.13, 0.30, 0.56, 0.74),  # saloon
    Shape(4.7, 1.80, 1.48, 0.92, 0.74, 0.01, 0.05, 0.56, 0.74,
          ((0.05, 0.27), (0.30, 0.60), (0.63, 0.95))),  # estate
    Shape(4.5, 1.88, 1.75, 1.06, 0.95, 0.01, 0.04, 0.56, 0.72,
          ((0.05, 0.27), (0.30, 0.60), (0.63, 0.94)), 0.84, 0.36, 0.1),  # off-roader
    Shape(5.2, 2.00, 2.25, 1.25, 1.00, 0.003, 0.01, 0.72, 0.88, ((0.72, 0.95),), 0.94, 0.34, 0.08),
    Shape(10.5, 2.50, 3.00, 1.40, 1.00, 0.002, 0.005, 0.99, 0.995,
          ((0.02, 0.24), (0.26, 0.49), (0.51, 0.74), (0.76, 0.97)), 0.97, 0.48, 0.06),
)  # fmt: skip
VAN, BUS = 5, 6


@dataclass(frozen=True)
class _Mesh:
    """Convex faces in drawing order: corners (F, 4, 3), normals (F, 3), names of materials.

    Wheels come last: (2, 2, 12, 3) by side (left, right) and axle.
    """

    corners: np.ndarray
    normals: np.ndarray
    materials: np.ndarray
    wheels: np.ndarray


class _Builder:
    """Collects faces; corners run counter-clockwise as seen from outside."""

    def __init__(self) -> None:
        self.faces: list[np.ndarray] = []
        self.materials: list[str] = []

    def quad(self, points: list, material: str = "paint") -> np.ndarray:
        """Add a face: lower left, lower right, upper right, upper left."""
        self.faces.append(np.array(points, dtype=float))
        self.materials.append(material)
        return self.faces[-1]

    def sides(self, low: tuple, high: tuple, material: str = "paint") -> list[np.ndarray]:
        """Add the same face left and right, edges as (rear z, front z, y, half width)."""
        (za, zb, y1, x1), (zc, zd, y2, x2) = low, high
        left = self.quad([(-x1, y1, zb), (-x1, y1, za), (-x2, y2, zc), (-x2, y2, zd)], material)
        right = self.quad([(x1, y1, za), (x1, y1, zb), (x2, y2, zd), (x2, y2, zc)], material)
        return [left, right]

    def end(self, low: tuple, high: tuple, material: str = "paint") -> np.ndarray:
        """Add a face across the vehicle, edges as (z, y, half width); its front if z > 0."""
        (za, ya, xa), (zb, yb, xb) = low, high
        sign = 1 if za + zb > 0 else -1
        # Seen from the front, the vehicle's right is on our left: the corners start there.
        return self.quad(
            [(sign * xa, ya, za), (-sign * xa, ya, za), (-sign * xb, yb, zb), (sign * xb, yb, zb)],
            material,
        )

    def panel(self, of: np.ndarray, box: tuple[float, float, float, float], material: str) -> None:
        """Cover a part (u1, v1, u2, v2) of a face: u along its lower edge, v upwards, 0..1."""
        a, b, c, d = of
        u1, v1, u2, v2 = box
        points = [
            (a + (b - a) * u) * (1 - v) + (d + (c - d) * u) * v
            for u, v in ((u1, v1), (u2, v1), (u2, v2), (u1, v2))
        ]
        self.quad(points, material)


@cache
def _mesh(kind: int) -> _Mesh:
    s = SHAPES[kind]
    builder = _Builder()
    _build_body(builder, s)
    _build_cabin(builder, s, kind)
    corners = np.stack(builder.faces)
    normals = np.cross(corners[:, 3] - corners[:, 0], corners[:, 1] - corners[:, 0])
    # The frame is left-handed: this product points outwards for counter-clockwise corners.
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    circle = s.wheel * np.stack((0 * angle, np.sin(angle), np.cos(angle)), axis=1)
    axles = (-0.31 * s.length, 0.32 * s.length)
    half = s.width / 2 + 0.005
    middles = np.array([[(x, s.wheel, z) for z in axles] for x in (-half, half)])
    return _Mesh(corners, normals, np.array(builder.materials), middles[:, :, None] + circle)


def _build_body(builder: _Builder, s: Shape) -> None:
    """Add what is below the belt: tyres, sills, flanks, rounded ends, bonnet, lamps."""
    half, rear, front = s.width / 2, -s.length / 2, s.length / 2
    base = rear + s.front_base * s.length
    inner, low, sill = half - s.corner, 0.20, 0.33
    for z in (rear + 0.3, front - 0.3):
        for x in (-half + 0.14, half - 0.14):
            left, right = (x - 0.1, x + 0.1) if z < 0 else (x + 0.1, x - 0.1)
            builder.quad([(left, 0, z), (right, 0, z), (right, 0.4, z), (left, 0.4, z)], "tyre")
    back, nose = rear + s.corner, front - s.corner
    builder.sides((back, nose, low, half), (back, nose, sill, half), "trim")
    flank = builder.sides((back, nose, sill, half), (back, nose, s.hood, half))
    builder.sides((back, nose, s.hood, half), (back, base, s.belt, half * 0.97))
    for face in flank:
        builder.panel(face, (0.47, 0.0, 0.485, 1.0), "seam")
        builder.panel(face, (0.0, 0.48, 1.0, 0.54), "seam")
    for x1, x2 in ((-half, -inner), (inner, half)):
        outer_left = abs(x1) > abs(x2)
        z1, z2 = (back, rear) if outer_left else (rear, back)
        corner = builder.quad([(x1, low, z1), (x2, low, z2), (x2, s.belt, z2), (x1, s.belt, z1)])
        builder.panel(corner, (0, 0, 1, 0.3), "trim")
        builder.panel(corner, (0, 0.58, 1, 0.9), "tail")
        z1, z2 = (nose, front) if outer_left else (front, nose)
        corner = builder.quad([(x2, low, z2), (x1, low, z1), (x1, s.hood, z1), (x2, s.hood, z2)])
        builder.panel(corner, (0, 0, 1, 0.25), "trim")
        builder.panel(corner, (0, 0.56, 1, 0.92), "head")
    tail = builder.end((rear, low, inner), (rear, s.belt, inner))
    builder.panel(tail, (0, 0, 1, 0.3), "trim")
    builder.panel(tail, (0, 0.46, 1, 0.48), "seam")
    for left in (0.0, 0.90):
        builder.panel(tail, (left, 0.58, left + 0.1, 0.9), "tail")
    builder.panel(tail, (0.34, 0.52, 0.66, 0.66), "plate")
    face = builder.end((front, low, inner), (front, s.hood, inner))
    builder.panel(face, (0, 0, 1, 0.25), "trim")
    builder.panel(face, (0.24, 0.56, 0.76, 0.84), "trim")
    for left in (0.0, 0.84):
        builder.panel(face, (left, 0.56, left + 0.16, 0.92), "head")
    builder.panel(face, (0.34, 0.30, 0.66, 0.46), "plate")
    builder.end((front, s.hood, inner), (nose, s.hood, half))
    builder.end((nose, s.hood, half), (base, s.belt, half * 0.97))
    lid = rear + s.rear_base * s.length
    builder.quad(
        [(-inner, s.belt, rear), (inner, s.belt, rear), (half, s.belt, lid), (-half, s.belt, lid)]
    )


def _build_cabin(builder: _Builder, s: Shape, kind: int) -> None:
    """Add what is above the belt: roof, pillars and windows."""
    rear = -s.length / 2
    lid, base = rear + s.rear_base * s.length, rear + s.front_base * s.length
    back, front = rear + s.rear_roof * s.length, rear + s.front_roof * s.length
    wide, narrow = s.width / 2 * 0.96, s.width / 2 * s.roof
    for number, face in enumerate(
        builder.sides((lid, base, s.belt, wide), (back, front, s.height, narrow))
    ):
        for u1, u2 in s.panes:
            left, right = (1 - u2, 1 - u1) if number == 0 else (u1, u2)
            builder.panel(face, (left, 0.05, right, 0.84), "glass")
            builder.panel(face, (left, 0.55, right, 0.84), "sheen")
    window = builder.quad(
        [
            (-wide, s.belt, lid),
            (wide, s.belt, lid),
            (narrow, s.height, back),
            (-narrow, s.height, back),
        ]
    )
    builder.panel(window, (0.07, 0.12, 0.93, 0.85), "glass")
    if kind == VAN:
        builder.panel(window, (0.45, 0, 0.55, 1), "paint")
    shield = builder.quad(
        [
            (wide, s.belt, base),
            (-wide, s.belt, base),
            (-narrow, s.height, front),
            (narrow, s.height, front),
        ]
    )
    builder.panel(shield, (0.05, 0.04, 0.95, 0.93), "glass")
    top = s.height
    builder.quad(
        [(-narrow, top, back), (narrow, top, back), (narrow, top, front), (-narrow, top, front)]
    )


def draw_vehicle(
    canvas: Canvas, slot: int, kind: int, paint: tuple[int, int, int],
    place: tuple[float, float], heading: float, lamps: float,
) -> None:  # fmt: skip
    """Draw a vehicle.

    Args:
        canvas: To draw on.
        slot: Of the segment.
        kind: Index into ``SHAPES``.
        paint: Colour of the body.
        place: Its middle (x, z) on the ground.
        heading: 0 faces away from us, pi towards us, positive to the right.
        lamps: 0 for lights off, 1 for bright ones.
    """
    mesh = _mesh(kind)
    cos, sin = math.cos(heading), math.sin(heading)
    turn = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    offset = np.array([place[0], 0.0, place[1]])
    eye = (np.array([0.0, canvas.camera.height, 0.0]) - offset) @ turn.T
    shown = ((eye - mesh.corners[:, 0]) * mesh.normals).sum(1) > 0
    distance = max(1.0, place[1])
    if distance > FINE_DISTANCE:
        shown &= ~np.isin(mesh.materials, FINE)
    materials = mesh.materials[shown]
    normals = mesh.normals[shown] @ turn
    colors = _colors(canvas, materials, paint, normals, lamps, distance)
    canvas.faces(mesh.corners[shown] @ turn + offset, colors, slot)

    side = int(eye[0] > 0)
    if abs(eye[0]) > SHAPES[kind].width / 2:
        wheels = mesh.wheels[side]
        middles = wheels.mean(1, keepdims=True)
        layers = np.concatenate((wheels, middles + 0.62 * (wheels - middles)))
        tones = _colors(
            canvas, np.array(["tyre"] * 2 + ["rim"] * 2), paint, np.zeros((4, 3)), 0, distance
        )
        canvas.faces(layers @ turn + offset, tones, slot)


def _colors(
    canvas: Canvas, materials: np.ndarray, paint: tuple[int, int, int], normals: np.ndarray,
    lamps: float, distance: float,
) -> np.ndarray:  # fmt: skip
    """Return the colours, (F, 3), of faces with these materials and normals (F, 3)."""
    light = canvas.light
    base = np.array([MATERIALS.get(name, paint) for name in materials.tolist()], dtype=float)
    upward = normals[:, 1]
    brightness = light.ambient * (0.82 + 0.3 * upward)
    brightness += light.direct * np.maximum(0, normals @ np.array(light.sun))
    # Glass and varnish mirror the sky where they lean back.
    mirror = np.where(materials == "glass", 0.06 + 0.65 * np.maximum(upward, 0), 0.0)
    mirror = np.where(materials == "paint", 0.25 * np.maximum(upward, 0) ** 2, mirror)[:, None]
    sky = np.array(light.haze)
    colors = np.minimum(
        base * brightness[:, None] * (1 - mirror) + sky * mirror * light.ambient, 255
    )
    if lamps:
        glow = np.isin(materials, ("head", "tail"))
        colors[glow] = np.minimum(base[glow] * (1 + 0.6 * lamps), 255)
    haze = light.haze_at(distance)
    return colors * (1 - haze) + sky * haze
