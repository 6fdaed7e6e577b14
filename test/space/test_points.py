"""Clouds against points worked out one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from panoptic_ros.space.points import POINT, organised_cloud, thinned_cloud

from .scenes import CRATE, FLOOR_Y, WALL_Z, Cuboid, cast

SCENE = cast([Cuboid((0, 0.5, 4), (1, 1, 1))], 60, 80, 70.0)


def cloud(scene=SCENE, depth=None):
    image = np.random.default_rng(2).integers(0, 256, (*scene.depth.shape, 3), np.uint8)
    depth = scene.depth if depth is None else depth
    return image, organised_cloud(depth, image, scene.prediction, scene.camera)


def test_every_pixel_is_a_point():
    image, points = cloud()
    labels = SCENE.prediction.labels
    assert points.shape == (60, 80) and points.dtype.itemsize == 24
    for v, u in np.random.default_rng(3).integers(0, (60, 80), (50, 2)):
        point, z = points[v, u], float(SCENE.depth[v, u])
        assert point["z"] == np.float32(z)
        assert point["x"] == pytest.approx((u - 39.5) / 70 * z, rel=1e-5)
        assert point["y"] == pytest.approx((v - 29.5) / 70 * z, rel=1e-5)
        red, green, blue = map(int, image[v, u])
        assert point["rgb"] == red << 16 | green << 8 | blue
        assert (point["class"], point["instance"]) == divmod(int(labels[v, u]), 256)
    floor = points[labels == 256]
    np.testing.assert_allclose(floor["y"], FLOOR_Y, rtol=1e-5)
    assert (points[labels == 512]["z"] == WALL_Z).all()


def test_confidence_of_pixels_else_of_segments():
    _, points = cloud()
    np.testing.assert_allclose(points["confidence"], 0.8, atol=0.002)
    own = np.arange(60 * 80).reshape(60, 80).astype(np.uint8)
    prediction = replace(SCENE.prediction, confidence=own)
    _, points = cloud(SCENE._replace(prediction=prediction))
    np.testing.assert_allclose(points["confidence"], own / 255, rtol=1e-6)


def test_without_depth_there_is_no_place_but_a_class():
    depth = SCENE.depth.copy()
    depth[10:50, 20:60] = np.nan
    _, points = cloud(depth=depth)
    for axis in "xyz":
        assert (np.isnan(points[axis]) == np.isnan(depth)).all()
    assert (points["class"] == SCENE.prediction.labels // 256).all()


@pytest.mark.parametrize("size", [0.05, 0.25, 3.0])
def test_one_point_of_every_cube(size):
    depth = SCENE.depth.copy()
    depth[:10] = np.nan
    _, points = cloud(depth=depth)
    thin = thinned_cloud(points, size)
    seen = {}
    for point in points[np.isfinite(points["z"])]:
        seen.setdefault(tuple(np.floor(point[a] / np.float32(size)) for a in "xyz"), point)
    assert thin.tolist() == [p.tolist() for p in seen.values()]
    assert (thin["class"] == CRATE.id).any()


def test_no_point_at_all():
    assert thinned_cloud(np.empty((0,), POINT), 0.1).shape == (0,)
    _, points = cloud(depth=np.full((60, 80), np.nan, np.float32))
    assert thinned_cloud(points, 0.1).shape == (0,)
