"""The ground of a frame: road, markings, sidewalks, verges, their texture, shadows on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

from panoptic_ros.streets import textures
from panoptic_ros.streets.camera import NEAR
from panoptic_ros.streets.canvas import SUBPIXEL_BITS, Canvas, clip_near, fixed_point
from panoptic_ros.streets.layout import Block, Plan
from panoptic_ros.streets.objects import Lot, Vehicle
from panoptic_ros.streets.scenery import Weather
from panoptic_ros.streets.surroundings import ROAD, SIDEWALK, VEGETATION


class Scene(Protocol):
    """What the ground needs to know of a scene."""

    weather: Weather
    plan: Plan
    ego_x: float

    @property
    def s(self) -> float:
        """Where along the street the camera is."""

    @property
    def curvature(self) -> float:
        """Of the street, 1/m, positive to the right."""


class _GroundPainter:
    """Paints areas given in the street frame, many of one colour in one call."""

    def __init__(self, canvas: Canvas, scene: Scene) -> None:
        self.canvas = canvas
        self.scene = scene

    def pixels(self, outlines: np.ndarray) -> list[np.ndarray]:
        """Project outlines (n, k, 2) of (x, s) to what OpenCV fills; those behind us drop out."""
        z = outlines[..., 1] - self.scene.s
        x = outlines[..., 0] - self.scene.ego_x + 0.5 * self.scene.curvature * z * z
        camera = self.canvas.camera
        seen = camera.to_camera(np.stack((x, 0 * z, z), axis=-1))
        near = (seen[..., 2] < NEAR).any(1)
        shapes = list(fixed_point(camera.to_pixels(seen[~near])))
        cut = (clip_near(outline) for outline in seen[near])
        return shapes + [fixed_point(camera.to_pixels(kept)) for kept in cut if len(kept) > 2]

    def areas(self, outlines: Sequence | np.ndarray, color: Sequence[float], slot: int) -> None:
        """Paint areas, (n, k, 2) of (x, s), in one colour."""
        if not len(outlines):
            return
        shapes = self.pixels(np.asarray(outlines, dtype=float))
        light = self.canvas.light
        color = light.shade(color, light.on((0, 1, 0)), 0)
        if shapes:
            pixels = self.canvas.pixels
            cv2.fillPoly(pixels, shapes, (*color, slot), cv2.LINE_8, SUBPIXEL_BITS)

    def strip(
        self, x1: float, x2: float, s1: float, s2: float, color: Sequence[float], slot: int
    ) -> None:
        """Paint between x1 and x2 along the street, following its bend."""
        along = s1 - 1 + np.geomspace(1.0, s2 - s1 + 1, 16)
        left = np.stack((np.full(16, x1), along), axis=1)
        right = np.stack((np.full(16, x2), along), axis=1)
        self.areas([np.concatenate((left, right[::-1]))], color, slot)


def rectangle(x1: float, x2: float, s1: float, s2: float) -> list[tuple[float, float]]:
    """Return the corners of an area of the street."""
    return [(x1, s1), (x2, s1), (x2, s2), (x1, s2)]


def draw_ground(canvas: Canvas, scene: Scene, blocks: Sequence[Block]) -> None:
    """Paint road, markings, sidewalks and verges, their texture, and the shadows on them."""
    weather, plan = scene.weather, scene.plan
    painter = _GroundPainter(canvas, scene)
    s1, s2 = scene.s - 4, scene.s + 400
    verge = VEGETATION if weather.verge_is_grass else SIDEWALK
    color = weather.grass if weather.verge_is_grass else weather.paving
    region = canvas.pixels[canvas.camera.horizon :]
    bright = canvas.light.on((0, 1, 0))
    region[:] = (*(min(c * bright, 255) for c in color), canvas.stuff(verge))
    sidewalk, road = canvas.stuff(SIDEWALK), canvas.stuff(ROAD)
    left, right = -plan.edge(-1), plan.edge(1)
    painter.strip(-plan.border(-1), plan.border(1), s1, s2, weather.paving, sidewalk)
    kerb = [0.8 * c for c in weather.paving]
    painter.strip(left - 0.15, right + 0.15, s1, s2, kerb, sidewalk)
    painter.strip(left, right, s1, s2, weather.asphalt, road)
    for block in blocks:
        if block.gap:
            painter.areas([rectangle(-60, 60, *block.gap)], weather.asphalt, road)
    _draw_markings(painter, scene, blocks, road)
    _draw_surface(canvas, scene, blocks, painter)


def _draw_markings(
    painter: _GroundPainter, scene: Scene, blocks: Sequence[Block], road: int
) -> None:
    plan, weather = scene.plan, scene.weather
    white = [weather.paint_wear * 225 + (1 - weather.paint_wear) * c for c in weather.asphalt]
    kind = plan.seed % 4
    marks = []
    for block in blocks:
        end = block.gap[0] if block.gap else block.start + 48.0
        dash, pause = ((2.0, 4.0), (3.0, 6.0), (4.0, 2.0), (6.0, 3.0))[kind]
        s = block.start
        while s < end - dash:
            marks.append(rectangle(-0.06, 0.06, s, s + dash))
            if plan.lanes == 2:
                marks += [
                    rectangle(x - 0.05, x + 0.05, s, s + 2)
                    for x in (-plan.lane_width, plan.lane_width)
                ]
            s += dash + pause
        if block.gap:
            marks.append(rectangle(-plan.lanes * plan.lane_width, 0, end - 1.6, end - 1.2))
        if block.zebra:
            width = plan.lanes * plan.lane_width
            marks += [
                rectangle(x, x + 0.5, block.zebra - 2.6, block.zebra)
                for x in np.arange(-width + 0.3, width - 0.3, 1.0).tolist()
            ]
        if plan.seed % 3 == 0:
            middle = scene.ego_x
            marks.append(rectangle(middle - 0.08, middle + 0.08, end - 14, end - 11))
            marks.append(
                [
                    (middle - 0.35, end - 11),
                    (middle + 0.35, end - 11),
                    (middle, end - 9.4),
                    (middle, end - 9.4),
                ]
            )
    painter.areas(marks, white, road)
    if plan.seed % 5 < 2:
        yellow = (196, 160, 60) if plan.seed % 5 else white
        for side in (-1, 1):
            x = side * (plan.lanes * plan.lane_width - 0.25)
            painter.strip(x - 0.05, x + 0.05, scene.s - 4, scene.s + 60, yellow, road)


def _draw_surface(
    canvas: Canvas, scene: Scene, blocks: Sequence[Block], painter: _GroundPainter
) -> None:
    """Multiply the ground by the grain of its surfaces and by the shadows on it."""
    weather = scene.weather
    first = canvas.camera.horizon
    region = canvas.pixels[first:]
    if not region.size:  # the camera looks above the horizon
        return
    # Every second pixel is enough: the lens blurs more than the interpolation does.
    x, z = canvas.camera.ground_points(first, step=2)
    x += scene.ego_x - 0.5 * scene.curvature * np.minimum(z, 300) ** 2
    scale = textures.GROUND_PIXELS_PER_METRE
    u = np.clip(x, -1000, 1000) * scale
    v = (np.minimum(z, 1000) + scene.s % 32) * scale
    slots = region[::2, ::2, 3]

    def tile(kind: str) -> np.ndarray:
        surface = textures.ground(kind, weather.ground_variant)
        return cv2.remap(surface, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)

    detail = np.where(slots == ROAD, tile("asphalt"), tile("slabs"))
    if weather.verge_is_grass:
        detail = np.where(slots == VEGETATION, tile("grass"), detail)
    contrast = np.minimum(1 / 110, 0.12 / np.maximum(z, 1))
    factor = 1 + (detail.astype(np.float32) - 128) * contrast
    direct = canvas.light.direct * canvas.light.sun[1]
    if direct > 0.05:
        lost = 0.85 * direct / canvas.light.on((0, 1, 0))
        factor *= 1 - lost / 255 * _shadows(canvas, scene, blocks, painter)[first::2, ::2]
    factor = cv2.resize(factor, (region.shape[1], region.shape[0]))
    shaded = cv2.multiply(region, cv2.merge((factor,) * 4), dtype=cv2.CV_8U)
    region[..., :3] = shaded[..., :3]


def _shadows(
    canvas: Canvas, scene: Scene, blocks: Sequence[Block], painter: _GroundPainter
) -> np.ndarray:
    """Return where the sun does not reach the ground: uint8, (rows, columns), 0..255."""
    sun = canvas.light.sun
    push = np.array([-sun[0] / sun[1], -sun[2] / sun[1]])
    angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    ring = np.stack((np.cos(angle), np.sin(angle)), axis=1)
    quads, rings = [], []
    for item in (item for block in blocks for item in block.items):
        if not -5 < item.far - scene.s < 80:
            continue
        if isinstance(item, Lot) and item.facade is not None:
            x = item.side * item.setback
            foot = np.array([(x, item.s1), (x, item.s2)])
            quads.append(np.concatenate((foot, foot[::-1] + push * item.height)))
        elif isinstance(item, Vehicle):
            box = np.array(rectangle(item.x - 0.9, item.x + 0.9, item.far - 2.1, item.far + 2.1))
            top = box + 1.3 * push
            quads += [box, top]
            for i in range(4):  # what the sides sweep
                quads.append(np.array([box[i], box[i - 1], top[i - 1], top[i]]))
        elif getattr(item, "tree_height", 0):
            middle = np.array([item.x, item.far]) + push * 0.65 * item.tree_height
            rings.append(middle + 0.3 * item.tree_height * ring)
    shade = np.zeros(canvas.camera.size, dtype=np.uint8)
    for outlines in (quads, rings):
        for shape in painter.pixels(np.array(outlines)) if outlines else ():
            cv2.fillConvexPoly(shade, shape, 255, cv2.LINE_8, SUBPIXEL_BITS)
    return cv2.blur(shade, (5, 3))
