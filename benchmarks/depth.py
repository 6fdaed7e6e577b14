"""What things in space cost, and docs/depth.png: python -m benchmarks.depth [--picture]."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from panoptic_ros.drawing import draw_overlay
from panoptic_ros.space.boxes import find_boxes
from panoptic_ros.space.points import organised_cloud, thinned_cloud
from test.space.scenes import Cuboid, Scene, cast

SIZES = ((360, 480), (720, 1280), (1080, 1920))
NUMBERS = (3, 20, 100)
ROUNDS = 40
PICTURE = Path(__file__).resolve().parent.parent / "docs" / "depth.png"
PER_METRE, REACH, ASIDE = 40, 12.0, 5.0  # of the view from above: pixels, and metres shown


def scene(number: int, size: tuple[int, int]) -> Scene:
    """See a number of crates that stand about, some of them behind others."""
    generator = np.random.default_rng(number)
    cuboids = []
    for _ in range(number):
        extent = generator.uniform(0.4, 1.6, 3)
        place = generator.uniform(-4, 4), 1.5 - extent[1] / 2, generator.uniform(4, 11)
        cuboids.append(Cuboid(place, tuple(extent)))
    return cast(cuboids, *size, 400.0 * size[0] / 360)


def milliseconds(call: Callable[[], object]) -> float:
    """Return the median of this thread's processor time."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.thread_time()
        call()
        times.append(time.thread_time() - start)
    return 1e3 * float(np.median(times[1:]))


def measure() -> None:
    """Print a table."""
    print("| image | things seen, part of the image | boxes | cloud | voxels of 10 cm |")
    print("|---|---|---:|---:|---:|")
    for size in SIZES:
        for number in NUMBERS:
            seen = scene(number, size)
            labels, things = seen.prediction.labels, seen.prediction.instances
            image = np.full((*size, 3), 128, np.uint8)
            points = organised_cloud(seen.depth, image, seen.prediction, seen.camera)
            part = sum(thing.area for thing in things) / labels.size
            given = seen.depth, labels, things, seen.camera
            cloud = seen.depth, image, seen.prediction, seen.camera
            times = [
                milliseconds(partial(find_boxes, *given)),
                milliseconds(partial(organised_cloud, *cloud)),
                milliseconds(partial(thinned_cloud, points, 0.1)),
            ]
            cells = " | ".join(f"{t:.1f}" for t in times)
            print(f"| {size[0]}x{size[1]} | {len(things)}, {part:.0%} | {cells} |")


def draw() -> np.ndarray:
    """Return the scene with its labels, and from above: points in their colour, boxes found."""
    seen = scene(8, (480, 640))
    shade = (255 * np.exp(-seen.depth / 12)).astype(np.uint8)
    image = np.repeat(shade[..., None], 3, axis=2)
    overlay = draw_overlay(image, seen.prediction, 0.5)
    points = organised_cloud(seen.depth, overlay, seen.prediction, seen.camera)
    boxes = find_boxes(seen.depth, seen.prediction.labels, seen.prediction.instances, seen.camera)
    above = np.full((480, int(2 * ASIDE * PER_METRE), 3), 40, np.uint8)
    ahead = np.isfinite(points["z"]) & (points["z"] < REACH) & (abs(points["x"]) < ASIDE)
    columns, rows = place(points["x"][ahead], points["z"][ahead])
    above[rows.clip(0, 479), columns.clip(0, above.shape[1] - 1)] = overlay[ahead]
    for box in boxes.values():
        x, _, z = box.center
        low = place(x - box.size[0] / 2, z - box.size[2] / 2)
        high = place(x + box.size[0] / 2, z + box.size[2] / 2)
        cv2.rectangle(above, tuple(map(int, low)), tuple(map(int, high)), (255, 220, 0), 2)
        for corner in corners(box, seen.camera):
            cv2.polylines(overlay, [corner], True, (255, 220, 0), 1, cv2.LINE_AA)
    return np.concatenate((overlay, above), axis=1)


def place(x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return column and row of points in the view from above."""
    return (
        np.int64(np.round((x + ASIDE) * PER_METRE)),
        np.int64(np.round(480 - z * PER_METRE)),
    )


def corners(box, camera) -> list[np.ndarray]:
    """Return the front and the back of a box in the image."""
    center, half = np.array(box.center), np.array(box.size) / 2
    faces = []
    for side in (-1, 1):
        turns = np.array([(-1, -1, side), (1, -1, side), (1, 1, side), (-1, 1, side)])
        x, y, z = (center + turns * half).T
        u, v = x / z * camera.fx + camera.cx, y / z * camera.fy + camera.cy
        faces.append(np.stack((u, v), 1).round().astype(np.int32))
    return faces


def main() -> None:
    """Measure, or draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", action="store_true", help="Draw docs/depth.png instead.")
    if parser.parse_args().picture:
        cv2.imwrite(str(PICTURE), draw()[..., ::-1])
    else:
        measure()


if __name__ == "__main__":
    main()
