"""Synthetic streets with exact panoptic truth: endless, seeded, fast enough to train on the fly.

A ``StreetScene`` is a street and a camera that drives along it; ``frame(t)`` renders any moment
of the drive. The classes are CamVid's eleven.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from panoptic_ros.data.categories import load_categories
from panoptic_ros.data.targets import compact_target, measure_segments
from panoptic_ros.streets.camera import PinholeCamera
from panoptic_ros.streets.canvas import Canvas
from panoptic_ros.streets.ground import draw_ground
from panoptic_ros.streets.layout import BLOCK, Block, Plan, build_block
from panoptic_ros.streets.scenery import Lens, Weather, draw_distance, draw_sky
from panoptic_ros.streets.traffic import Traffic
from panoptic_ros.truth import PanopticTarget

VIEW_DISTANCE = 120.0  # metres
FRAME_RATE = 12.5  # frames per second of a drive


class StreetScene:
    """A drive along one street.

    Args:
        seed: The street, its traffic, weather and camera; any integer.
        size: (rows, columns) of the images.

    Attributes:
        categories: CamVid's class table.
    """

    def __init__(self, seed: int, size: tuple[int, int] = (256, 512)) -> None:
        self.seed = seed
        self.size = size
        self.categories = load_categories("camvid")
        self._is_thing = {category.id: category.is_thing for category in self.categories}
        rng = random.Random(seed)
        self.weather = Weather(rng)
        self.lens = Lens(rng)
        self.plan = _random_plan(rng, self.weather.dusk)
        forward = -1 if self.plan.drive_left else 1
        lane = rng.randrange(self.plan.lanes)
        self.ego_x = forward * self.plan.lane_width * (lane + rng.uniform(0.35, 0.6))
        self.speed = rng.uniform(3, 13)
        density = (rng.uniform(0.1, 1.0), rng.random(), rng.random())
        self.traffic = Traffic(
            self.plan, forward * self.plan.lane_width * (lane + 0.5), self.speed, density
        )
        self._bend = (rng.gauss(0, 1 / 500), rng.uniform(0, 6.28))
        self._camera = {
            "focal": size[1] * rng.uniform(0.7, 1.15),
            "height": rng.uniform(1.15, 2.0),
            "pitch": rng.gauss(0.0, 0.03),
            "yaw": rng.gauss(0, 0.09),
        }
        self._blocks: dict[int, Block] = {}

    def frame(self, t: float) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Render the drive at frame ``t`` (of ``FRAME_RATE`` per second; 0 is its beginning).

        Returns:
            The image, uint8 (H, W, 3) RGB; the id map, int32 (H, W), 0 is void; and its segments
            as COCO panoptic lists them (id, category_id, area, bbox, iscrowd). An instance keeps
            its id over the frames of a drive.
        """
        canvas = self._render(t)
        owners = sorted(canvas.owners)
        slots = torch.from_numpy(canvas.pixels[..., 3].astype(np.int64))
        areas, boxes = measure_segments(slots, 255)
        table = np.zeros(256, dtype=np.int32)
        segments = []
        for slot in owners:
            segment_id, category_id = canvas.owners[slot]
            area = int(areas[slot - 1])
            if area:
                table[slot] = segment_id
                x1, y1, x2, y2 = boxes[slot - 1].tolist()
                segments.append(
                    {
                        "id": segment_id,
                        "category_id": category_id,
                        "area": area,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "iscrowd": 0,
                    }
                )
        return self.lens.develop(canvas.pixels, int(t)), table[canvas.pixels[..., 3]], segments

    def sample(self, t: float) -> tuple[Tensor, PanopticTarget]:
        """Render frame ``t`` as a data set's item: image uint8 (3, H, W) RGB, and its truth."""
        canvas = self._render(t)
        owners = sorted(canvas.owners)
        table = np.zeros(256, dtype=np.int64)
        table[owners] = np.arange(1, len(owners) + 1)
        class_ids = [canvas.owners[slot][1] for slot in owners]
        target = compact_target(
            torch.from_numpy(table[canvas.pixels[..., 3]]),
            torch.tensor(class_ids),
            torch.tensor([self._is_thing[c] for c in class_ids]),
            torch.zeros(len(owners), dtype=torch.bool),
        )
        image = torch.from_numpy(self.lens.develop(canvas.pixels, int(t)))
        return image.permute(2, 0, 1).contiguous(), target

    def ground(self, x: float, s: float) -> tuple[float, float]:
        """Return (x, z) of the ground frame for a point of the street, in the current frame."""
        z = s - self._s
        return x - self.ego_x + 0.5 * self._curvature * z * z, z

    def slope(self, s: float) -> float:
        """Return the direction of the street at s, in radians to the right."""
        return self._curvature * (s - self._s)

    def _render(self, t: float) -> Canvas:
        seconds = t / FRAME_RATE
        self._s = 20.0 + self.speed * seconds
        amplitude, phase = self._bend
        self._curvature = amplitude * math.sin(self._s / 120 + phase)
        wobble = 0.004 * math.sin(2.1 * seconds) if self.speed else 0.0
        settings = {**self._camera, "pitch": self._camera["pitch"] + wobble}
        canvas = Canvas(PinholeCamera(size=self.size, **settings), self.weather.light)
        first = math.floor((self._s - 8) / BLOCK)
        blocks = [self._block(first + i) for i in range(math.ceil(VIEW_DISTANCE / BLOCK) + 1)]
        draw_sky(canvas, self.weather)
        draw_ground(canvas, self, blocks)
        draw_distance(canvas, self.weather, self.plan, self.ground(0, self._s + VIEW_DISTANCE))
        items = [item for block in blocks for item in block.items]
        items += self.traffic.at(seconds, self._s)
        for item in sorted(items, key=lambda item: -item.far):
            if -2 < item.far - self._s < VIEW_DISTANCE:
                item.draw(canvas, self)
        self.lens.draw_hood(canvas)
        return canvas

    @property
    def s(self) -> float:
        """Where along the street the camera is in the current frame."""
        return self._s

    @property
    def curvature(self) -> float:
        """Of the street in the current frame, 1/m, positive to the right."""
        return self._curvature

    def _block(self, index: int) -> Block:
        if index not in self._blocks:
            if len(self._blocks) > 8:
                self._blocks.clear()
            self._blocks[index] = build_block(self.plan, index)
        return self._blocks[index]


