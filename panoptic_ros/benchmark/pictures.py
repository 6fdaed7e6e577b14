"""Pictures to measure with."""

from __future__ import annotations

from functools import cache

import numpy as np

RENDERED = (256, 512)


def street_images(number: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Return different synthetic streets: uint8, (*size, 3), RGB.

    They are rendered small and enlarged: what they cost to segment is the same.
    """
    import cv2

    images = [_street(index) for index in range(number)]
    return [cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR) for image in images]


@cache
def _street(index: int) -> np.ndarray:
    from panoptic_ros.data.synthetic import SyntheticStreets

    return SyntheticStreets(index + 1, RENDERED, seed=5)[index][0].permute(1, 2, 0).numpy()
