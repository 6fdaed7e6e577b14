"""A random view of an image: the numbers that an ``Augmentation`` draws, and what they do.

``batch_augmentation`` applies many views at once on the device of the training. A view does what
``Augmentation`` does to one image, with three differences: images that shrink are not smoothed,
the hue turns in the YIQ space, and channels are not exchanged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from panoptic_ros.data.augmentation import Augmentation

RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
YIQ_TO_RGB = np.linalg.inv(RGB_TO_YIQ)
GRAY = RGB_TO_YIQ[0]
ODDS = 0.5  # of each distortion: torchvision's RandomPhotometricDistort
BRIGHTNESS, CONTRAST, SATURATION, HUE = (0.875, 1.125), (0.5, 1.5), (0.5, 1.5), (-0.05, 0.05)


@dataclass(frozen=True)
class View:
    """How one image is seen.

    Attributes:
        window: (top, left, height, width) of what is seen, in pixels of the image; it may reach
            beyond the image.
        flip: Whether it is mirrored left to right.
        colors: float64, (3, 3): what red, green and blue are multiplied with.
        contrast: Factor of the distance from the mean grey level.
        gamma: Exponent of levels 0..1.
        cast: float64, (3,): factor of each channel after that.
    """

    window: tuple[float, float, float, float]
    flip: bool
    colors: np.ndarray
    contrast: float
    gamma: float
    cast: np.ndarray

    def matrix(self, store: tuple[int, int]) -> np.ndarray:
        """Return the map that ``affine_grid`` takes: float64, (2, 3), from view to store.

        Args:
            store: (height, width) of the tensor that the image lies in, from its first corner.
        """
        top, left, height, width = self.window
        x, y = width / store[1], height / store[0]
        return np.array(
            [
                [-x if self.flip else x, 0, x + 2 * left / store[1] - 1],
                [0, y, y + 2 * top / store[0] - 1],
            ]
        )

    def shows(self, boxes: np.ndarray) -> np.ndarray:
        """Tell which boxes (N, 4), x1 y1 x2 y2, reach into the window: bool, (N,)."""
        top, left, height, width = self.window
        x1, y1, x2, y2 = boxes.T
        return (x1 < left + width) & (x2 > left) & (y1 < top + height) & (y2 > top)


def draw_view(
    rng: np.random.Generator,
    augmentation: Augmentation,
    size: tuple[int, int],
    boxes: np.ndarray,
) -> View:
    """Draw a view.

    Args:
        rng: All chance comes from it.
        augmentation: With ``crop_size``; see ``check_batched``.
        size: (height, width) of the image.
        boxes: float, (N, 4): of its instances, x1 y1 x2 y2.
    """
    factor = rng.uniform(*augmentation.scale)
    scaled = np.maximum(1, np.round(np.multiply(size, factor)))
    factors = scaled / size  # of rows and of columns
    corner = _corner(rng, augmentation, scaled, boxes * np.tile(factors[::-1], 2))
    window = (*(corner / factors), *(np.array(augmentation.crop_size) / factors))
    flip = bool(rng.random() < augmentation.flip)
    colors, contrast = np.eye(3), 1.0
    if augmentation.photometric:
        colors = _sometimes(rng, BRIGHTNESS) * colors
        contrast = _sometimes(rng, CONTRAST)
        saturation = _sometimes(rng, SATURATION)
        colors = (saturation * np.eye(3) + (1 - saturation) * np.ones((3, 1)) * GRAY) @ colors
        colors = _hue(_sometimes(rng, HUE, neutral=0.0)) @ colors
    light = augmentation.light
    gamma = math.exp(rng.uniform(-light, light))
    cast = np.exp(rng.uniform(-light / 4, light / 4, 3))
    return View(tuple(window), flip, colors, contrast, gamma, cast)


def check_batched(augmentation: Augmentation) -> None:
    """Raise ValueError for what only single images can have."""
    fields = ("short_sides", "long_side", "square", "crop_drops_off_center")
    if used := [name for name in fields if getattr(augmentation, name)]:
        raise ValueError(f"{', '.join(used)}: not with on_device; leave it out or turn that off")
    if not augmentation.crop_size:
        raise ValueError("on_device needs crop_size: all images of a batch have one size")


def _corner(
    rng: np.random.Generator, augmentation: Augmentation, size: np.ndarray, boxes: np.ndarray
) -> np.ndarray:
    """Choose (top, left) of the crop, as ``Augmentation`` does; boxes and size are scaled."""
    wanted = np.array(augmentation.crop_size)
    low, high = np.zeros(2), np.maximum(0, size - wanted)
    if augmentation.crop_on_instance and len(boxes):
        x1, y1, x2, y2 = boxes[rng.integers(len(boxes))]
        middle = np.array((y1 + y2, x1 + x2)) // 2
        low, high = np.maximum(low, middle - wanted + 1), np.minimum(high, middle)
    return low + np.floor(rng.random(2) * (np.maximum(high, low) - low + 1))


def _sometimes(
    rng: np.random.Generator, limits: tuple[float, float], neutral: float = 1.0
) -> float:
    value = rng.uniform(*limits)
    return value if rng.random() < ODDS else neutral


def _hue(turns: float) -> np.ndarray:
    """Return the colour map, (3, 3), that turns the hue."""
    cos, sin = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    return YIQ_TO_RGB @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ RGB_TO_YIQ