def _random_plan(rng: random.Random, dusk: float) -> Plan:
    zones = rng.choice(((6, 1, 1, 0.5), (1, 6, 1, 1), (2, 1, 5, 1), (1, 2, 0.5, 5), (3, 3, 2, 1)))
    parking = tuple(2.1 if rng.random() < 0.5 else 0.0 for _ in range(2))
    return Plan(
        seed=rng.randrange(1 << 30),
        drive_left=rng.random() < 0.7,
        lanes=rng.choice((1, 1, 1, 2)),
        lane_width=rng.uniform(2.9, 3.7),
        parking=parking,
        sidewalk=(rng.uniform(1.6, 4.5), rng.uniform(1.6, 4.5)),
        zones=zones,
        trees=rng.choice(("leafy", "leafy", "bare")),
        tree_density=rng.choice((0.0, 0.1, 0.3, 0.7)),
        parked=rng.uniform(0.3, 0.95),
        furniture=rng.uniform(0.3, 1.6),
        dusk=dusk,
    )


class SyntheticStreets(Dataset[tuple[Tensor, PanopticTarget]]):
    """Frames of synthetic streets; an item is the same pair as a ``CocoPanoptic``'s.

    Each index is a moment of a street of its own and depends on nothing but ``seed`` and itself.

    Args:
        length: Number of items.
        size: (rows, columns) of the images.
        seed: Other seeds give other streets.

    Attributes:
        categories: CamVid's class table.
    """

    def __init__(self, length: int, size: tuple[int, int] = (256, 512), seed: int = 0) -> None:
        self.length = length
        self.size = size
        self.seed = seed
        self.categories = load_categories("camvid")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, PanopticTarget]:
        """Return image and truth of item ``index``; raises IndexError beyond the end."""
        if not -self.length <= index < self.length:
            raise IndexError(f"item {index} of {self.length}")
        number = self.seed * 1_000_000_007 + index % self.length
        return StreetScene(number, self.size).sample(t=0)


def drive(
    seed: int, size: tuple[int, int] = (256, 512), frames: int = 100
) -> Iterator[tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]]:
    """Yield the first frames of a drive, ``FRAME_RATE`` a second; see ``StreetScene.frame``."""
    scene = StreetScene(seed, size)
    for t in range(frames):
        yield scene.frame(t)
