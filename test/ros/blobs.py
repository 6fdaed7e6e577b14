"""A segmenter that needs no network: bright blobs are things. This module is also a node with it.

The result is a function of the image, so that tests can tell which image a result came from.
Words in the model's name choose what it does: ``blobs slow=0.2``, ``blobs refuse``, ...
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from panoptic_ros.prediction import LABEL_DIVISOR, Category, PanopticPrediction, Segment
from panoptic_ros.ros.parameters import Parameters

GROUND = Category(7, "ground", False, (128, 64, 128))
BLOB = Category(26, "blob", True, (0, 0, 142))
BRIGHT = 128


@dataclass(frozen=True)
class BlobOptions:
    """As panoptic_ros.networks.base.PredictionOptions, without torch."""

    score_threshold: float = 0.6
    overlap_threshold: float = 0.5
    stuff_area_limit: int = 0


@dataclass
class BlobSegmenter:
    """Every bright region is an instance whose score is its mean green; all else is ground."""

    name: str
    resolution: tuple[int, int] = (64, 128)
    seconds: float = 0.0
    fails: bool = False
    device: str = "cpu"
    precision: str = "fp32"
    engine: str = "eager"
    categories: tuple[Category, ...] = (GROUND, BLOB)
    options: BlobOptions = field(default_factory=BlobOptions)
    batches: list[int] = field(default_factory=list)
    seen: list[tuple[int, int]] = field(default_factory=list)

    def __call__(
        self,
        images: Sequence[np.ndarray],
        output_sizes: Sequence[tuple[int, int]],
        confidence: bool = False,
    ) -> list[PanopticPrediction]:
        self.batches.append(len(images))
        time.sleep(self.seconds)
        if self.fails:
            raise RuntimeError("out of memory")
        timings = {f"batch of {len(images)}": self.seconds}
        return [
            replace(
                self._segment(image, size),
                timings=timings,
                confidence=green(image, size) if confidence else None,
            )
            for image, size in zip(images, output_sizes, strict=True)
        ]

    def fit(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """As a network that takes images no larger than its resolution, in their proportions."""
        factor = min(r / side for r, side in zip(self.resolution, image_size, strict=True))
        return tuple(round(factor * side) for side in image_size)

    def _segment(self, image: np.ndarray, size: tuple[int, int]) -> PanopticPrediction:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        self.seen.append(image.shape[:2])
        if image.shape[:2] != size:
            image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST)
        count, regions, boxes, centers = cv2.connectedComponentsWithStats(
            (image.min(axis=2) >= BRIGHT).astype(np.uint8), connectivity=4
        )
        labels = np.full(image.shape[:2], GROUND.id * LABEL_DIVISOR, np.uint16)
        things = []
        for region in range(1, count):
            mask = regions == region
            score = float(image[mask][:, 1].mean()) / 255
            if score < self.options.score_threshold:
                continue
            label = BLOB.id * LABEL_DIVISOR + len(things) + 1
            labels[mask] = label
            x, y, width, height, area = (int(v) for v in boxes[region])
            center = tuple(map(float, centers[region]))
            box = (x, y, width, height)
            things.append(Segment(label, BLOB.id, BLOB.name, True, score, area, box, center))
        things.sort(key=lambda s: -s.score)
        return PanopticPrediction(labels, tuple(things), self.categories)


def green(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the green of an image at a size: what this segmenter calls its confidence."""
    return cv2.resize(image[..., 1], size[::-1], interpolation=cv2.INTER_NEAREST)


def load_blobs(parameters: Parameters) -> BlobSegmenter:
    """Make the segmenter that the model's name describes."""
    words = dict(word.partition("=")[::2] for word in parameters.model.split()[1:])
    time.sleep(float(words.get("load", 0)))
    if "broken" in words:
        raise RuntimeError(f"{parameters.model} is damaged")
    segmenter = BlobSegmenter(
        parameters.model, seconds=float(words.get("slow", 0)), fails="fails" in words
    )
    if parameters.resolution:
        segmenter.resolution = tuple(map(int, parameters.resolution.split("x")))
    return segmenter


def check_blobs(parameters: Parameters) -> None:
    """Refuse what can be refused without loading."""
    if not parameters.model.startswith("blobs"):
        raise ValueError(f"no model {parameters.model!r}")


def make_node(**options):
    """Return a PanopticNode with this segmenter."""
    from panoptic_ros.ros.node import PanopticNode

    return PanopticNode(load=load_blobs, check=check_blobs, **options)


if __name__ == "__main__":
    from panoptic_ros.ros.node import main

    main(make_node=make_node)
