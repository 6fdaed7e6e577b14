"""Boxes of things against cuboids that were ray-cast, so that the truth is exact."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from panoptic_ros.space.boxes import find_boxes

from .scenes import CRATE, Cuboid, cast, describe

# Their tops are below the camera and visible, so that all of their depth is seen.
CRATES = [
    Cuboid((-1.0, 1.0, 5.0), (0.8, 1.0, 1.2)),
    Cuboid((1.5, 1.1, 7.0), (1.8, 0.8, 4.0)),
    Cuboid((0.3, 1.25, 4.0), (0.3, 0.5, 0.3)),
]


def boxes_of(scene, depth=None, labels=None):
    prediction = scene.prediction if labels is None else describe(labels)
    found = find_boxes(
        scene.depth if depth is None else depth,
        prediction.labels,
        prediction.instances,
        scene.camera,
    )
    return {identifier % 256: box for identifier, box in found.items()}


def assert_is(box, cuboid, tolerance):
    """Compare; how far its top reaches is known to one and a half rows of an image of 360."""
    far, top = cuboid.center[2] + cuboid.size[2] / 2, cuboid.center[1] - cuboid.size[1] / 2
    row = far**2 / (400 * top)  # metres along the top
    for axis, limit in enumerate((tolerance, tolerance, 0.75 * row + tolerance)):
        assert box.center[axis] == pytest.approx(cuboid.center[axis], abs=limit)
        assert box.size[axis] == pytest.approx(cuboid.size[axis], abs=2 * limit)


@pytest.mark.parametrize("height", [360, 720, 1080])
def test_boxes_are_those_of_the_cuboids(height):
    scene = cast(CRATES, height, height * 4 // 3, 400.0 * height / 360)
    found = boxes_of(scene)
    assert len(found) == 3
    for number, cuboid in enumerate(CRATES, start=1):
        assert_is(found[number], cuboid, tolerance=0.02)


def test_only_what_is_visible_has_a_size():
    """Before the camera and above it: nothing but the front of the cuboid is seen."""
    (front,) = boxes_of(cast([Cuboid((0, 0, 6), (1, 1, 2))])).values()
    np.testing.assert_allclose(front.center, (0, 0, 5), atol=0.01)
    np.testing.assert_allclose(front.size, (1, 1, 0), atol=0.03)


@pytest.mark.parametrize("spill", [3, 6])
def test_the_background_does_not_leak(spill):
    """A mask that is pixels too large on every side shows much of the floor and the wall."""
    scene = cast([Cuboid((0, 0.2, 4), (0.7, 1.6, 0.5))])
    mask = (scene.prediction.labels == CRATE.id * 256 + 1).astype(np.uint8)
    larger = cv2.dilate(mask, np.ones((2 * spill + 1,) * 2)) > 0
    labels = np.where(larger, CRATE.id * 256 + 1, scene.prediction.labels).astype(np.uint16)
    assert scene.depth[larger].max() > 10
    exact, leaking = boxes_of(scene)[1], boxes_of(scene, labels=labels)[1]
    # The floor where it stands is at its own depth; it is as wide as the mask.
    spilt = 2 * spill * 4.25 / 400
    np.testing.assert_allclose(leaking.center[:2], exact.center[:2], atol=spilt / 2)
    assert leaking.size[0] <= exact.size[0] + spilt
    assert leaking.center[2] == pytest.approx(exact.center[2], abs=0.1)
    assert leaking.size[2] < 0.5


def test_what_stands_before_a_thing_does_not_leak():
    scene = cast([Cuboid((0, 0, 8), (2, 2, 1))])
    depth = scene.depth.copy()
    depth[150:160, 100:380] = 2.0  # a bar that the mask does not know of
    assert_is_close(boxes_of(scene, depth)[1], boxes_of(scene)[1])


def assert_is_close(one, two):
    np.testing.assert_allclose(one.center, two.center, atol=0.02)
    np.testing.assert_allclose(one.size, two.size, atol=0.04)


def test_missing_and_noisy_depth():
    generator = np.random.default_rng(1)
    scene = cast(CRATES)
    depth = scene.depth * generator.normal(1, 0.003, scene.depth.shape).astype(np.float32)
    depth[generator.random(depth.shape) < 0.3] = np.nan
    depth[generator.random(depth.shape) < 0.1] = 0
    flying = generator.random(depth.shape) < 0.002
    depth[flying] = generator.uniform(0.3, 20, flying.sum())
    for number, cuboid in enumerate(CRATES, start=1):
        assert_is(boxes_of(scene, depth)[number], cuboid, tolerance=0.03)


def test_no_depth_no_box():
    scene = cast(CRATES)
    depth = scene.depth.copy()
    depth[scene.prediction.labels == CRATE.id * 256 + 2] = np.nan
    assert sorted(boxes_of(scene, depth)) == [1, 3]
    for value in (np.nan, 0, np.inf, -1, 1000):
        assert boxes_of(scene, np.full_like(depth, value)) == {}


def test_things_of_a_few_pixels():
    scene = cast([Cuboid((0, 0, 15), (0.12, 0.12, 0.1))])  # 3 x 3 pixels
    assert boxes_of(scene)[1].center == pytest.approx((0, 0, 14.95), abs=0.05)
    labels = scene.prediction.labels.copy()
    labels[179:] = 0
    assert boxes_of(scene, labels=labels) == {}


def test_nothing_to_find():
    assert boxes_of(cast([])) == {}
