"""The camera of a scene and the light it sees by.

Ground frame: x to the right, y up, z forward, in metres; the origin is the point of the ground
below the camera.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NEAR = 0.4  # metres; nothing closer to the image plane is drawn

Color = Sequence[float]


@dataclass(frozen=True)
class PinholeCamera:
    """A pinhole camera above the ground, looking forward.

    Attributes:
        size: (rows, columns) of the image.
        focal: Focal length in pixels.
        height: Above the ground, in metres.
        pitch: Downward tilt in radians.
        yaw: Turn to the right in radians.
    """

    size: tuple[int, int]
    focal: float
    height: float
    pitch: float
    yaw: float

    def __post_init__(self) -> None:
        """Keep the rotation from the ground frame to (right, down, forward)."""
        cos_p, sin_p = math.cos(self.pitch), math.sin(self.pitch)
        cos_y, sin_y = math.cos(self.yaw), math.sin(self.yaw)
        turn = np.array([[cos_y, 0, -sin_y], [0, 1, 0], [sin_y, 0, cos_y]])
        tilt = np.array([[1, 0, 0], [0, -cos_p, -sin_p], [0, -sin_p, cos_p]])
        object.__setattr__(self, "rotation", tilt @ turn)

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """Turn points (..., 3) of the ground frame into (right, down, forward)."""
        return (points - (0.0, self.height, 0.0)) @ self.rotation.T

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Project points (..., 3) of the camera frame, forward > 0, to (..., 2) (column, row)."""
        rows, columns = self.size
        center = (columns / 2, rows / 2)
        return points[..., :2] * (self.focal / points[..., 2:]) + center

    def ground_points(self, first_row: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return x and z, float32, of the ground under every ``step``-th pixel each way.

        Rows begin with ``first_row``, which must be below the horizon.
        """
        rows, columns = self.size
        u = (np.arange(0, columns, step, dtype=np.float32) + step / 2 - columns / 2) / self.focal
        v = np.arange(first_row, rows, step, dtype=np.float32)[:, None] + step / 2
        v = (v - rows / 2) / self.focal
        r = self.rotation.astype(np.float32)
        down = -(r[0, 1] * u + r[1, 1] * v + r[2, 1])
        reach = self.height / np.maximum(down, 1e-3)
        x = (r[0, 0] * u + r[1, 0] * v + r[2, 0]) * reach
        z = (r[0, 2] * u + r[1, 2] * v + r[2, 2]) * reach
        return x, z

    @property
    def horizon(self) -> int:
        """First row that lies wholly below the horizon."""
        rows = self.size[0]
        return int(np.clip(math.ceil(rows / 2 - self.focal * math.tan(self.pitch)) + 1, 1, rows))


@dataclass(frozen=True)
class Light:
    """What the weather and the hour do to a colour.

    Attributes:
        sun: Unit vector towards the sun in the ground frame.
        direct: Strength of the sun, 0 (overcast) to about 0.7.
        ambient: Strength of the sky.
        haze: Colour of the far distance.
        haze_distance: Metres at which the haze takes 63 % of a colour.
    """

    sun: tuple[float, float, float]
    direct: float
    ambient: float
    haze: tuple[float, float, float]
    haze_distance: float

    def on(self, normal: Sequence[float]) -> float:
        """Return the brightness of a surface with this unit normal."""
        facing = sum(a * b for a, b in zip(self.sun, normal, strict=True))
        return self.ambient * (0.85 + 0.15 * normal[1]) + self.direct * max(0.0, facing)

    def haze_at(self, distance: float) -> float:
        """Return the part of the haze in a colour seen over ``distance`` metres."""
        return 1.0 - math.exp(-max(distance, 0.0) / self.haze_distance)

    def shade(self, color: Color, brightness: float, distance: float) -> list[float]:
        """Return a colour (r, g, b) under ``brightness``, seen over ``distance`` metres."""
        haze = self.haze_at(distance)
        return [
            min(255.0, c * brightness) * (1 - haze) + h * haze
            for c, h in zip(color, self.haze, strict=True)
        ]

    def table(self, brightness: float, distance: float, tint: Color, slot: int) -> np.ndarray:
        """Return ``shade`` as a table for cv2.LUT from RGB and cover to RGB and slot."""
        haze = self.haze_at(distance)
        values = np.arange(256.0)[:, None] * [brightness * t for t in tint]
        table = np.full((1, 256, 4), slot, dtype=np.uint8)
        table[0, :, :3] = np.minimum(values, 255) * (1 - haze) + [haze * h for h in self.haze]
        return table
