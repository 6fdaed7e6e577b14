"""A canvas that keeps the picture and its truth in one array.

Each pixel holds red, green, blue and the slot of the segment that painted it last, so whatever is
drawn changes both at once and they cannot disagree. Points are in the ground frame of camera.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from panoptic_ros.streets.camera import NEAR, Color, Light, PinholeCamera

SUBPIXEL_BITS = 4


class Texture:
    """A picture at all halvings of its width and of its height, each made when first wanted.

    Args:
        pixels: uint8, (h, w, 3) RGB, or (h, w, 4) RGB and cover.

    Attributes:
        size: (rows, columns) in full.
        mean: Mean colour (3,).
    """

    def __init__(self, pixels: np.ndarray) -> None:
        if pixels.shape[2] == 3:
            pixels = np.dstack((pixels, np.full(pixels.shape[:2], 255, dtype=np.uint8)))
        self.size = pixels.shape[:2]
        self.mean = pixels[..., :3].reshape(-1, 3).mean(0)
        self._levels = {(0, 0): pixels}

    def fitted(self, width: float, height: float) -> np.ndarray:
        """Return the picture, RGB and cover, at the halving next above (width, height)."""
        halvings = tuple(
            max(0, min(int(math.log2(full / max(wanted, 2.0))), 6))
            for full, wanted in zip(self.size, (height, width), strict=True)
        )
        if halvings not in self._levels:
            rows, columns = (max(2, n >> k) for n, k in zip(self.size, halvings, strict=True))
            self._levels[halvings] = cv2.resize(
                self._levels[0, 0], (columns, rows), interpolation=cv2.INTER_AREA
            )
        return self._levels[halvings]


class Bar(NamedTuple):
    """A round bar along (n, 3) points of the ground frame, radius in metres."""

    points: np.ndarray
    radius: float
    color: Color


class Canvas:
    """Picture and truth of one frame.

    Attributes:
        pixels: uint8, (H, W, 4): red, green, blue, slot.
        owners: Slot -> (segment id, category id).
    """

    def __init__(self, camera: PinholeCamera, light: Light) -> None:
        self.camera = camera
        self.light = light
        self.pixels = np.zeros((*camera.size, 4), dtype=np.uint8)
        self.owners: dict[int, tuple[int, int]] = {}
        self._free = 255

    def stuff(self, category_id: int) -> int:
        """Return the slot of a stuff class, which is its category id."""
        self.owners[category_id] = (category_id, category_id)
        return category_id

    def thing(self, segment_id: int, category_id: int) -> int | None:
        """Return a fresh slot for an instance, None when there are 200 of them already."""
        if self._free <= 55:
            return None
        self._free -= 1
        self.owners[self._free + 1] = (segment_id, category_id)
        return self._free + 1

    def in_view(self, x: float, z: float, radius: float) -> bool:
        """Whether a disc on the ground around (x, z) may be in the image."""
        camera = self.camera
        right = x * camera.rotation[0, 0] + z * camera.rotation[0, 2]
        ahead = math.sqrt(max(0.0, x * x + z * z - right * right))
        if x * -camera.rotation[0, 2] + z * camera.rotation[0, 0] < 0:
            ahead = -ahead
        reach = 0.5 * camera.size[1] / camera.focal
        return ahead > -radius and abs(right) < ahead * reach + radius * (1 + reach)

    def fill(self, corners: np.ndarray, color: Color, slot: int) -> None:
        """Paint a convex polygon, (n, 2) pixel coordinates."""
        cv2.fillConvexPoly(
            self.pixels, fixed_point(corners), (*color, slot), cv2.LINE_8, SUBPIXEL_BITS
        )

    def polygon(self, points: np.ndarray, color: Color, slot: int, brightness: float = 1) -> None:
        """Paint a convex polygon, (n, 3) in the ground frame; parts behind us are cut off."""
        seen = clip_near(self.camera.to_camera(points))
        if len(seen) >= 3:
            color = self.light.shade(color, brightness, float(seen[0, 2]))
            self.fill(self.camera.to_pixels(seen), color, slot)

    def faces(self, points: np.ndarray, colors: np.ndarray, slot: int) -> None:
        """Paint convex polygons of as many corners each, in order.

        Args:
            points: (F, k, 3) in the ground frame.
            colors: (F, 3), as they are to appear.
            slot: Of the segment.
        """
        seen = self.camera.to_camera(points)
        near = (seen[..., 2] < NEAR).any(1)
        pixels = fixed_point(self.camera.to_pixels(np.maximum(seen, (-np.inf, -np.inf, NEAR))))
        for i, (color, cut) in enumerate(zip(colors.tolist(), near.tolist(), strict=True)):
            if not cut:
                cv2.fillConvexPoly(
                    self.pixels, pixels[i], (*color, slot), cv2.LINE_8, SUBPIXEL_BITS
                )
            elif len(kept := clip_near(seen[i])) >= 3:
                self.fill(self.camera.to_pixels(kept), color, slot)

    def bars(self, bars: Sequence[Bar], slot: int) -> None:
        """Paint round bars in order; those too close to the camera are left out."""
        seen = self.camera.to_camera(np.concatenate([bar.points for bar in bars]))
        depth = float(seen[:, 2].min())
        if depth < NEAR:
            return
        pixels = self.camera.to_pixels(seen)
        if np.abs(pixels).max() > 8000:
            return
        pixels = fixed_point(pixels)
        scale = 2 * self.camera.focal / depth
        begin = 0
        for bar in bars:
            end = begin + len(bar.points)
            thickness = max(1, round(bar.radius * scale))
            color = (*self.light.shade(bar.color, 1.0, depth), slot)
            chain = [pixels[begin:end]]
            cv2.polylines(self.pixels, chain, False, color, thickness, cv2.LINE_8, SUBPIXEL_BITS)
            begin = end

    def wall(
        self,
        corners: np.ndarray,
        texture: Texture,
        slot: int,
        brightness: float,
        tint: Color = (1, 1, 1),
        part: float = 1.0,
    ) -> None:
        """Paint an upright textured rectangle.

        Args:
            corners: (4, 3) in the ground frame: bottom left, bottom right, top right, top left
                of the texture.
            texture: Where it has a fourth channel, the picture shows through where that is below
                128; the truth does not, as in the real data sets for railings.
            slot: Of the segment.
            brightness: Factor of its colours.
            tint: Factors of red, green, blue.
            part: How much of the texture's width to use, from its left.
        """
        seen = self.camera.to_camera(corners)
        ends = seen[[0, 3, 1, 2], 2].reshape(2, 2).min(1)
        if ends.max() < NEAR:
            return
        cut = [0.0, 1.0]
        if ends.min() < NEAR:
            at = (NEAR - ends[0]) / (ends[1] - ends[0])
            cut[0 if ends[0] < NEAR else 1] = at
        along = np.array([cut[0], cut[1], cut[1], cut[0]])[:, None]
        left, right = seen[[0, 0, 3, 3]], seen[[1, 1, 2, 2]]
        target = self.camera.to_pixels(left + (right - left) * along).astype(np.float32)
        box = self._visible_box(target)
        if box is None:
            return
        x1, y1, x2, y2 = box
        distance = float(np.abs(ends).mean())
        width, height = np.ptp(target, axis=0).tolist()
        if width < 2.5 or height < 8:
            color = self.light.shade(texture.mean * np.asarray(tint), brightness, distance)
            self.fill(target, color, slot)
            return
        target = target - np.float32((x1, y1))
        picture = texture.fitted(1.5 * width / part / (cut[1] - cut[0]), height)
        h, w = picture.shape[:2]
        w *= part
        source = np.array([[cut[0] * w, h], [cut[1] * w, h], [cut[1] * w, 0], [cut[0] * w, 0]])
        matrix = cv2.getPerspectiveTransform(source.astype(np.float32) - 0.5, target)
        warped = cv2.warpPerspective(
            picture, matrix, (x2 - x1, y2 - y1), borderMode=cv2.BORDER_REPLICATE
        )
        mask = np.zeros(warped.shape[:2], dtype=np.uint8)
        cv2.fillConvexPoly(mask, fixed_point(target), 255, cv2.LINE_8, SUBPIXEL_BITS)
        self._paste(box, warped, self.light.table(brightness, distance, tint, slot), mask)

    def board(
        self,
        foot: Sequence[float],
        size: Sequence[float],
        picture: Texture,
        slot: int,
        brightness: float = 1.0,
        tint: Color = (1, 1, 1),
    ) -> None:
        """Paint a flat cut-out that faces the camera, RGB and cover; opaque where cover >= 128.

        Args:
            foot: Middle of its lower edge in the ground frame.
            size: (width, height) in metres.
            picture: With four channels.
            slot: Of the segment.
            brightness: Factor of its colours.
            tint: Factors of red, green, blue.
        """
        seen = self.camera.to_camera(np.asarray(foot, dtype=float))
        if seen[2] < 2 * NEAR:
            return
        scale = self.camera.focal / seen[2]
        u, v = self.camera.to_pixels(seen)
        width, height = size[0] * scale, size[1] * scale
        left, top = u - width / 2, v - height
        box = self._visible_box(np.array([[left, top], [left + width, v]]))
        if box is None:
            return
        x1, y1, x2, y2 = box
        source = picture.fitted(width, height)
        sy, sx = height / source.shape[0], width / source.shape[1]
        matrix = np.array([[sx, 0, left - x1 + sx / 2 - 0.5], [0, sy, top - y1 + sy / 2 - 0.5]])
        warped = cv2.warpAffine(source, matrix, (x2 - x1, y2 - y1))
        self._paste(box, warped, self.light.table(brightness, float(seen[2]), tint, slot))

    def _visible_box(self, points: np.ndarray) -> tuple[int, int, int, int] | None:
        """Return (x1, y1, x2, y2) of the pixels around ``points`` that are in the image."""
        rows, columns = self.camera.size
        x1, y1 = np.maximum(np.floor(points.min(0)), 0).astype(int).tolist()
        x2, y2 = np.minimum(np.ceil(points.max(0)) + 1, (columns, rows)).astype(int).tolist()
        return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None

    def _paste(
        self,
        box: tuple[int, int, int, int],
        source: np.ndarray,
        table: np.ndarray,
        mask: np.ndarray | None = None,
    ) -> None:
        """Copy RGB and cover through ``table`` where there is cover.

        With a mask, copy only there, and let the segment own all of it.
        """
        x1, y1, x2, y2 = box
        region = self.pixels[y1:y2, x1:x2]
        cover = cv2.compare(cv2.extractChannel(source, 3), 127, cv2.CMP_GT)
        painted = cv2.LUT(source, table)
        if mask is None:
            cv2.copyTo(painted, cover, region)
            return
        cv2.copyTo(painted, cv2.bitwise_and(mask, cover), region)
        region[..., 3][mask > 0] = painted[0, 0, 3]


def fixed_point(pixels: np.ndarray) -> np.ndarray:
    """Return pixel coordinates as OpenCV draws them at sub-pixel accuracy."""
    return (pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)


def clip_near(points: np.ndarray) -> np.ndarray:
    """Cut a polygon, (n, 3) in the camera frame, at the near plane: (m, 3), m may be 0."""
    front = points[:, 2] >= NEAR
    if front.all():
        return points
    if not front.any():
        return points[:0]
    kept = []
    for here, there, here_in, there_in in zip(
        points, np.roll(points, -1, 0), front, np.roll(front, -1), strict=True
    ):
        if here_in:
            kept.append(here)
        if here_in != there_in:
            kept.append(here + (there - here) * ((NEAR - here[2]) / (there[2] - here[2])))
    return np.array(kept)
